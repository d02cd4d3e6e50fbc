"""What the body and the machine add: wander with breathing, muscle, mains, loose electrodes; all enter at the electrodes.

Noise of one limb electrode reaches every chest lead through Wilson's terminal, as in a real recording, and keeps the limb-lead
relations exact.
"""

from __future__ import annotations

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


def draw_noise(samples: int, fs_hz: float, mains_hz: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Draw noise of the eight leads, (8, samples) mV, and its levels by name for the record's notes.

    Returns the noise and ``{"wander": mV, "static": mV, "burst": mV}``, each of the worst electrode.
    """
    hz = fft.rfftfreq(samples, 1 / fs_hz).astype(np.float32)
    f = np.maximum(hz, 0.08)
    restless = 3.0 if rng.random() < 0.07 else 1.0
    wander = rng.lognormal(np.log(0.045), 0.55) * rng.lognormal(0, 0.35, 9).astype(np.float32)
    muscle = restless * rng.lognormal(np.log(0.0100), 0.35) * rng.lognormal(0, 0.3, 9).astype(np.float32)
    wander_shape = (1 / (1 + (f / 0.25) ** 2)).astype(np.float32)
    wander_shape[0] = 1.0
    muscle_shape = (1 / (1 + (f / 8) ** 2) ** 0.4 / (1 + (f / 190) ** 4)).astype(np.float32)
    wander_shape /= np.sqrt((wander_shape**2).sum())
    muscle_shape /= np.sqrt((muscle_shape**2).sum())
    shape = np.sqrt((wander[:, None] * wander_shape) ** 2 + (muscle[:, None] * muscle_shape) ** 2)
    spectrum = np.empty((9, len(hz)), np.complex64)
    spectrum.real = rng.standard_normal((9, len(hz)), np.float32)
    spectrum.imag = rng.standard_normal((9, len(hz)), np.float32)
    spectrum *= shape * np.float32(samples / 2)
    noise = fft.irfft(spectrum, samples, axis=1)
    burst = 0.0
    if rng.random() < 0.06:
        burst = add_burst(noise, fs_hz, rng)
    if rng.random() < 0.25:
        mains = rng.lognormal(np.log(0.004), 0.8) * rng.lognormal(0, 0.7, 9)
        turn = 2 * np.pi * mains_hz * np.arange(samples) / fs_hz + rng.uniform(0, 6.3)
        noise += (mains[:, None] * np.sin(turn)).astype(np.float32)
    return ELECTRODES @ noise, {"wander": float(wander.max()), "static": float(muscle.max()), "burst": burst}


def add_burst(noise: NDArray[np.float32], fs_hz: float, rng: np.random.Generator) -> float:
    """Add a burst of muscle noise or a jump of one electrode, in place; returns its size in mV."""
    samples = noise.shape[1]
    start = int(rng.integers(samples))
    stop = min(start + int(rng.uniform(0.3, 3.0) * fs_hz), samples)
    electrode = int(rng.integers(9))
    size = float(rng.lognormal(np.log(0.08), 0.6))
    if rng.random() < 0.6:
        noise[electrode, start:stop] += size * rng.standard_normal(stop - start).astype(np.float32)
    else:
        noise[electrode, start:] += 4 * size * np.exp(-np.arange(samples - start) / (0.6 * fs_hz)).astype(np.float32)
    return size
