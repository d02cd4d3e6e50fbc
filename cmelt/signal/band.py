"""The filters of a recipe: what they let through and how long they ring, in closed form, and as sections for scipy.

In closed form because importing ``scipy.signal`` takes every worker longer than a hundred records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Band:
    """Which filters act on a record: cut-offs in Hz, 0 = off."""

    highpass_hz: float
    lowpass_hz: float
    order: int
    notch_hz: float
    notch_q: float

    @property
    def is_off(self) -> bool:
        """Say whether no filter acts."""
        return not (self.highpass_hz or self.lowpass_hz or self.notch_hz)


def sections(band: Band, fs_hz: float) -> NDArray[np.float64]:
    """Return the filters of `band` at rate `fs_hz` as joint second-order sections (n, 6)."""
    from scipy.signal import butter, iirnotch, tf2sos

    edges = [hz for hz in (band.highpass_hz, band.lowpass_hz) if hz]
    kind = "band" if len(edges) == 2 else "high" if band.highpass_hz else "low"
    parts = [butter(band.order, edges if len(edges) == 2 else edges[0], kind, fs=fs_hz, output="sos")] if edges else []
    if band.notch_hz:
        parts.append(tf2sos(*iirnotch(band.notch_hz, Q=band.notch_q, fs=fs_hz)))
    return np.concatenate(parts)


def power(band: Band, fs_hz: float, hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |H|² of `sections` at frequencies `hz`."""
    low, high, width = edges(band, fs_hz)
    tangent = np.tan(np.pi / fs_hz * hz)  # the bilinear transform's frequencies
    gain = np.ones(len(hz))
    with np.errstate(divide="ignore"):
        if low and high:
            gain /= 1 + ((tangent**2 - low * high) / (tangent * (high - low))) ** (2 * band.order)
        elif low:
            gain /= 1 + (low / tangent) ** (2 * band.order)
        elif high:
            gain /= 1 + (tangent / high) ** (2 * band.order)
    if band.notch_hz:
        away = np.cos(2 * np.pi / fs_hz * hz) - np.cos(2 * np.pi * band.notch_hz / fs_hz)
        gain *= away**2 / (away**2 + (width * np.sin(2 * np.pi / fs_hz * hz)) ** 2)
    return gain


def slowest(band: Band, fs_hz: float) -> float:
    """Return what is left of the slowest mode of `sections` after one sample: the largest size of a pole."""
    low, high, width = edges(band, fs_hz)
    poles = np.exp(1j * np.pi * (2 * np.arange(band.order) + band.order + 1) / (2 * band.order))  # of Butterworth's prototype
    if low and high:
        poles = (high - low) / 2 * poles
        root = np.sqrt(poles**2 - low * high)
        poles = np.concatenate([poles + root, poles - root])
    else:
        poles = low / poles if low else high * poles
    radii = np.abs((1 + poles) / (1 - poles)) if low or high else np.zeros(1)
    notch = np.roots([1 + width, -2 * np.cos(2 * np.pi * band.notch_hz / fs_hz), 1 - width]) if band.notch_hz else np.zeros(1)
    return float(max(radii.max(), np.abs(notch).max()))


def edges(band: Band, fs_hz: float) -> tuple[float, float, float]:
    """Return high-pass, low-pass and the notch's width as tangents of half their angles; 0 = off."""
    low, high = (float(np.tan(np.pi / fs_hz * hz)) for hz in (band.highpass_hz, band.lowpass_hz))
    return low, high, float(np.tan(np.pi * band.notch_hz / band.notch_q / fs_hz))
