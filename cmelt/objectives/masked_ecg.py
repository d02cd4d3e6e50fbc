"""MEM: rebuild the samples of the removed ECG tokens.

B batch, S samples, T tokens, R removed tokens, P numbers of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import Batch, Outputs
from cmelt.models.cmelt import CMELT
from cmelt.models.ecg_encoder import ECGEncoder
from cmelt.models.layers import precise, take
from cmelt.objectives.ranks import Ranks


def mem_target(encoder: ECGEncoder, ecg: Tensor) -> Tensor:
    """Return the target patches (B, T, P) of `ecg` (B, 12, S), as `encoder` cuts them.

    The ECG is trimmed to whole patches and each lead standardised over the trimmed window (unbiased variance, 1e-6 added).
    """
    samples = encoder.token_samples
    window = ecg[:, :, : encoder.frames(ecg.shape[-1]) * samples]
    window = window - window.mean(dim=-1, keepdim=True)
    variance = torch.linalg.vector_norm(window, dim=-1, keepdim=True).square() / (window.shape[-1] - 1)  # a sixth of var_mean's time
    return encoder.patches(window * (variance + 1e-6).rsqrt())


def masked_ecg_loss(model: CMELT, outputs: Outputs, batch: Batch, settings: ObjectiveSettings, ranks: Ranks) -> Tensor:
    """Return the squared error per removed patch, mean over the removed patches of the (joined) batch, aligned rows or not."""
    assert outputs.mem_patches is not None
    assert outputs.removed is not None
    ecg = model.permuted(batch.ecg_target if settings.mem_target == "original" else batch.ecg)
    target = take(mem_target(model.ecg_encoder, ecg), outputs.removed)  # (B, R, P)
    error = (precise(outputs.mem_patches) - target).square().mean(dim=-1)  # (B, R)
    present = model.ecg_encoder.present(ecg)
    if present is None:
        return ranks.mean(error.sum(), torch.tensor(error.numel(), device=error.device))
    scored = present.gather(1, outputs.removed)  # of a lead that was never recorded there is nothing to rebuild
    return ranks.mean((error * scored).sum(), scored.sum())
