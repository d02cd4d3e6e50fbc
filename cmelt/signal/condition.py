"""From a recording as stored to the window that a sample keeps: derive leads, mend gaps, filter, resample, crop or pad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmelt.config import SignalSettings
from cmelt.errors import RecordError
from cmelt.record import LEADS
from cmelt.signal.decode import Decoded
from cmelt.signal.filter import HIGHEST, Band, filter_and_resample
from cmelt.signal.leads import derive_leads

SHORTEST_S = 1.0
"""Less signal than this is no ECG: not one whole beat at the slowest of rates."""

GAP_S = 0.2
"""The longest run of invalid samples that a straight line may bridge."""


def window_samples(settings: SignalSettings) -> int:
    """Return how many samples each lead of a conditioned record has."""
    return max(1, round(settings.fs_hz * settings.duration_s))


def condition(decoded: Decoded, settings: SignalSettings, mains_hz: float) -> tuple[NDArray[np.float32], float, list[str]]:
    """Return the window (12, samples) in mV at ``settings.fs_hz``, where it starts in s, and the flags of what was done."""
    signal, fs_raw_hz = decoded.signal, decoded.fs_hz
    flags = list(decoded.flags)
    if signal.shape[1] < SHORTEST_S * fs_raw_hz:
        raise RecordError("too_short", f"{signal.shape[1] / fs_raw_hz:.3f} s of signal")
    if len(decoded.present) < len(LEADS):
        missing = derive_leads(signal, present := set(decoded.present))
        if missing:
            raise RecordError("missing_leads", " ".join(missing))
        flags += ["leads_derived"] if len(present) > len(decoded.present) else []
    flags += mend(signal, fs_raw_hz)
    flags += flat_leads(signal)
    band, skipped = choose_band(settings, fs_raw_hz, mains_hz)
    signal = filter_and_resample(signal, fs_raw_hz, settings.fs_hz, band)
    window, start, fitted = fit(signal, window_samples(settings))
    return window, start / settings.fs_hz, flags + skipped + fitted


def choose_band(settings: SignalSettings, fs_raw_hz: float, mains_hz: float) -> tuple[Band, list[str]]:
    """Return the filters that a record at `fs_raw_hz` can have, and flags for those that it cannot."""
    highest, flags = HIGHEST * fs_raw_hz, []
    lowpass, notch = settings.lowpass_hz, mains_hz if settings.notch_hz == "mains" else settings.notch_hz
    if lowpass and lowpass >= highest:
        lowpass = 0.0
        flags.append("lowpass_skipped")
    if notch and notch >= highest:
        notch = 0.0
        flags.append("notch_skipped")
    return Band(settings.highpass_hz, lowpass, settings.filter_order, notch, settings.notch_q), flags


def mend(signal: NDArray[np.float32], fs_hz: float) -> list[str]:
    """Bridge short gaps of invalid samples in place by straight lines; raises RecordError nan where one is too long."""
    if np.isfinite(np.dot(signal.ravel(), signal.ravel())):  # one pass, and NaN or infinity anywhere shows in the sum
        return []
    filled = False
    for row, lead in zip(signal, LEADS, strict=True):
        valid = np.isfinite(row)
        if valid.all():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate(([True], valid, [True])).astype(np.int8)))
        longest = int((edges[1::2] - edges[::2]).max())
        if longest > GAP_S * fs_hz:
            raise RecordError("nan", f"{longest / fs_hz:.2f} s of lead {lead} are invalid")
        row[~valid] = np.interp(np.flatnonzero(~valid), np.flatnonzero(valid), row[valid])
        filled = True
    return ["nan_filled"] if filled else []


def flat_leads(signal: NDArray[np.float32]) -> list[str]:
    """Return the flag of a record with flat leads; raises RecordError no_signal where every lead is flat."""
    flat = signal.max(axis=1) == signal.min(axis=1)
    if flat.all():
        raise RecordError("no_signal", "every lead is flat")
    return ["flat_lead"] if flat.any() else []


def fit(signal: NDArray[np.float32], samples: int) -> tuple[NDArray[np.float32], int, list[str]]:
    """Return the central `samples` of `signal` (leads, n), or all of it and zeros after it; where it starts; flags."""
    excess = signal.shape[1] - samples
    if excess >= 0:
        start = excess // 2
        return signal[:, start : start + samples], start, ["cropped"] if excess else []
    return np.pad(signal, ((0, 0), (0, -excess))), 0, ["padded"]
