"""The model, part by part; its ECG encoders go by name, one file each, one line each in ECG_ENCODERS."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cmelt.config import did_you_mean
from cmelt.errors import RecipeError

if TYPE_CHECKING:
    from cmelt.models.cmelt import ModelConfig
    from cmelt.models.ecg_encoder import ECGEncoder

ECG_ENCODERS: dict[str, str] = {
    "conv": "cmelt.models.ecg_encoder:ECGEncoder",
    "lead-wise": "cmelt.models.lead_wise:LeadWiseEncoder",
    "residual": "cmelt.models.residual:ResidualEncoder",
}
"""ECG encoder by name, as ``model.ecg_encoder`` says it; each is, or is made from, ECGEncoder."""


def open_encoder(config: ModelConfig) -> ECGEncoder:
    """Return a new ECG encoder of the kind and sizes that `config` says; raises RecipeError for an unknown kind."""
    name = config.ecg_encoder
    if name not in ECG_ENCODERS:
        raise RecipeError(f"model.ecg_encoder = {name!r} is unknown{did_you_mean(name, ECG_ENCODERS)}; known: {', '.join(ECG_ENCODERS)}")
    module, _, kind = ECG_ENCODERS[name].partition(":")
    encoder: ECGEncoder = getattr(importlib.import_module(module), kind)(config)
    return encoder
