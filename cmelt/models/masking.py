"""Masking: leads of an ECG, tokens of an ECG, tokens of a report. All noise is drawn by the caller, so masks are pure functions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
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
