"""What the body and the machine add: wander with breathing, muscle, mains, loose electrodes; all enter at the electrodes.

Noise of one limb electrode reaches every chest lead through Wilson's terminal, as in a real recording, and keeps the limb-lead
relations exact.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

RA, LA, LL = 0, 1, 2
ELECTRODES: NDArray[np.float32] = np.zeros((8, 9), np.float32)
"""Leads I, II, V1 ... V6 of the electrodes RA, LA, LL, C1 ... C6."""
ELECTRODES[0, [LA, RA]] = 1, -1
ELECTRODES[1, [LL, RA]] = 1, -1
ELECTRODES[2:, :3] = -1 / 3
ELECTRODES[2:, 3:] = np.eye(6)


@cache
def spectra(samples: int, fs_hz: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the power spectra of wander and of muscle noise over the bins of rfft, each of sum 1."""
    f = np.maximum(fft.rfftfreq(samples, 1 / fs_hz), 0.08)
    wander = 1 / (1 + (f / 0.25) ** 2) ** 2
    muscle = 1 / (1 + (f / 8) ** 2) ** 0.8 / (1 + (f / 190) ** 4) ** 2
    wander[0] = 1.0
    return (wander / wander.sum()).astype(np.float32), (muscle / muscle.sum()).astype(np.float32)


def draw_noise(samples: int, fs_hz: float, mains_hz: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Draw noise of the eight leads, (8, samples) mV, and its levels by name for the record's notes.

    Returns the noise and ``{"wander": mV, "static": mV, "burst": mV}``, each of the worst electrode.
    """
    slow, fast = spectra(samples, fs_hz)
    restless = 3.0 if rng.random() < 0.07 else 1.0
    wander = (rng.lognormal(np.log(0.045), 0.55) * rng.lognormal(0, 0.35, 9)).astype(np.float32)
    muscle = (restless * rng.lognormal(np.log(0.0100), 0.35) * rng.lognormal(0, 0.3, 9)).astype(np.float32)
    muscle[:3] *= 1.4  # arms and legs move
    spectrum = rng.standard_normal((9, 2 * len(slow)), np.float32).view(np.complex64)
    power = np.stack([wander**2, muscle**2], axis=1) @ np.stack([slow, fast])  # (9, bins)
    spectrum *= np.sqrt(power) * np.float32(samples / 2)
    noise = fft.irfft(spectrum, samples, axis=1)
    burst = 0.0
    if rng.random() < 0.06:
        burst = add_burst(noise, fs_hz, rng)
    if rng.random() < 0.25:
        mains = rng.lognormal(np.log(0.004), 0.8) * rng.lognormal(0, 0.7, 9)
        turn = 2 * np.pi * mains_hz * np.arange(samples) / fs_hz + rng.uniform(0, 6.3)
        noise += np.outer(mains.astype(np.float32), np.sin(turn).astype(np.float32))
    return ELECTRODES @ noise, {"wander": float(wander.max()), "static": float(muscle.max()), "burst": burst}


def add_burst(noise: NDArray[np.float32], fs_hz: float, rng: np.random.Generator) -> float:
    """Add a burst of muscle noise or a jump of one electrode's contact, in place; returns its size in mV."""
    samples = noise.shape[1]
    start = int(rng.integers(samples - 10))
    stop = min(start + int(rng.uniform(0.3, 3.0) * fs_hz), samples)
    electrode = int(rng.integers(9))
    size = float(rng.lognormal(np.log(0.08), 0.6))
    if rng.random() < 0.6:
        swell = np.sin(np.pi * np.arange(stop - start) / (stop - start))
        noise[electrode, start:stop] += (size * swell * rng.standard_normal(stop - start)).astype(np.float32)
    else:
        noise[electrode, start:] += (4 * size * np.exp(-np.arange(samples - start) / (0.6 * fs_hz))).astype(np.float32)
    return size


def misconnect(leads: NDArray[np.float32], rng: np.random.Generator) -> str:
    """Swap two electrodes or lose one chest electrode, rarely, in place in leads (8, n); returns a note or ''.

    Leads that come from I and II follow of themselves, as they do when the machine derives them.
    """
    luck = rng.random()
    if luck < 0.004:  # the arms
        one, two = leads[0].copy(), leads[1].copy()
        leads[0], leads[1] = -one, two - one
        return "I???"
    if luck < 0.008:  # neighbours on the chest
        first = int(rng.integers(2, 7))
        leads[[first, first + 1]] = leads[[first + 1, first]]
        return "Elektroden vertauscht???"
    if luck < 0.012:  # an electrode off: its lead is flat
        lost = int(rng.integers(2, 8))
        leads[lost] = 0.0
        return f"V{lost - 1}"
    return ""
