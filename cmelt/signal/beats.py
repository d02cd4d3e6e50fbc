"""Beats of a recording and their rate: where all leads together are steepest. For statistics and pages, not for diagnosis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks

STEEPNESS_HZ = 100.0
"""The rate at which steepness is looked at; a QRS is some 8 such steps long."""
QRS_S = 0.08
REFRACTORY_S = 0.24
"""No two beats are closer: 250 a minute."""
AROUND_S = 2.0
"""A beat is measured against the steepest within this of it: one artefact hides the beats beside it only."""
SHARE = 0.35
FEWEST = 3
"""Fewer beats give no rate."""


def find_beats(signal_mv: NDArray[np.floating], fs_hz: float) -> NDArray[np.float64]:
    """Return the times in s of the QRS complexes of `signal_mv` (leads, samples)."""
    step = max(1, round(fs_hz / STEEPNESS_HZ))
    rate_hz = fs_hz / step
    coarse = signal_mv[:, : signal_mv.shape[1] // step * step].reshape(len(signal_mv), -1, step).mean(axis=2)
    if coarse.shape[1] < rate_hz:
        return np.empty(0)
    steep = uniform_filter1d(np.abs(np.diff(coarse, axis=1)).sum(axis=0), max(1, round(QRS_S * rate_hz)))  # (steps,)
    steep -= np.median(steep)
    tallest = maximum_filter1d(steep, 2 * round(AROUND_S * rate_hz) + 1)
    typical = np.median(tallest)
    if not typical > 0:
        return np.empty(0)
    least = SHARE * np.minimum(tallest, typical)
    peaks, _ = find_peaks(steep, height=least, distance=max(1, round(REFRACTORY_S * rate_hz)), prominence=SHARE / 2 * typical)
    return (peaks + 1) / rate_hz


def heart_rate_bpm(signal_mv: NDArray[np.floating], fs_hz: float) -> float:
    """Return beats a minute by the median interval of `signal_mv` (leads, samples); NaN where there are too few beats."""
    beats = find_beats(signal_mv, fs_hz)
    return float(60 / np.median(np.diff(beats))) if len(beats) >= FEWEST else float("nan")
