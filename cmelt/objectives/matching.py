"""ETM: does this report belong to this ECG?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import IGNORE, Batch, Outputs
from cmelt.models.cmelt import CMELT
from cmelt.models.layers import precise
from cmelt.objectives.ranks import Ranks


def matching_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the cross-entropy against is_aligned, mean over the rows that are not left out; 0 where all are."""
    assert outputs.etm_logits is not None
    total = F.cross_entropy(precise(outputs.etm_logits), batch.is_aligned, ignore_index=IGNORE, reduction="sum")
    return ranks.mean(total, (batch.is_aligned != IGNORE).sum())
