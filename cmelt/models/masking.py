"""Masking: leads of an ECG, tokens of an ECG, tokens of a report. All noise is drawn by the caller, so masks are pure functions."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cmelt.models.batch import IGNORE
from cmelt.text.tokenizer import ReportTokenizer


def mask_leads(ecg: Tensor, noise: Tensor, prob: float) -> Tensor:
    """Return `ecg` (B, 12, S) with each lead zeroed where its uniform `noise` (B, 12) is below `prob`."""
    return ecg * (noise >= prob).to(ecg.dtype)[:, :, None] if prob else ecg


def mask_ecg_tokens(noise: Tensor, mem_prob: float) -> tuple[Tensor, Tensor]:
    """Return the places of kept (B, K) and removed (B, T − K) tokens, K = int(T (1 − mem_prob)), from `noise` (B, T).

    The K smallest values are kept, as in masked auto-encoders (arXiv 2111.06377).
    """
    kept = int(noise.shape[1] * (1 - mem_prob))
    order = noise.argsort(dim=1, stable=True)
    return order[:, :kept], order[:, kept:]


def mask_text(ids: Tensor, padding: Tensor, noise: Tensor, prob: float, tokenizer: ReportTokenizer) -> tuple[Tensor, Tensor]:
    """Hide text tokens by BERT's rule (arXiv 1810.04805); return masked ids and labels, both (B, L) int64.

    A token of `ids` (B, L) that is neither special nor padding is scored with probability `prob`; of those, 80 % become the
    tokenizer's mask token, 10 % a random ordinary token, 10 % stay. `noise` (B, 3, L) is uniform: whether, how, which.
    """
    special, ordinary = _kinds(tokenizer)
    scored = (noise[:, 0] < prob) & ~padding & ~special[ids]
    labels = torch.where(scored, ids, IGNORE)
    how = noise[:, 1]
    masked = torch.where(scored & (how < 0.8), tokenizer.mask_id, ids)
    drawn = ordinary[(noise[:, 2].double() * len(ordinary)).long()]
    return torch.where(scored & (how >= 0.8) & (how < 0.9), drawn, masked), labels


@lru_cache(4)
def _kinds(tokenizer: ReportTokenizer) -> tuple[Tensor, Tensor]:
    """Return which ids of the vocabulary are special, (V,) bool, and the ids that are not."""
    special = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
    special[list(tokenizer.special_ids)] = True
    return special, (~special).nonzero().squeeze(1)
