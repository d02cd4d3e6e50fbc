"""Heart rates: exact where the beats are known, and those of another detector on real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt.raw import Raw
from cmelt.signal.beats import find_beats, heart_rate_bpm
from cmelt.signal.decode import decode


def ecg(bpm: float, fs_hz: float = 500, seconds: float = 10, t_mv: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Return (12, samples) mV of sharp beats, broad T waves, wander and noise, and when the beats were."""
    rng = np.random.default_rng(round(bpm))
    time = np.arange(round(fs_hz * seconds)) / fs_hz
    beats = np.arange(0.3, seconds - 0.2, 60 / bpm)
    lead = sum(
        np.exp(-(((time - at) / 0.012) ** 2)) + t_mv * np.exp(-(((time - at - 0.25 * min(1, 60 / bpm)) / 0.05) ** 2)) for at in beats
    )
    signal = lead * rng.uniform(-1, 1.5, (12, 1)) + 0.2 * np.sin(2 * np.pi * 0.3 * time) + rng.normal(0, 0.01, (12, len(time)))
    return signal, beats


@pytest.mark.parametrize("bpm", [32, 60, 97, 150, 230])
@pytest.mark.parametrize("fs_hz", [100, 257, 500])
def test_rates_and_places(bpm: float, fs_hz: float) -> None:
    signal, beats = ecg(bpm, fs_hz)
    assert heart_rate_bpm(signal, fs_hz) == pytest.approx(bpm, rel=0.04)
    found = find_beats(signal, fs_hz)
    assert len(found) == len(beats)
    assert np.abs(found - beats).max() < 0.04


def test_one_artefact_does_not_hide_the_beats() -> None:
    signal, _ = ecg(75)
    signal[:, 2000:2010] += 20
    assert heart_rate_bpm(signal, 500) == pytest.approx(75, rel=0.04)


@pytest.mark.parametrize("signal", [np.zeros((12, 5000)), np.zeros((12, 20)), ecg(60, seconds=1.5)[0]])
def test_no_beats_no_rate(signal: np.ndarray) -> None:
    assert np.isnan(heart_rate_bpm(signal, 500))


def test_real_rates_are_those_of_another_detector(realdata: Path) -> None:
    from wfdb.processing import xqrs_detect

    raw = Raw(realdata / "ptbxl/records500/00000")
    pairs = []
    for path in list(raw.files("_hr.hea"))[:12]:
        signal = decode(raw, path).signal
        other = np.diff(xqrs_detect(signal[1].astype(float), 500, verbose=False))
        pairs.append((heart_rate_bpm(signal, 500), 60 * 500 / np.median(other)))
    assert np.abs(np.diff(pairs, axis=1)).max() < 4
