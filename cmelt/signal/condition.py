"""From a recording as stored to the window that a sample keeps: derive leads, mend gaps, filter, resample, crop or pad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmelt.config import SignalSettings
from cmelt.errors import RecordError
from cmelt.record import LEADS
from cmelt.signal.band import Band
from cmelt.signal.decode import Decoded
from cmelt.signal.filter import HIGHEST, filter_and_resample
from cmelt.signal.leads import derive_leads

SHORTEST_S = 1.0
"""Less signal than this is no ECG: not one whole beat at the slowest of rates."""

GAP_S = 0.2
"""The longest run of invalid samples that a straight line may bridge."""


def window_samples(settings: SignalSettings) -> int:
    """Return how many samples each lead of a conditioned record has."""
    return max(1, round(settings.fs_hz * settings.duration_s))


@dataclass(frozen=True, slots=True)
class Window:
    """What a sample keeps: ``signal`` (12, samples) in mV at the recipe's rate, where it starts in the record in s, and flags."""

    signal: NDArray[np.float32]
    start_s: float
    flags: list[str]


def condition(decoded: Decoded, settings: SignalSettings, mains_hz: float) -> tuple[NDArray[np.float32], float, list[str]]:
    """Return the first window (12, samples) in mV at ``settings.fs_hz``, where it starts in s, and the flags of what was done."""
    flags = [*decoded.flags, *repair(decoded, settings)]
    window = windows(decoded, settings, mains_hz)[0]
    return window.signal, window.start_s, flags + window.flags


def repair(decoded: Decoded, settings: SignalSettings) -> list[str]:
    """Derive absent leads and bridge gaps of `decoded` in place; returns flags, raises RecordError for what cannot be mended."""
    signal, fs_hz, flags = decoded.signal, decoded.fs_hz, []
    if signal.shape[1] < SHORTEST_S * fs_hz:
        raise RecordError("too_short", f"{signal.shape[1] / fs_hz:.3f} s of signal")
    if len(decoded.present) < len(LEADS):
        recorded = len(decoded.present)
        missing = derive_leads(signal, decoded.present)
        if missing and settings.missing_leads == "refuse":
            raise RecordError("missing_leads", " ".join(missing))
        flags += ["leads_derived"] if len(decoded.present) > recorded else []
        if missing:
            signal[[LEADS.index(lead) for lead in missing]] = 0
            flags.append("leads_zeroed")
    return flags + mend(signal, fs_hz) + flat_leads(signal, sorted(decoded.present))


def windows(decoded: Decoded, settings: SignalSettings, mains_hz: float) -> list[Window]:
    """Return the windows of a repaired record, filtered as a whole, at ``settings.fs_hz``."""
    band, skipped = choose_band(settings, decoded.fs_hz, mains_hz)
    signal = filter_and_resample(decoded.signal, decoded.fs_hz, settings.fs_hz, band)
    samples = window_samples(settings)
    excess = signal.shape[1] - samples
    if excess < 0:
        return [Window(np.pad(signal, ((0, 0), (0, -excess))), 0.0, [*skipped, "padded"])]
    count = signal.shape[1] // samples if settings.window == "all" else 1
    first = excess // 2 if settings.window == "centre" else 0
    flags = [*skipped, *(["cropped"] if excess else [])]
    starts = range(first, first + count * samples, samples)
    return [Window(signal[:, start : start + samples], start / settings.fs_hz, list(flags)) for start in starts]


def choose_band(settings: SignalSettings, fs_raw_hz: float, mains_hz: float) -> tuple[Band, list[str]]:
    """Return the filters that a record at `fs_raw_hz` can have, and flags for those that it cannot."""
    highest, flags = HIGHEST * fs_raw_hz, []
    highpass, lowpass = settings.highpass_hz, settings.lowpass_hz
    notch = mains_hz if settings.notch_hz == "mains" else settings.notch_hz
    if highpass >= highest:
        highpass = 0.0
        flags.append("highpass_skipped")
    if lowpass and lowpass >= highest:
        lowpass = 0.0
        flags.append("lowpass_skipped")
    if notch and notch >= highest:
        notch = 0.0
        flags.append("notch_skipped")
    return Band(highpass, lowpass, settings.filter_order, notch, settings.notch_q), flags


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


def flat_leads(signal: NDArray[np.float32], present: list[int]) -> list[str]:
    """Return the flag of a record with flat leads among `present`; raises RecordError no_signal where every one is flat."""
    glance = signal[:, :: max(1, signal.shape[1] // 16)]  # only a lead that looks flat here is looked at whole
    same = (glance == glance[:, :1]).all(axis=1)
    flat = [bool(same[row]) and bool((signal[row] == signal[row, 0]).all()) for row in present]
    if all(flat):
        raise RecordError("no_signal", "every lead is flat")
    return ["flat_lead"] if any(flat) else []
