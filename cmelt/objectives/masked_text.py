"""MLM: guess the hidden tokens of the report from the rest of it and the ECG."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import IGNORE, Batch, Outputs
from cmelt.models.cmelt import CMELT
from cmelt.models.layers import precise
from cmelt.objectives.ranks import Ranks


def masked_text_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the cross-entropy, mean over all masked positions of the (joined) batch, aligned rows or not."""
    assert outputs.mlm_logits is not None
    scored = batch.mlm_labels != IGNORE
    total = F.cross_entropy(precise(outputs.mlm_logits), batch.mlm_labels[scored], reduction="sum")
    return ranks.mean(total, scored.sum())
