"""From a case to twelve leads: beats are laid along time, seen by the leads, and recorded with noise by a machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import firwin

from cmelt.simulation.body import Body, ectopic, make_body, make_heart, stimulated
from cmelt.simulation.cases import Case
from cmelt.simulation.heart import Array, Heart, Pulses, lead_amplitudes
from cmelt.simulation.noise import draw_noise, misconnect
from cmelt.simulation.rhythm import NARROW, PACED, WIDE, Events, make_events

FS_HZ = 500
DURATION_S = 10.0
LOW_FACTOR = 5
LOW_TAPS = firwin(121, 0.92 / LOW_FACTOR, window=("kaiser", 6.0))
"""Anti-alias filter of the 100 Hz version, passing 40 Hz and stopping 50 Hz."""
BREATH: Array = np.array([[0.0, 0.8, -0.2], [-0.8, 0.0, 0.5], [0.2, -0.5, 0.0]])
"""How breathing turns the heart: v @ BREATH is the change of v per radian."""


@dataclass(slots=True)
class Trace:
    """A recording and what can be measured on its clean parts."""

    uv: NDArray[np.int16]
    """(12, 5000), µV, leads in the order of ``cmelt.record.LEADS``."""
    axis_deg: float
    events: Events
    noise: dict[str, float]
    """Levels in mV, of the worst electrode: ``wander``, ``static``, ``burst``."""
    problem: str
    """What is wrong with the electrodes, as PTB-XL's column ``electrodes_problems`` notes it, or ''."""


def record(case: Case, rng: np.random.Generator, with_noise: bool = True) -> Trace:
    """Record a case for 10 s at 500 Hz."""
    heart = make_heart(case, rng)
    body = make_body(case, rng)
    events = make_events(case, heart.pr_s, DURATION_S, rng)
    samples = int(DURATION_S * FS_HZ)
    leads = np.zeros((8, samples), np.float32)
    for kind, beat in ((NARROW, heart), (WIDE, None), (PACED, None)):
        chosen = events.kind == kind
        if not chosen.any():
            continue
        source = beat or (ectopic(heart, rng) if kind == WIDE else stimulated(heart, rng))
        add_ventricles(leads, source, body, events.qrs_s[chosen], events.rr_s[chosen], rng)
    add_atria(leads, heart, body, events, rng)
    levels, problem = {"wander": 0.0, "static": 0.0, "burst": 0.0}, ""
    if with_noise:
        noise, levels = draw_noise(samples, FS_HZ, 50.0, rng)
        leads += noise
        problem = misconnect(leads, rng)
    eight = np.clip(np.rint(leads * 1000), -32000, 32000).astype(np.int32)
    return Trace(twelve(eight), heart.axis_deg(), events, levels, problem)


def twelve(eight: NDArray[np.int32]) -> NDArray[np.int16]:
    """Return the twelve leads (12, n) of I, II, V1 ... V6 (8, n), all in µV; the relations hold to the last bit or half of it."""
    one, two = eight[0], eight[1]
    out = np.empty((12, eight.shape[1]), np.int32)
    out[0], out[1], out[2] = one, two, two - one
    out[3] = -((one + two) // 2)
    out[4] = (2 * one - two) // 2
    out[5] = (2 * two - one) // 2
    out[6:] = eight[2:]
    return np.clip(out, -32767, 32767).astype(np.int16)


def decimate(uv: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the 100 Hz version (12, 1000) of (12, 5000), filtered against aliases, without delay."""
    eight = uv[[0, 1, 6, 7, 8, 9, 10, 11]].astype(np.float32)
    ends = len(LOW_TAPS) // 2  # both are repeated that far, so that the filter does not reach round from one to the other
    padded = np.concatenate([np.repeat(eight[:, :1], ends, 1), eight, np.repeat(eight[:, -1:], ends, 1)], axis=1)
    samples = padded.shape[1] // LOW_FACTOR
    kept = fft.rfft(padded, axis=1)[:, : samples // 2 + 1] * low_response(padded.shape[1])
    low = fft.irfft(kept, samples, axis=1)[:, ends // LOW_FACTOR :][:, : uv.shape[1] // LOW_FACTOR]
    return twelve(np.rint(low).astype(np.int32))


@cache
def low_response(samples: int) -> NDArray[np.float32]:
    """Return what the anti-alias filter does to the bins of rfft that the 100 Hz version keeps, of `samples` at 500 Hz; without delay."""
    around = np.roll(np.pad(LOW_TAPS, (0, samples - len(LOW_TAPS))), -(len(LOW_TAPS) // 2))
    kept = samples // LOW_FACTOR // 2 + 1
    return (fft.rfft(around).real[:kept] / LOW_FACTOR).astype(np.float32)


def add_ventricles(leads: NDArray[np.float32], heart: Heart, body: Body, onset_s: Array, rr_s: Array, rng: np.random.Generator) -> None:
    """Add QRS, ST and T of every beat; T comes earlier after a short interval, and breathing turns the heart."""
    stretch = heart.qt_stretch * (0.25 + 0.75 * np.clip(np.minimum(rr_s, np.median(rr_s) * 1.1), 0.35, 1.6) ** 0.5)
    breath = np.sin(2 * np.pi * body.breath_hz * onset_s) * np.radians(body.breath_deg)
    size = 1 + 0.6 * breath + rng.normal(0, 0.015, len(onset_s))
    late = Pulses(
        np.concatenate([heart.st.centre_s, heart.t.centre_s]),
        np.concatenate([heart.st.width_s, heart.t.width_s]),
        np.concatenate([heart.st.vector_mv, heart.t.vector_mv]),
    )
    add_pulses(leads, heart.qrs, body.qrs, body.bend, onset_s, np.ones(len(onset_s)), size, breath, 0.26)
    add_pulses(leads, late, body.t, body.bend, onset_s, stretch, size * (1 + rng.normal(0, 0.02, len(onset_s))), breath, 0.62)


def add_atria(leads: NDArray[np.float32], heart: Heart, body: Body, events: Events, rng: np.random.Generator) -> None:
    """Add P waves, or the waves of flutter and fibrillation, and pacemaker spikes."""
    for early in (False, True):
        onset = events.p_s[events.p_early == early]
        if not len(onset):
            continue
        pulses = heart.p.copy()
        if early:
            pulses.vector_mv = pulses.vector_mv * rng.uniform(-1, 1.2, 3)
        add_pulses(
            leads, pulses, body.p, body.bend, onset, np.ones(len(onset)), 1 + rng.normal(0, 0.04, len(onset)), np.zeros(len(onset)), 0.30
        )
    if events.atrial_hz:
        leads += (body.p @ atrial_waves(events, leads.shape[1], rng)).astype(np.float32)
    for at in events.spike_s:
        k = round(at * FS_HZ)
        if 0 <= k < leads.shape[1]:
            leads[:, k] += (body.qrs @ np.array([0.30, -0.35, 0.10]) * rng.normal(1, 0.1)).astype(np.float32)


def atrial_waves(events: Events, samples: int, rng: np.random.Generator) -> Array:
    """Return the dipole (3, samples) of flutter's saw or fibrillation's restless waves."""
    step = 1 / FS_HZ
    if events.flutter:
        turn = 2 * np.pi * events.atrial_hz * step * np.arange(samples) + rng.uniform(0, 6.3)
        wave = np.sin(turn) + 0.45 * np.sin(2 * turn + 0.6) + 0.2 * np.sin(3 * turn + 1.2)
        return np.outer(np.array([0.01, 0.09, -0.03]) * rng.lognormal(0, 0.35), wave)
    wander = np.repeat(rng.normal(0, 0.8, samples // 50 + 1), 50)[:samples]
    turn = 2 * np.pi * step * np.cumsum(events.atrial_hz + wander)
    swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 0.7) * step * np.arange(samples) + rng.uniform(0, 6.3))
    phases = rng.uniform(0, 6.3, 3)
    size = np.array([0.012, 0.020, -0.035]) * rng.lognormal(0, 0.6)
    return np.stack([s * swell * (np.sin(turn + p) + 0.4 * np.sin(2 * turn + 2 * p)) for s, p in zip(size, phases, strict=True)])


def add_pulses(
    leads: NDArray[np.float32],
    pulses: Pulses,
    view: Array,
    bend: Array,
    onset_s: Array,
    stretch: Array,
    size: Array,
    breath: Array,
    window_s: float,
) -> None:
    """Add `pulses` (n of them) at every onset (b of them) to leads (8, samples), in place."""
    samples = leads.shape[1]
    width = int(window_s * FS_HZ)
    first = np.floor(onset_s * FS_HZ).astype(int) - 15
    inside = (first + width > 0) & (first < samples)
    if not inside.any():
        return
    first, onset_s, stretch, size, breath = first[inside], onset_s[inside], stretch[inside], size[inside], breath[inside]
    local = ((first[:, None] + np.arange(width)) / FS_HZ - onset_s[:, None]).astype(np.float32)  # (b, w)
    centre = (stretch[:, None] * pulses.centre_s).astype(np.float32)  # (b, n)
    narrow = (np.sqrt(0.5) / (np.sqrt(stretch)[:, None] * pulses.width_s)).astype(np.float32)
    shape = local[:, None, :] - centre[:, :, None]  # (b, n, w)
    shape *= narrow[:, :, None]
    np.multiply(shape, shape, out=shape)
    np.negative(shape, out=shape)
    np.exp(shape, out=shape)
    still = lead_amplitudes(pulses, view, bend).T  # (8, n)
    turned = Pulses(pulses.centre_s, pulses.width_s, pulses.vector_mv @ BREATH)
    moving = lead_amplitudes(turned, view, bend).T
    seen = size[:, None, None] * (still + breath[:, None, None] * moving)  # (b, 8, n)
    beats = seen.astype(np.float32) @ shape  # (b, 8, w)
    for start, beat in zip(first, beats, strict=True):
        a, z0 = max(start, 0), min(start + width, samples)
        leads[:, a:z0] += beat[:, a - start : z0 - start]
