"""Variation: a turn is one of the dipole alone, time runs as told, and what is off changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmelt.config import AugmentSettings
from cmelt.models.augment import DIPOLE, EIGHT, NUMBERS, SEEN, VIEW, resampled, turns, varied, varies
from cmelt.record import LEADS

BATCH, SAMPLES = 5, 200


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.rand(BATCH, NUMBERS, generator=torch.Generator().manual_seed(seed))


def walk(channels: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(BATCH, channels, SAMPLES, generator=torch.Generator().manual_seed(seed)).cumsum(-1) * 0.1


def test_turns_are_rotations_by_the_length_of_their_axis() -> None:
    angles = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(2))
    found = turns(angles)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(BATCH, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(BATCH), rtol=0, atol=1e-5)
    torch.testing.assert_close((found @ angles[:, :, None])[..., 0], angles, rtol=1e-4, atol=1e-5)  # the axis stays
    cosine = (found.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    torch.testing.assert_close(cosine, angles.norm(dim=1).cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(turns(torch.tensor([[0.0, 0.0, torch.pi / 2]]))[0, :, 0], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)
    assert torch.equal(turns(torch.zeros(1, 3))[0], torch.eye(3))


def test_the_view_keeps_the_relations_of_the_limb_leads() -> None:
    view = dict(zip(LEADS, VIEW, strict=True))
    torch.testing.assert_close(view["III"], view["II"] - view["I"])
    torch.testing.assert_close(view["aVR"], -(view["I"] + view["II"]) / 2)
    torch.testing.assert_close(view["aVL"], view["I"] - view["II"] / 2)
    torch.testing.assert_close(view["aVF"], view["II"] - view["I"] / 2)
    torch.testing.assert_close(VIEW[EIGHT], SEEN)


def test_a_dipole_is_seen_turned_and_what_is_no_dipole_stays() -> None:
    dipole, noise, settings = walk(3), drawn(), AugmentSettings(turn_deg=20, size=0.2)
    ecg = VIEW @ dipole
    normal = torch.special.ndtri(noise)
    change = torch.exp(0.2 * normal[:, 3, None, None]) * turns(torch.deg2rad(20 * normal[:, :3]))
    torch.testing.assert_close(varied(ecg, noise, settings), VIEW @ (change @ dipole), rtol=1e-4, atol=1e-4)
    other = walk(12, 3)
    none = other.clone()
    none[:, EIGHT] -= SEEN @ (DIPOLE @ other[:, EIGHT])  # nothing of it is a dipole's
    torch.testing.assert_close(varied(none, noise, settings), none, rtol=1e-4, atol=1e-4)
    ecg[:, 7] = 0.0
    assert (varied(ecg, noise, settings)[:, 7] == 0).all(), "a flat lead stays flat"


def test_time_runs_as_told_and_goes_round() -> None:
    ecg = walk(12)
    ones, shift = torch.ones(BATCH), torch.arange(BATCH) * 10.0
    moved = resampled(ecg, ones, shift / SAMPLES)
    for row in range(BATCH):
        torch.testing.assert_close(moved[row], ecg[row].roll(-int(shift[row]), -1), rtol=0, atol=1e-4)
    fast = resampled(ecg, 2 * ones, 0 * ones)
    torch.testing.assert_close(fast[..., : SAMPLES // 2], ecg[..., ::2])
    slow = resampled(ecg, 0.5 * ones, 0 * ones)
    torch.testing.assert_close(slow[..., 1:-1:2], (ecg[..., : SAMPLES // 2 - 1] + ecg[..., 1 : SAMPLES // 2])[..., : SAMPLES // 2 - 1] / 2)


@pytest.mark.parametrize(
    "settings", [{}, {"turn_deg": 10.0}, {"size": 0.2}, {"stretch": 0.1}, {"roll": True}, {"turn_deg": 10.0, "stretch": 0.1, "roll": True}]
)
def test_settings_say_what_varies(settings: dict[str, float]) -> None:
    ecg, how = walk(12), AugmentSettings.model_validate(settings)
    found = varied(ecg, drawn(), how)
    assert varies(how) is bool(settings)
    assert torch.equal(found, ecg) is not varies(how)
    assert torch.equal(found, varied(ecg, drawn(), how)), "a function of its noise"
    edge = torch.zeros(BATCH, NUMBERS)
    assert np.isfinite(varied(ecg, edge, how).numpy()).all()
    assert np.isfinite(varied(ecg, edge + 1 - 2**-24, how).numpy()).all()
