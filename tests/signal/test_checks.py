"""Each check sees the defect that it is for, on real recordings and made ones, and keeps quiet where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt.raw import Raw
from cmelt.record import FLAGS, LEADS
from cmelt.signal.checks import check, median_height_mv
from cmelt.signal.decode import decode

ALL = set(range(12))
FS = 500.0


def heart(seconds: int = 10, fs_hz: float = FS) -> np.ndarray:
    """Return (12, samples) mV that obey the limb-lead relations."""
    time = np.arange(round(seconds * fs_hz)) / fs_hz
    qrs = np.exp(-(((time[:, None] - np.arange(0.4, seconds, 0.8)) / 0.02) ** 2)).sum(1)
    t_wave = np.exp(-(((time[:, None] - np.arange(0.7, seconds, 0.8)) / 0.05) ** 2)).sum(1)
    lead = np.outer(np.linspace(0.4, 1.2, 12), qrs) + np.outer(np.linspace(0.3, 0.1, 12), t_wave)
    one, two = lead[0], lead[1]
    lead[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    lead += np.random.default_rng(0).normal(0, 1e-3, lead.shape)
    return lead.astype(np.float32)


def flags(signal: np.ndarray, present: set[int] = ALL) -> list[str]:
    found = check(signal, FS, set(present))
    assert set(found) <= FLAGS.keys()
    return found


def test_a_sound_recording_is_left_alone() -> None:
    assert flags(heart()) == []
    spiked = heart()
    spiked[2, 1000:1007] += 2.6  # PTB-XL 00162: 2.6 mV in 0.14 % of the samples
    assert flags(spiked) == []


@pytest.mark.parametrize("order", [(4, 3, 5), (3, 5, 4), (5, 4, 3), (4, 5, 3), (5, 3, 4)])
def test_swapped_augmented_leads(order: tuple[int, ...]) -> None:
    signal = heart()
    signal[3:6] = signal[list(order)]
    assert flags(signal) == ["limb_leads_disagree", "augmented_leads_swapped"]


def test_reversed_arm_leads() -> None:
    electrodes = heart()
    electrodes[[0, 1, 2, 3, 4]] = [-electrodes[0], electrodes[2], electrodes[1], electrodes[4], electrodes[3]]
    assert flags(electrodes) == ["arm_leads_reversed"]
    sign = heart()
    sign[0] *= -1
    assert flags(sign) == ["limb_leads_disagree", "arm_leads_reversed"]


def test_residuals_that_nothing_explains() -> None:
    signal = heart()
    signal[5] += 0.2 * np.sin(np.arange(5000) / 40)
    assert flags(signal) == ["limb_leads_disagree"]


def test_amplitudes_flat_leads_limits_and_mains() -> None:
    assert flags(heart() * 8) == ["amplitude_unusual"]
    assert flags(heart() / 5) == ["amplitude_unusual"]
    dead = heart()
    dead[7, :2600] = 0.02
    assert flags(dead) == []  # half of the seconds, and no more
    dead[7, :3100] = 0.02
    assert flags(dead) == ["flat_lead"]
    limited = heart()
    limited[10] = np.minimum(limited[10], 0.8)
    assert flags(limited) == ["saturated"]
    held = heart()
    held[10, -55:] = held[10].max() + 0.1  # once, at the end: how PTB-XL's filters leave some records
    assert flags(held) == []
    for hz in (50, 60):
        hum = heart()
        hum[8] += 0.08 * np.sin(2 * np.pi * hz * np.arange(5000) / FS)
        assert flags(hum) == ["mains_noise"]


def test_leads_that_are_not_there_are_not_judged() -> None:
    signal = heart()
    signal[6:11] = 0
    assert flags(signal, {0, 1, 2, 3, 4, 5, 11}) == []
    signal[2:6] = 0
    assert flags(signal, {0, 1}) == []


@pytest.mark.parametrize("fs_hz", [100.0, 257.0, 360.0, 1000.0])
def test_any_rate(fs_hz: float) -> None:
    signal = heart(7, fs_hz)
    assert check(signal, fs_hz, set(ALL)) == []
    assert 0.5 < median_height_mv(np.where(signal == signal[:, :1], np.nan, signal), fs_hz) < 1.2


def test_on_real_recordings(realdata: Path) -> None:
    """All of PTB-XL's relations hold; what exchanged electrodes would have given is seen in most, and rarely where nobody made it."""
    raw = Raw(realdata / "ptbxl/records500")
    paths = list(raw.files(".hea"))[:150]
    said, seen, swapped = [], 0, 0
    for path in paths:
        signal = decode(raw, path).signal
        said += check(signal, FS, set(ALL))
        other = signal.copy()
        other[[0, 1, 2, 3, 4]] = [-signal[0], signal[2], signal[1], signal[4], signal[3]]
        seen += "arm_leads_reversed" in check(other, FS, set(ALL))
        other = signal[[0, 1, 2, 3, 5, 4, *range(6, 12)]]
        swapped += "augmented_leads_swapped" in check(other, FS, set(ALL))
    assert said.count("limb_leads_disagree") == 0
    assert said.count("arm_leads_reversed") <= 3
    assert seen > 0.85 * len(paths)
    assert swapped == len(paths)
    assert LEADS[3:6] == ("aVR", "aVL", "aVF")
