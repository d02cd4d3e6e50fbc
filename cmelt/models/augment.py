"""Variation of ECGs in training: another body, another heart rate, another moment. All noise is drawn by the caller.

A turn is one of the heart's dipole, which the eight independent leads give (after 3KG, arXiv 2106.04452): what the dipole explains is
seen anew, the rest of the recording stays. B batch, S samples, N numbers of noise for an ECG.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmelt.config import AugmentSettings
from cmelt.record import LEADS
from cmelt.signal.checks import FROM_I_AND_II

NUMBERS = 6
"""N: three for the turn, then size, time, moment."""
EIGHT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
"""The independent leads."""
SEEN = torch.tensor(
    [
        *([0.632, -0.235, 0.059], [0.235, 1.066, -0.132], [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387]),
        *([0.882, 0.098, -1.277], [1.213, 0.127, -0.601], [1.125, 0.127, -0.086], [0.831, 0.076, 0.230]),
    ]
)
"""What they see of a dipole (left, down, back): the inverse Dower matrix, (8, 3)."""
VIEW = torch.cat([SEEN[:2], torch.from_numpy(FROM_I_AND_II) @ SEEN[:2], SEEN[2:]])
"""What every lead sees of it, in the order of LEADS, (12, 3)."""
DIPOLE = torch.linalg.pinv(SEEN)
"""The dipole, from the independent leads: (3, 8)."""


def varies(settings: AugmentSettings) -> bool:
    """Return whether `settings` change anything."""
    return settings != AugmentSettings()


def varied(ecg: Tensor, noise: Tensor, settings: AugmentSettings) -> Tensor:
    """Return `ecg` (B, 12, S) in mV, leads in the order of LEADS, varied as `settings` say, by uniform `noise` (B, N).

    Flat leads stay flat.
    """
    normal = torch.special.ndtri(noise.clamp(1e-6, 1 - 1e-6))
    if settings.turn_deg or settings.size:
        flat = (ecg == 0).all(dim=-1, keepdim=True)
        change = torch.exp(settings.size * normal[:, 3, None, None]) * turns(torch.deg2rad(settings.turn_deg * normal[:, :3]))
        change = change - torch.eye(3, device=ecg.device)  # (B, 3, 3): what is added to the dipole
        dipole = DIPOLE.to(ecg.device) @ ecg[:, EIGHT]  # (B, 3, S)
        ecg = (ecg + VIEW.to(ecg.device) @ change @ dipole).masked_fill(flat, 0.0)
    if settings.stretch or settings.roll:
        speed = torch.exp(settings.stretch * normal[:, 4])
        start = noise[:, 5] if settings.roll else torch.zeros_like(noise[:, 5])
        ecg = resampled(ecg, speed, start)
    return ecg


def turns(angles: Tensor) -> Tensor:
    """Return the rotation matrices (B, 3, 3) about the axes `angles` (B, 3), by their lengths in radians (Rodrigues' formula)."""
    size = angles.norm(dim=1).clamp(min=1e-12)[:, None, None]
    x, y, z = (angles[:, None] / size).unbind(-1)  # (B, 1) each
    none = torch.zeros_like(x)
    cross = torch.stack([none, -z, y, z, none, -x, -y, x, none], dim=-1).view(-1, 3, 3)
    return torch.eye(3, device=angles.device) + size.sin() * cross + (1 - size.cos()) * (cross @ cross)


def resampled(ecg: Tensor, speed: Tensor, start: Tensor) -> Tensor:
    """Return `ecg` (B, 12, S) from the moment `start` (B,) on, a share of S, at `speed` (B,); behind its end it begins again."""
    samples = ecg.shape[-1]
    place = (torch.arange(samples, device=ecg.device) * speed[:, None] + start[:, None] * samples) % samples
    before = place.floor()
    share = (place - before)[:, None]
    first = before.long().clamp(max=samples - 1)[:, None].expand_as(ecg)
    return ecg.gather(2, first) * (1 - share) + ecg.gather(2, (first + 1) % samples) * share
