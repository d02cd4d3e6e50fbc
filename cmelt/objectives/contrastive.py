"""ETS: an ECG and its report lie together, others apart. Forms: published (sigmoid), SigLIP, InfoNCE.

N rows of the joined batch of all ranks, D width.
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


def pair_target(report_id: Tensor, text_report_id: Tensor, is_aligned: Tensor, how: str) -> Tensor:
    """Return which columns' texts belong to which rows' ECGs, (N, N) bool.

    ``report``: wherever the text of a column is the row's true report, whatever the row's own text is; ``diagonal``
    (published): a row's own text where it is not a wrong one. Rows left out of matching keep their report, so they are aligned.
    """
    if how == "report":
        return report_id[:, None] == text_report_id[None, :]
    return torch.diag(is_aligned != 0)


def contrastive_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the contrast of every rank's ECGs against every rank's texts, in the form that `settings` name."""
    assert outputs.ecg_pooled is not None
    assert outputs.text_pooled is not None
    ecg, text = ranks.rows(precise(outputs.ecg_pooled)), ranks.rows(precise(outputs.text_pooled))  # (N, D)
    report_id, text_report_id, is_aligned = (ranks.rows(x) for x in (batch.report_id, batch.text_report_id, batch.is_aligned))
    positive = pair_target(report_id, text_report_id, is_aligned, settings.ets_target)
    if settings.ets_form == "published":  # S = E Tᵀ, no scale, no bias
        return sigmoid_contrast(ecg @ text.T, positive)
    scores = F.normalize(ecg, dim=-1) @ F.normalize(text, dim=-1).T * model.contrast.log_scale.exp()
    if settings.ets_form == "siglip":  # arXiv 2303.15343
        return sigmoid_contrast(scores + model.contrast.bias, positive) * len(scores)
    return (soft_cross_entropy(scores, positive) + soft_cross_entropy(scores.T, positive.T)) / 2


def sigmoid_contrast(scores: Tensor, positive: Tensor) -> Tensor:
    """Return the mean over all pairs of −log sigmoid(±scores), + where `positive`; both (N, N)."""
    return -F.logsigmoid(torch.where(positive, scores, -scores)).mean()


def soft_cross_entropy(scores: Tensor, positive: Tensor) -> Tensor:
    """Return the cross-entropy of each row's scores against its positives in equal parts, mean over rows that have one."""
    counts = positive.sum(dim=1)
    each = -(scores.log_softmax(dim=1) * positive).sum(dim=1) / counts.clamp(min=1)
    return each.sum() / (counts > 0).sum().clamp(min=1)
