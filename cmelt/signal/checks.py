"""What a recording says about itself: are its leads what their names say, its amplitudes an ECG's, its seconds alive?

A check only flags (FLAGS in record.py), never repairs. All of them together take about 0.2 ms for 12 x 5,000 samples: ranges
of seconds are computed once and shared, percentiles are counts, and only what looks odd is looked at closely.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from cmelt.record import LEADS

Signal = NDArray[np.float32]

PLAUSIBLE_MV = (0.3, 4.5)
"""Between which the median lead's amplitude lies: 0.40 to 3.99 mV on 731 recordings of seven databases."""
RESIDUAL = 0.05
"""The largest residual of a limb-lead relation, as a share of the QRS amplitude."""
EXCEPT = 0.01
"""The share of samples that may break a relation: its 99th percentile counts."""
AGAINST = -0.4
"""Lead I that correlates with V6 below this was recorded with exchanged arm electrodes, or from a heart on the right."""
SAME = 0.9
"""The least correlation by which a lead is recognised under another's name."""
PLATEAU_S, PLATEAUS = 0.01, 2
"""How long, and how often, a saturated lead rests on its extreme."""
MAINS_HZ = (50.0, 60.0)
MAINS_MV = 0.05

ONE, TWO, THREE, AVR, AVL, AVF, V6 = (LEADS.index(name) for name in ("I", "II", "III", "aVR", "aVL", "aVF", "V6"))

FROM_I_AND_II = np.array([[-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]], np.float32)
"""III, aVR, aVL, aVF from I and II (Einthoven, Goldberger)."""


def check(signal: Signal, fs_hz: float, present: set[int]) -> list[str]:
    """Return the flags of `signal` (12, samples) in mV, without NaN, whose rows `present` were recorded or derived."""
    seconds = whole_seconds(signal, fs_hz)
    starts = np.arange(0, seconds.shape[1] * seconds.shape[2], seconds.shape[2])
    whole = signal[:, : seconds.shape[1] * seconds.shape[2]]
    high, low = np.maximum.reduceat(whole, starts, axis=1), np.minimum.reduceat(whole, starts, axis=1)
    height = middle(high - low)  # (12,) mV
    rows = sorted(present)
    flags = ["flat_lead"] if not height[rows].all() else []
    if not PLAUSIBLE_MV[0] <= middle(height[None, rows])[0] <= PLAUSIBLE_MV[1]:
        flags.append("amplitude_unusual")
    flags += check_limb_leads(signal, fs_hz, float(height[:3].max()), V6 in present) if present.issuperset(range(6)) else []
    if is_saturated(seconds, high, high.max(axis=1), fs_hz) or is_saturated(seconds, low, low.min(axis=1), fs_hz):
        flags.append("saturated")
    if mains_mv(seconds).max(initial=0) > MAINS_MV:
        flags.append("mains_noise")
    return flags


def middle(values: Signal) -> Signal:
    """Return the median over axis 1 of a small array, the upper of the two middles where their number is even."""
    return np.sort(values, axis=1)[:, values.shape[1] // 2]


def whole_seconds(signal: Signal, fs_hz: float) -> Signal:
    """Return `signal` (leads, samples) cut into seconds (leads, seconds, samples of one), what remains left out."""
    length = max(1, min(round(fs_hz), signal.shape[1]))
    count = signal.shape[1] // length
    return signal[:, : count * length].reshape(len(signal), count, length)


def median_height_mv(signal: Signal, fs_hz: float) -> float:
    """Return the amplitude of the median lead: per lead the median over seconds of the range in mV, NaN left out."""
    seconds = whole_seconds(signal, fs_hz)
    ranges = np.fmax.reduce(seconds, axis=2) - np.fmin.reduce(seconds, axis=2)
    return float(np.median([np.median(row[np.isfinite(row)]) for row in ranges if np.isfinite(row).any()] or [0.0]))


def check_limb_leads(signal: Signal, fs_hz: float, qrs_mv: float, has_v6: bool) -> list[str]:
    """Return the flags of the six limb leads: whether they obey Einthoven and Goldberger, and if not, what would explain it."""
    most = RESIDUAL * qrs_mv
    flags = []
    bad = breaks(FROM_I_AND_II @ signal[: TWO + 1] - signal[THREE : AVF + 1], most)  # III, aVR, aVL, aVF
    if bad.any():
        flags.append("limb_leads_disagree")
        if augmented_order(signal) != (0, 1, 2):
            flags.append("augmented_leads_swapped")
        if bad[0] and not breaks(signal[None, TWO] + signal[ONE] - signal[THREE], most)[0]:
            flags.append("arm_leads_reversed")
    if has_v6 and "arm_leads_reversed" not in flags and slope_correlation(signal[ONE], signal[V6], fs_hz) < AGAINST:
        flags.append("arm_leads_reversed")
    return flags


def breaks(residuals: Signal, most_mv: float) -> NDArray[np.bool_]:
    """Say of each of `residuals` (n, samples) whether the 99th percentile of its size lies above `most_mv`, by a count."""
    np.abs(residuals, out=residuals)
    return np.array([np.count_nonzero(row) for row in residuals > most_mv]) > EXCEPT * residuals.shape[1]


def augmented_order(signal: Signal) -> tuple[int, ...]:
    """Return which of the rows aVR, aVL, aVF (0, 1, 2) of `signal` truly holds each of the three, by correlation; (0, 1, 2) if unsure."""
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.nan_to_num(np.corrcoef(FROM_I_AND_II[1:] @ signal[: TWO + 1], signal[AVR : AVF + 1])[:3, 3:])
    best = max(permutations(range(3)), key=lambda order: sum(correlation[at, row] for at, row in enumerate(order)))
    sure = min(correlation[at, row] for at, row in enumerate(best)) > SAME
    return best if sure else (0, 1, 2)


def slope_correlation(first: Signal, second: Signal, fs_hz: float) -> float:
    """Return the correlation of two leads' slopes over 10 ms, which the QRS decides and wander does not."""
    step = max(1, round(fs_hz / 100))
    a, b = first[step::step] - first[:-step:step], second[step::step] - second[:-step:step]
    scale = float(np.dot(a, a)) * float(np.dot(b, b))
    return float(np.dot(a, b)) / scale**0.5 if scale > 0 else 0.0


def is_saturated(seconds: Signal, extremes: Signal, furthest: Signal, fs_hz: float) -> bool:
    """Say whether a lead of `seconds` (leads, seconds, samples) rests on its `furthest` value for 10 ms in two seconds or more.

    `extremes` (leads, seconds) are each second's own highest, or lowest, values.
    """
    shortest = max(3, round(PLATEAU_S * fs_hz))
    reached = extremes == furthest[:, None]
    for row in np.flatnonzero(reached.sum(axis=1) >= PLATEAUS):
        rests = seconds[row, reached[row]] == furthest[row]
        often = rests.sum(axis=1)
        plateaus = 0
        for resting in rests[(often >= shortest) & (often < rests.shape[1])]:
            edges = np.flatnonzero(np.diff(resting, prepend=False, append=False))
            plateaus += bool(np.any(edges[1::2] - edges[::2] >= shortest))
        if plateaus >= PLATEAUS:
            return True
    return False


def mains_mv(seconds: Signal) -> NDArray[np.float32]:
    """Return the amplitude in mV of 50 and of 60 Hz in each lead (leads, 2), the median over `seconds`; empty at low rates."""
    wave = mains_wave(seconds.shape[2])
    parts = (seconds.reshape(-1, len(wave)) @ wave).reshape(*seconds.shape[:2], -1, 2)
    return middle(np.hypot(parts[..., 0], parts[..., 1]))


@lru_cache(16)
def mains_wave(length: int) -> Signal:
    """Return cosine and sine of 50 and 60 Hz over one second of `length` samples: (length, 4), scaled so that the product is mV."""
    time = np.arange(length) / length
    waves = [wave(2 * np.pi * hz * time) for hz in MAINS_HZ if hz < 0.45 * length for wave in (np.cos, np.sin)]
    return np.reshape(waves, (-1, length)).T.astype(np.float32) * np.float32(2 / length)
