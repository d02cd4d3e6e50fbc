"""C-MELT pre-training for ECG and text: raw records and reports in, a pre-trained model and trustworthy numbers out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmelt.models.cmelt import CMELT
    from cmelt.training.own_loop import ShardDataset, webdataset

__version__ = "0.1.0"
__all__ = ["CMELT", "ShardDataset", "__version__", "webdataset"]

PUBLIC = {"CMELT": "models.cmelt", "ShardDataset": "training.own_loop", "webdataset": "training.own_loop"}
"""Public name → the module that has it."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import cmelt`` and ``cmelt --help`` stay free of torch."""
    if name in PUBLIC:
        return getattr(import_module(f"cmelt.{PUBLIC[name]}"), name)
    raise AttributeError(f"module 'cmelt' has no attribute {name!r}")
