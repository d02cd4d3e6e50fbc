"""The losses, by name; each is one function in one file: (model, outputs, batch, settings, ranks) → scalar."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from cmelt.config import ObjectiveSettings
    from cmelt.models.batch import Batch, Outputs
    from cmelt.models.cmelt import CMELT
    from cmelt.objectives.ranks import Ranks

OBJECTIVES: dict[str, str] = {
    "mlm": "cmelt.objectives.masked_text:masked_text_loss",
    "mem": "cmelt.objectives.masked_ecg:masked_ecg_loss",
    "etm": "cmelt.objectives.matching:matching_loss",
    "ets": "cmelt.objectives.contrastive:contrastive_loss",
    "entities": "cmelt.objectives.entities:entity_loss",
}
"""Loss by name; the name is also its weight's key in the recipe's ``objectives`` table."""


def wanted(settings: ObjectiveSettings) -> frozenset[str]:
    """Return the names of the losses whose weight is not 0: what `CMELT.forward` need compute."""
    return frozenset(name for name in OBJECTIVES if getattr(settings, name))


def total_loss(
    model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the wanted losses, and each of them, detached, by name.

    Losses are computed in float32, whatever the model was: in bf16 a contrast could not tell similarities apart below one part in 256.
    `ranks` joins what a loss needs of other processes (none by default); averaging the ranks' gradients, as DDP does, then
    gives the gradient of the loss over the joined batch.
    """
    from torch import autocast

    from cmelt.objectives.ranks import Ranks

    ranks = ranks or Ranks()
    total: Tensor | float = 0.0
    parts: dict[str, Tensor] = {}
    for name in OBJECTIVES:  # in this order on every rank, for some of them wait for the others
        if not getattr(settings, name):
            continue
        module, function = OBJECTIVES[name].split(":")
        with autocast(batch.ecg.device.type, enabled=False):
            loss = getattr(import_module(module), function)(model, outputs, batch, settings, ranks)
        total = total + getattr(settings, name) * loss
        parts[name] = loss.detach()
    assert not isinstance(total, float), "no objective is switched on"
    return total, parts
