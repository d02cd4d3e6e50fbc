"""MEM: rebuild the samples of the removed ECG tokens.

B batch, S samples, T tokens, R removed tokens, p samples of a token, P = 12 p.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import Batch, Outputs
from cmelt.models.cmelt import CMELT
from cmelt.models.layers import precise, take
from cmelt.objectives.ranks import Ranks


def mem_target(ecg: Tensor, count: int, samples: int) -> Tensor:
    """Return the target patches (B, T, P) of `ecg` (B, 12, S): `count` = T patches of `samples` samples, lead-major inside.

    The ECG is trimmed to T patches and each lead standardised over the trimmed window (unbiased variance, 1e-6 added).
    """
    window = ecg[:, :, : count * samples]
    window = window - window.mean(dim=-1, keepdim=True)
    variance = torch.linalg.vector_norm(window, dim=-1, keepdim=True).square() / (window.shape[-1] - 1)  # a sixth of var_mean's time
    window = window * (variance + 1e-6).rsqrt()
    return window.unflatten(-1, (count, samples)).transpose(1, 2).flatten(2)  # (B, 12, T, p) → (B, T, 12 p)


def patches_to_ecg(patches: Tensor, leads: int = 12) -> Tensor:
    """Return patches (B, T, P) as a standardised ECG (B, 12, T p), in the lead order of the patches: `mem_target` undone."""
    return patches.unflatten(-1, (leads, -1)).transpose(1, 2).flatten(2)


def masked_ecg_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the squared error per removed patch, mean over the removed patches of the (joined) batch, aligned rows or not."""
    assert outputs.mem_patches is not None
    assert outputs.removed is not None
    ecg = model.permuted(batch.ecg_target if settings.mem_target == "original" else batch.ecg)
    samples = outputs.mem_patches.shape[-1] // ecg.shape[1]
    target = take(mem_target(ecg, batch.mask_noise.shape[1], samples), outputs.removed)  # (B, R, P)
    error = (precise(outputs.mem_patches) - target).square().mean(dim=-1)  # (B, R)
    return ranks.mean(error.sum(), torch.tensor(error.numel(), device=error.device))
