"""When atria and ventricles fire: sinus rhythm and what replaces or interrupts it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmelt.simulation.cases import Case
from cmelt.simulation.heart import Array

NARROW, WIDE, PACED = 0, 1, 2
"""Kinds of ventricular beats: by the conduction system, from a ventricle, from a pacemaker's electrode."""

FAST = {"SVTAC": 165.0, "PSVT": 170.0}
"""Tachycardias from above the ventricles, and their mean rate; PSVT comes in bursts."""

BEFORE_S, AFTER_S = 1.5, 1.0
"""Beats are made from this long before the record to this long after it."""


@dataclass(slots=True)
class Events:
    """Times in seconds from the record's start; a ventricular time is a QRS onset, an atrial one a P onset."""

    p_s: Array = field(default_factory=lambda: np.empty(0))
    p_early: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    """True for P waves that do not come from the sinus node."""
    qrs_s: Array = field(default_factory=lambda: np.empty(0))
    kind: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, int))
    rr_s: Array = field(default_factory=lambda: np.empty(0))
    """The interval before each beat, which sets its QT."""
    spike_s: Array = field(default_factory=lambda: np.empty(0))
    atrial_hz: float = 0.0
    """Rate of flutter or fibrillation waves; 0 = none."""
    flutter: bool = False


def make_events(case: Case, pr_s: float, duration_s: float, rng: np.random.Generator) -> Events:
    """Time every beat of a record of `duration_s`, as the case's rhythm, extra beats and AV conduction have it."""
    span = duration_s + BEFORE_S + AFTER_S
    if case.rhythm == "PACE":
        return shifted(paced(span, rng))
    if case.rhythm == "AFIB":
        events = fibrillation(span, rng)
    elif case.rhythm == "AFLT":
        events = flutter(span, rng)
    else:
        rr = sinus_intervals(case, span, rng)
        atrial = np.cumsum(rr) - rr[0] * rng.random()
        if "3AVB" in case.shown:
            return shifted(blocked(atrial, span, rng))
        pr = pr_s + rng.normal(0, 0.002, len(atrial))
        kept = np.ones(len(atrial), bool)
        if "2AVB" in case.shown:
            pr, kept = dropped_beats(atrial, pr_s, rng)
        seen = np.full(len(atrial), True) if case.rhythm not in FAST else rr > 0.5  # P hides in the T before
        events = Events(p_s=atrial[seen], p_early=np.zeros(int(seen.sum()), bool), qrs_s=(atrial + pr)[kept])
    events.kind = np.zeros(len(events.qrs_s), int)
    add_extra_beats(events, case, pr_s, BEFORE_S + duration_s, rng)
    events.rr_s = np.diff(events.qrs_s, prepend=events.qrs_s[0] - np.median(np.diff(events.qrs_s)))
    return shifted(events)


def shifted(events: Events) -> Events:
    """Move the times so that 0 is the record's start."""
    events.p_s = events.p_s - BEFORE_S
    events.qrs_s = events.qrs_s - BEFORE_S
    events.spike_s = events.spike_s - BEFORE_S
    return events


def sinus_intervals(case: Case, span: float, rng: np.random.Generator) -> Array:
    """Return RR intervals (s): a rate for the case, breathing and slow swings, small jitter."""
    rate = {
        "STACH": lambda: 101 + 12 * rng.gamma(1.3),
        "SBRAD": lambda: 58 - 5.5 * rng.gamma(1.3),
        "SVTAC": lambda: rng.normal(FAST["SVTAC"], 20),
    }.get(case.rhythm, lambda: rng.normal(68 if case.patient.normal else 72, 10.5))()
    rate = min(max(rate, 34.0), 215.0)
    if case.rhythm in ("SR", "SARRH", "SVARR"):
        rate = min(max(rate - (5 if case.rhythm == "SARRH" else 0), 50.0), 102.0)
    mean = 60 / rate
    count = int(span / mean * 1.6) + 4
    when = np.arange(count) * mean
    young = min(max((75 - case.patient.age) / 50, 0.1), 1.2)
    swing = 0.050 * young**0.5 * rng.lognormal(0, 0.6)
    if case.rhythm == "SARRH":
        swing = 0.10 + 0.09 * case.shown.get("SARRH", 0.5)
    swing *= min((mean / 0.85) ** 1.5, 1.6)  # the slower the heart, the freer its rate
    if case.rhythm == "SVTAC":
        swing = 0.003
    breath = np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * when + rng.uniform(0, 6.3))
    slow = np.sin(2 * np.pi * rng.uniform(0.05, 0.12) * when + rng.uniform(0, 6.3))
    jitter = rng.normal(0, 0.006 * min(mean / 0.85, 1.2), count)
    if case.rhythm == "SVARR":
        jitter = rng.normal(0, 0.12, count) * (rng.random(count) < 0.6)
    rr = mean * (1 + swing * breath + 0.5 * swing * slow + jitter)
    if case.rhythm == "PSVT":
        begins, beat = rng.uniform(0, 0.6 * span), 60 / rng.normal(FAST["PSVT"], 15)
        burst = np.full(int(rng.uniform(2, 8) / beat), beat)
        rr = np.concatenate([rr[when <= begins], burst, rr[when > begins]])
    return np.clip(rr, 0.26, 2.5)


def fibrillation(span: float, rng: np.random.Generator) -> Events:
    """Return irregularly irregular beats without P waves."""
    mean = 60 / float(np.clip(rng.normal(94, 26), 45, 175))
    spread = rng.uniform(0.09, 0.27)
    rr = np.clip(mean * rng.gamma(1 / spread**2, spread**2, int(span / mean * 1.8) + 6), 0.29, 2.4)
    return Events(qrs_s=np.cumsum(rr) - rr[0] * rng.random(), atrial_hz=rng.uniform(4.8, 8.0))


def flutter(span: float, rng: np.random.Generator) -> Events:
    """Return beats at a whole number of flutter waves, fixed or varying."""
    hz = rng.uniform(3.9, 5.4)
    every = int(rng.choice([2, 3, 4], p=[0.4, 0.15, 0.45]))
    count = int(span * hz / 2) + 4
    waves = np.full(count, every) if rng.random() < 0.5 else np.clip(every + rng.integers(-1, 2, count), 2, 6)
    return Events(qrs_s=np.cumsum(waves / hz), atrial_hz=hz, flutter=True)


def paced(span: float, rng: np.random.Generator) -> Events:
    """Return pacemaker beats: regular, each after a spike, some following P waves."""
    mean = 60 / float(np.clip(rng.normal(70, 7), 50, 100))
    beats = np.arange(0.2 * rng.random(), span, mean)
    events = Events(qrs_s=beats + rng.normal(0, 0.001, len(beats)), kind=np.full(len(beats), PACED), rr_s=np.full(len(beats), mean))
    mode = rng.choice(3, p=[0.45, 0.30, 0.25])  # following P, ignoring P, over fibrillation
    if mode == 0:
        events.p_s = beats - 0.16
    elif mode == 1:
        own = rng.uniform(0.65, 1.1)
        events.p_s = np.arange(own * rng.random(), span, own)
    else:
        events.atrial_hz = rng.uniform(5, 8)
    events.p_early = np.zeros(len(events.p_s), bool)
    spikes = [events.qrs_s - 0.004]
    if mode == 0 and rng.random() < 0.4:
        spikes.append(events.p_s - 0.004)
    events.spike_s = np.concatenate(spikes)
    return events


def blocked(atrial: Array, span: float, rng: np.random.Generator) -> Events:
    """Return P waves and a slow escape rhythm that do not know of one another (third-degree AV block)."""
    mean = 60 / rng.uniform(30, 48)
    beats = np.arange(mean * rng.random(), span, mean)
    wide = WIDE if rng.random() < 0.4 else NARROW
    return Events(atrial, np.zeros(len(atrial), bool), beats, np.full(len(beats), wide), np.full(len(beats), mean))


def dropped_beats(atrial: Array, pr_s: float, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """Return PR per P wave and which P waves are conducted (second-degree AV block, with or without growing PR)."""
    cycle = int(rng.integers(2, 6))
    place = (np.arange(len(atrial)) + rng.integers(cycle)) % cycle
    growing = cycle > 2 and rng.random() < 0.7
    pr = pr_s + (0.055 * np.sqrt(place) if growing else 0.0) + np.zeros(len(atrial))
    return pr, place < cycle - 1


def add_extra_beats(events: Events, case: Case, pr_s: float, until_s: float, rng: np.random.Generator) -> None:
    """Replace beats before `until_s`, the record's end, by early atrial or ventricular ones, with the pause that follows."""
    shown = case.shown
    every = 2 if "BIGU" in shown else 3 if "TRIGU" in shown else 0
    atrial = "PAC" in shown or ("SVARR" in shown and rng.random() < 0.7)
    ventricular = "PVC" in shown or "PRC(S)" in shown
    if not (atrial or ventricular or every) or len(events.qrs_s) < 5:
        return
    if not (atrial or ventricular):
        ventricular = True
    inside = np.flatnonzero((events.qrs_s > BEFORE_S + 0.3) & (events.qrs_s < until_s - 0.3))
    if not len(inside):
        return
    if every:
        chosen = inside[rng.integers(every) :: every]
        kinds = np.full(len(chosen), WIDE if ventricular else NARROW)
    else:
        how_many = min(int(rng.geometric(0.45)), max(len(inside) // 3, 1))
        chosen = np.sort(rng.choice(inside, how_many, replace=False))
        kinds = np.where(rng.random(len(chosen)) < (0.5 if atrial and ventricular else float(ventricular)), WIDE, NARROW)
    early = rng.uniform(0.25, 0.45)
    sinus = events.p_s
    for beat, kind in zip(chosen, kinds, strict=True):
        rr = events.qrs_s[beat] - events.qrs_s[beat - 1]
        by = min(early * rr, max(rr - 0.32, 0.0))
        old = events.qrs_s[beat]
        events.qrs_s[beat] = old - by
        events.kind[beat] = kind
        if len(sinus):
            own = np.abs(sinus - (old - pr_s)) < 0.06
            if kind == NARROW:
                sinus = np.where(own, sinus - by, sinus)
                events.p_early = events.p_early | own
                later = 0.5 * by  # the sinus node is reset: the pause is not compensatory
                events.qrs_s[beat + 1 :] -= later
                sinus = np.where(sinus > old, sinus - later, sinus)
            else:
                hidden = own & (rng.random(len(sinus)) < 0.8)
                sinus, events.p_early = sinus[~hidden], events.p_early[~hidden]
    events.p_s = sinus
