"""C-MELT pre-training for ECG and text: raw records and reports in, a pre-trained model and trustworthy numbers out.

``__all__`` is what may be relied on, with the commands, the shard format and the run folder; all else may change.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from cmelt.config import load_recipe
    from cmelt.errors import CmeltError
    from cmelt.models.cmelt import CMELT
    from cmelt.plots import plot_ecg
    from cmelt.record import LEADS
    from cmelt.shards.read import ShardFolder
    from cmelt.training.own_loop import ShardDataset, webdataset

__version__ = "0.1.0"
__all__ = ["CMELT", "LEADS", "CmeltError", "ShardDataset", "ShardFolder", "__version__", "load_recipe", "plot_ecg", "webdataset"]

_PLACES = {
    "CMELT": "models.cmelt",
    "CmeltError": "errors",
    "LEADS": "record",
    "ShardDataset": "training.own_loop",
    "ShardFolder": "shards.read",
    "load_recipe": "config",
    "plot_ecg": "plots",
    "webdataset": "training.own_loop",
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> typing.Any:
    """Import a public name on first use, so that ``import cmelt`` and ``cmelt --help`` stay free of torch."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"cmelt.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'cmelt' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return __all__
