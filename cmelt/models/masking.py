"""Masking: leads of an ECG, tokens of an ECG, tokens of a report. All noise is drawn by the caller, so masks are pure functions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmelt.config import MaskingSettings
from cmelt.models.batch import IGNORE
from cmelt.text.tokenizer import ReportTokenizer


def mask_leads(ecg: Tensor, noise: Tensor, prob: float) -> Tensor:
    """Return `ecg` (B, 12, S) with each lead zeroed where its uniform `noise` (B, 12) is below `prob`."""
    return ecg * (noise >= prob).to(ecg.dtype)[:, :, None] if prob else ecg


def keep_leads(noise: NDArray[np.float32], share: NDArray[np.float32], masking: MaskingSettings) -> NDArray[np.bool_]:
    """Return which leads the model sees, (B, 12) bool, from uniform `noise` (B, 12), and `share` (B, 1) for how many.

    ``each``: every lead is hidden with probability ``lead_prob``; ``dynamic``: one to twelve are seen, any number as often as any other.
    """
    if masking.leads == "each":
        return noise >= masking.lead_prob
    number = 1 + (share * np.float32(noise.shape[1])).astype(np.int64)
    return noise.argsort(axis=1).argsort(axis=1) < number


def mask_ecg_tokens(noise: Tensor, mem_prob: float, present: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the places of kept (B, K) and removed (B, T − K) tokens, K = int(T (1 − mem_prob)), from `noise` (B, T).

    The K smallest values are kept, as in masked auto-encoders (arXiv 2111.06377). Where not all tokens are `present` (B, T), the same
    share of those that are is kept, and the third thing returned, (B, 1 + K), hides what only fills up the row, never [CLS]. Every
    token that is present and not kept is among the removed; the rest of these are absent ones.
    """
    kept = int(noise.shape[1] * (1 - mem_prob))
    if present is None:
        order = noise.argsort(dim=1, stable=True)
        return order[:, :kept], order[:, kept:], None
    there = present.sum(dim=1, keepdim=True)
    number = (there * (1 - mem_prob)).long().clamp(min=1, max=kept).minimum(there)  # (B, 1): a single lead keeps a token
    first = noise.masked_fill(~present, 2).argsort(dim=1, stable=True).argsort(dim=1) < number  # (B, T): those that are kept
    order = (noise - first.to(noise.dtype) + (present & ~first).to(noise.dtype)).argsort(dim=1, stable=True)
    hidden = torch.arange(-1, kept, device=noise.device) >= number
    return order[:, :kept], order[:, kept:], hidden


def mask_text(ids: Tensor, padding: Tensor, noise: Tensor, prob: float, tokenizer: ReportTokenizer) -> tuple[Tensor, Tensor]:
    """Hide text tokens by BERT's rule (arXiv 1810.04805); return masked ids and labels, both (B, L) int64.

    A token of `ids` (B, L) that is neither special nor padding is scored with probability `prob`; of those, 80 % become the
    tokenizer's mask token, 10 % a random ordinary token, 10 % stay. `noise` (B, 3, L) is uniform: whether, how, which.
    """
    special, ordinary = _kinds(tokenizer)
    read, drawn = ids.numpy(), noise.numpy()  # many small steps, which Torch begins slowly
    masked, labels = read.copy(), np.full_like(read, IGNORE)
    row, at = np.nonzero((drawn[:, 0] < prob) & ~padding.numpy())
    scored = ~special[read[row, at]]
    row, at = row[scored], at[scored]
    own, how = read[row, at], drawn[row, 1, at]
    other = ordinary[(drawn[row, 2, at].astype(np.float64) * len(ordinary)).astype(np.int64)]
    labels[row, at] = own
    masked[row, at] = np.where(how < 0.8, tokenizer.mask_id, np.where(how < 0.9, other, own))
    return torch.from_numpy(masked), torch.from_numpy(labels)


@lru_cache(4)
def _kinds(tokenizer: ReportTokenizer) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which ids of the vocabulary are special, (V,) bool, and the ids that are not."""
    special = np.zeros(tokenizer.vocab_size, bool)
    special[list(tokenizer.special_ids)] = True
    return special, np.flatnonzero(~special)
