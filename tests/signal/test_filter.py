"""The one-FFT filter: scipy's zero-phase filter is the referee, within 1 % of the record's peak at every sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import butter, iirnotch, sosfiltfilt, tf2sos

from cmelt.raw import Raw
from cmelt.signal import filter as filters
from cmelt.signal.band import Band
from cmelt.signal.blocks import Blocks
from cmelt.signal.decode import decode
from cmelt.signal.filter import filter_and_resample

CLINICAL = Band(0.5, 100, 3, 50, 30)


def ecg(seconds: float, fs_hz: float, seed: int = 0) -> np.ndarray:
    """Return (12, samples) float32 mV with beats, large wander, an offset, mains and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * fs_hz)) / fs_hz
    shape = np.exp(-(((time[:, None] - np.arange(0.3, seconds, 0.9)) / 0.015) ** 2)).sum(1)
    signal = rng.normal(0, 1, (12, 1)) * shape + np.cumsum(rng.normal(0, 0.01, (12, len(time))), 1) + rng.normal(0, 1, (12, 1))
    return (signal + 0.1 * np.sin(2 * np.pi * 50 * time) + rng.normal(0, 0.02, signal.shape)).astype(np.float32)


def scipy_way(signal: np.ndarray, fs_hz: float, band: Band) -> np.ndarray:
    """Return what spec and docs call the filter: one joint sosfiltfilt, odd padding min(5 s, n - 1)."""
    parts = []
    if band.highpass_hz and band.lowpass_hz:
        parts.append(butter(band.order, [band.highpass_hz, band.lowpass_hz], "band", fs=fs_hz, output="sos"))
    elif band.highpass_hz or band.lowpass_hz:
        parts.append(butter(band.order, band.highpass_hz or band.lowpass_hz, "high" if band.highpass_hz else "low", fs=fs_hz, output="sos"))
    if band.notch_hz:
        parts.append(tf2sos(*iirnotch(band.notch_hz, Q=band.notch_q, fs=fs_hz)))
    padding = min(int(5 * fs_hz), signal.shape[1] - 1)
    return sosfiltfilt(np.concatenate(parts), signal.astype(float), padtype="odd", padlen=padding)


def error(ours: np.ndarray, truth: np.ndarray) -> float:
    """Return the largest error of any lead as a share of that lead's peak."""
    return float((np.abs(ours - truth).max(1) / np.abs(truth).max(1)).max())


@pytest.mark.parametrize("fs_hz", [100, 257, 500, 1000])
@pytest.mark.parametrize("seconds", [1.5, 4.2, 6.1, 7, 10, 15, 70])
def test_clinical_filter_equals_scipy(fs_hz: float, seconds: float) -> None:
    band = CLINICAL if fs_hz > 250 else Band(0.5, 40, 3, 0, 30)
    signal = ecg(seconds, fs_hz)
    assert error(filter_and_resample(signal, fs_hz, fs_hz, band), scipy_way(signal, fs_hz, band)) < 0.01


@pytest.mark.parametrize(
    "band",
    [
        Band(0.5, 0, 3, 0, 30),
        Band(0, 40, 3, 0, 30),
        Band(0, 0, 3, 60, 30),
        Band(0.05, 150, 4, 50, 30),
        Band(0.67, 150, 1, 50, 5),
        Band(1, 30, 8, 50, 300),
        Band(0, 0.8, 2, 0, 30),
    ],
)
def test_any_filter_equals_scipy(band: Band) -> None:
    signal = ecg(10, 500, 1)
    assert error(filter_and_resample(signal, 500, 500, band), scipy_way(signal, 500, band)) < 0.01


@pytest.mark.parametrize(("fs_raw_hz", "fs_hz"), [(500, 250), (500, 500), (1000, 500), (400, 500), (360, 250)])
@pytest.mark.parametrize("seconds", [7, 10])
def test_blocks_equal_transforms(fs_raw_hz: float, fs_hz: float, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of whole seconds is filtered in blocks; were it not, the result would be the same at the new rate too."""
    signal = ecg(seconds, fs_raw_hz, 2)
    assert isinstance(filters.make_plan(signal.shape[1], fs_raw_hz, fs_hz, CLINICAL), Blocks)
    blocks = filter_and_resample(signal, fs_raw_hz, fs_hz, CLINICAL)
    monkeypatch.setattr(filters, "block_size", lambda *_: 0)
    filters.make_plan.cache_clear()
    assert blocks.shape == (12, seconds * fs_hz)
    assert error(blocks, filter_and_resample(signal, fs_raw_hz, fs_hz, CLINICAL)) < 3e-3
    filters.make_plan.cache_clear()


def test_real_records_equal_scipy(realdata: Path) -> None:
    raw = Raw(realdata / "ptbxl" / "records500")
    for file in sorted(Path(raw.folder).rglob("*.hea"))[::8]:
        signal = decode(raw, f"{file.parent.name}/{file.name}").signal
        assert error(filter_and_resample(signal, 500, 500, CLINICAL), scipy_way(signal, 500, CLINICAL)) < 0.01, file


@pytest.mark.parametrize(("fs_raw_hz", "fs_hz"), [(500, 250), (500, 100), (100, 500), (257, 500), (1000, 500), (400, 500), (360, 500)])
def test_resampling_keeps_a_slow_wave_where_it_is(fs_raw_hz: float, fs_hz: float) -> None:
    """Filtered or not, a 7 Hz tone comes out at the right times with the right size, offset and trend included."""

    def wave(rate: float, seconds: float = 10) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        return np.stack([np.sin(2 * np.pi * 7 * time + phase) + 0.3 * phase + 0.1 * time for phase in range(12)])

    off = Band(0, 0, 3, 0, 30)
    out = filter_and_resample(wave(fs_raw_hz).astype(np.float32), fs_raw_hz, fs_hz, off)
    assert out.shape == (12, round(10 * fs_hz))
    inner = slice(round(fs_hz), round(9 * fs_hz))
    np.testing.assert_allclose(out[:, inner], wave(fs_hz)[:, inner], atol=0.01)


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    time = np.arange(5000) / 500
    tone = np.tile(np.sin(2 * np.pi * 90 * time), (12, 1)).astype(np.float32)
    assert np.abs(filter_and_resample(tone, 500, 100, Band(0, 0, 3, 0, 30))[:, 50:-50]).max() < 0.01


def test_nothing_to_do_changes_nothing() -> None:
    signal = ecg(10, 500)
    assert filter_and_resample(signal, 500, 500, Band(0, 0, 3, 0, 30)) is signal
