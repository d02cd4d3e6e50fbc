"""C-MELT pre-training for ECG and text: raw records and reports in, a pre-trained model and trustworthy numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmelt.models.cmelt import CMELT

__version__ = "0.1.0"
__all__ = ["CMELT", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the model class on first use, so that ``import cmelt`` and ``cmelt --help`` stay free of torch."""
    if name == "CMELT":
        from cmelt.models.cmelt import CMELT

        return CMELT
    raise AttributeError(f"module 'cmelt' has no attribute {name!r}")
