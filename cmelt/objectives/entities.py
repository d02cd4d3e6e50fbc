"""Entities: which findings does the report state? Asked of the ECG by one query a finding (K-MERL, arXiv 2502.17900).

B batch, E findings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import Batch, Outputs
from cmelt.models.cmelt import CMELT
from cmelt.models.layers import precise
from cmelt.objectives.ranks import Ranks
from cmelt.text.entities import UNSAID, Status


def entity_target(said: Tensor, settings: ObjectiveSettings) -> tuple[Tensor, Tensor]:
    """Return how probable each finding is by a report, and what that weighs, from what the report says of it; all (B, E)."""
    probable = (said == Status.PRESENT).float() + settings.entities_uncertain * (said == Status.UNCERTAIN).float()
    return probable, torch.where(said == UNSAID, settings.entities_unsaid, 1.0)


def entity_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the cross-entropy of the true report's findings, summed over findings, mean over the rows of the (joined) batch.

    The sum is the report's negative log-likelihood: an ECG's surprise, not a finding's, so that its weight compares with the other losses'.
    """
    assert outputs.entity_logits is not None
    logits = precise(outputs.entity_logits)
    probable, weight = (x.to(logits.dtype) for x in entity_target(batch.entities, settings))
    total = F.binary_cross_entropy_with_logits(logits, probable, weight, reduction="sum")
    return ranks.mean(total, torch.tensor(len(logits), device=logits.device))
