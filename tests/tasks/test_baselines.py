"""Baselines see what they should, and what they give does not depend on how ECGs are batched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from cmelt.models.cmelt import CMELT
from cmelt.tasks.base import Cohort
from cmelt.tasks.baselines import BASELINES, KERNELS, features_random_conv, features_trivial, mean_rr_s


def beats(rate_per_min: float, fs_hz: float = 500.0, seconds: float = 10.0) -> np.ndarray:
    """Return an ECG-like (12, S) of narrow spikes at a steady rate."""
    time = np.arange(round(fs_hz * seconds)) / fs_hz
    phase = (time * rate_per_min / 60 + 0.3) % 1 * 60 / rate_per_min
    wave = np.exp(-(((phase - 0.2) / 0.015) ** 2)) + 0.2 * np.exp(-(((phase - 0.45) / 0.05) ** 2))
    return (np.linspace(0.3, 1.2, 12)[:, None] * wave).astype(np.float32)


@pytest.mark.parametrize("fs_hz", [100.0, 500.0])
@pytest.mark.parametrize("rate", [45, 72, 130])
def test_the_rr_interval_is_measured(rate: float, fs_hz: float) -> None:
    noisy = beats(rate, fs_hz) + 0.02 * np.random.default_rng(0).normal(size=(12, round(10 * fs_hz))).astype(np.float32)
    assert mean_rr_s(noisy[None], fs_hz)[0] == pytest.approx(60 / rate, rel=0.02)


def test_trivial_features_are_amplitudes() -> None:
    ecg = np.stack([beats(60), 2 * beats(60)])
    small, large = features_trivial(ecg, 500.0)
    assert small.shape == (85,)
    np.testing.assert_allclose(large[:84], 2 * small[:84], rtol=1e-4)
    assert large[84] == small[84] == pytest.approx(1.0, rel=0.01)
    np.testing.assert_allclose(small[12:24], ecg[0].std(-1), rtol=1e-5)
    flat = features_trivial(np.zeros((1, 12, 1000), np.float32), 100.0)
    assert flat[0, 84] == 10.0


def test_random_convolutions_depend_on_seed_and_ecg_alone() -> None:
    ecg = np.random.default_rng(0).normal(size=(6, 12, 1000)).astype(np.float32)
    features = features_random_conv(ecg, 100.0, seed=3)
    assert features.shape == (6, 2 * KERNELS)
    assert np.isfinite(features).all()
    joined = np.concatenate([features_random_conv(ecg[:2], 100.0, 3), features_random_conv(ecg[2:], 100.0, 3)])
    np.testing.assert_allclose(features, joined, atol=1e-5)
    assert np.abs(features - features_random_conv(ecg, 100.0, 4)).max() > 0.1
    assert len(np.unique(features_random_conv(ecg[:1], 100.0, 3))) > 500
    slow = np.stack([beats(60, 100.0), beats(80, 100.0)])
    fast = resample_poly(slow, 5, 1, axis=-1).astype(np.float32)
    at_100, at_500 = features_random_conv(slow, 100.0, 3), features_random_conv(fast, 500.0, 3)
    assert np.corrcoef(at_100[0], at_500[0])[0, 1] > 0.999, "another rate gave other features"


def test_every_baseline_gives_one_row_a_recording(run: Path, shards: Path) -> None:
    cohort, model = Cohort([shards], "superclass"), CMELT.from_pretrained(run)
    for name, make in BASELINES.items():
        replicates = make(model, cohort, (0, 1), True)
        assert len(replicates) == (1 if name == "trivial" else 2)
        assert all(len(values) == len(cohort) for one in replicates for values in one.values())
