"""What goes into the model for one training step, and what comes out for the losses.

B batch, S samples, T ECG tokens, R removed ECG tokens, L text tokens, D width, V vocabulary, P = 12 × samples of a token,
N masked text positions of the batch, E findings. Masks: True = hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

IGNORE = -100
"""The label of what is not scored: a text position that is not masked, a row that is left out of matching."""


@dataclass(slots=True)
class Batch:
    """B pairs of an ECG and a report, masked. `text_ids`, `text_padding` and `mlm_labels` are of the report that is *read*."""

    ecg: Tensor
    """(B, 12, S) float32 mV, leads in the order of LEADS, after lead masking."""
    ecg_target: Tensor
    """(B, 12, S) float32 mV, before lead masking."""
    text_ids: Tensor
    """(B, L) int64, after text masking."""
    text_padding: Tensor
    """(B, L) bool, True = padding."""
    mlm_labels: Tensor
    """(B, L) int64, the id that was hidden, IGNORE elsewhere."""
    mask_noise: Tensor
    """(B, T) uniform noise: the tokens with the largest values are removed."""
    is_aligned: Tensor
    """(B,) int64: 1 the report is the ECG's own, 0 it is a wrong one, IGNORE left out of matching."""
    report_id: Tensor
    """(B,) int64, which report truly belongs to the row's ECG."""
    text_report_id: Tensor
    """(B,) int64, which report the row's text is."""
    entities: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.int8))
    """(B, E) int8, what the row's *true* report says of each finding, as `entity_matrix` writes it; E = 0 where no loss reads it."""

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))

    def __len__(self) -> int:
        """Return B."""
        return len(self.ecg)


@dataclass(slots=True)
class Outputs:
    """What the losses read from one masked pass; None where no wanted loss reads it."""

    ecg_pooled: Tensor | None = None
    """(B, D) uni-modal embedding of the kept ECG tokens."""
    text_pooled: Tensor | None = None
    """(B, D) uni-modal embedding of the masked text."""
    mlm_logits: Tensor | None = None
    """(N, V) at the positions where mlm_labels is not IGNORE, row by row."""
    mem_patches: Tensor | None = None
    """(B, R, P) predicted samples of the removed tokens, in the order of `removed`."""
    removed: Tensor | None = None
    """(B, R) int64, the places in time of the removed tokens."""
    etm_logits: Tensor | None = None
    """(B, 2): wrong, aligned."""
    entity_logits: Tensor | None = None
    """(B, E): log-odds that the ECG has each finding of the model's config, from the kept tokens."""
