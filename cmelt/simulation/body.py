"""The patient around the heart: size, position of the heart, where electrodes are put, shape of the normal waves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmelt.simulation.cases import Case
from cmelt.simulation.changes import CHANGES, discordant
from cmelt.simulation.heart import LEAD_VECTORS, Array, Heart, rotation

CAUSES: dict[str, tuple[str, ...]] = {
    "ABQRS": ("IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPMI", "IPLMI", "PMI", "LAFB", "CRBBB", "IVCD", "WPW", "IRBBB"),
    "QWAVE": ("IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPMI", "IPLMI", "PMI"),
    "STD_": ("ISC_", "ISCAL", "ISCIN", "ISCIL", "ISCLA", "DIG", "NST_", "INJAL", "INJAS"),
    "LOWT": ("NDT", "DIG", "EL"),
    "NT_": ("NDT", "LOWT", "ISC_"),
    "INVT": ("ISC_", "ISCAL", "ISCIN", "ISCIL", "ISCAS", "ISCLA", "ISCAN"),
    "VCLVH": ("LVH",),
    "LPR": ("1AVB",),
}
"""A form that another finding already brings about is named but not drawn a second time."""


@dataclass(slots=True)
class Body:
    """What eight leads see of a dipole, (8, 3), how chest leads bend it, and the record's gain by breath."""

    leads: Array
    bend: Array
    breath_deg: float
    breath_hz: float


def make_body(case: Case, rng: np.random.Generator) -> Body:
    """Place electrodes on a patient; a second record of the same patient has them nearly where they were."""
    own = np.random.default_rng(case.patient.seed)
    leads = LEAD_VECTORS.copy()
    length = np.linalg.norm(leads[2:], axis=1, keepdims=True)
    habit, today = own.normal(0, 1, (6, 3)), rng.normal(0, 1, (6, 3))
    leads[2:] += length * (0.09 * habit + 0.06 * today)
    leads[2:] *= np.exp(0.12 * own.normal(0, 1, (6, 1)) + 0.06 * rng.normal(0, 1, (6, 1)))
    bend = np.zeros((8, 3))
    bend[2:] = 0.10 * length * own.normal(0, 1, (6, 3))
    return Body(leads, bend, breath_deg=float(rng.lognormal(np.log(2.5), 0.6)), breath_hz=float(rng.uniform(0.17, 0.33)))


def make_heart(case: Case, rng: np.random.Generator) -> Heart:
    """Make the patient's own heart, then let every shown finding change it, in the order of CHANGES."""
    own = np.random.default_rng(case.patient.seed + 1)
    heart = Heart()
    old = (case.age - 55) / 20
    gain = float(own.lognormal(-0.05 * old + (0.05 if case.patient.male else -0.03), 0.20))
    heart.qrs.vector_mv *= gain * own.lognormal(0, 0.13, (5, 1))
    heart.qrs.vector_mv += 0.06 * own.normal(0, 1, (5, 3)) * gain
    heart.qrs.stretch(float(own.lognormal(0.02 if case.patient.male else -0.05, 0.07)))
    heart.t.vector_mv *= own.lognormal(-0.12 * old + (0.10 if case.patient.male else -0.10), 0.30)
    heart.t.vector_mv[:2] += 0.035 * own.normal(0, 1, (2, 3))
    heart.t.width_s *= own.lognormal(0, 0.08)
    heart.st.vector_mv *= own.lognormal(0.2 if case.patient.male else -0.3, 0.4)
    heart.st.vector_mv += 0.008 * own.normal(0, 1, (2, 3))
    heart.p.vector_mv *= own.lognormal(0, 0.22)
    heart.p.vector_mv += 0.008 * own.normal(0, 1, (3, 3))
    heart.pr_s = float(np.clip(own.normal(0.153 + 0.006 * old, 0.018), 0.11, 0.20))
    heart.qt_stretch = float(own.lognormal(0.0 if case.patient.male else 0.02, 0.035))
    whole = rotation(own.normal(0, 10), own.normal(0, 12), own.normal(-9 * old, 15))
    heart.rotate(whole)
    heart.t.vector_mv = heart.t.vector_mv @ rotation(own.normal(0, 12), own.normal(8 * old, 12), own.normal(0, 12)).T
    for code in CHANGES:
        if code in case.shown and not any(cause in case.shown for cause in CAUSES.get(code, ())):
            CHANGES[code](heart, case.shown[code], rng)
    heart.qrs.vector_mv *= rng.lognormal(0, 0.04)
    heart.t.vector_mv *= rng.lognormal(0, 0.10)
    return heart


def ectopic(heart: Heart, rng: np.random.Generator) -> Heart:
    """Make a beat that starts in a ventricle: wide, tall, slurred, with T against it."""
    beat = Heart()
    origin = rng.normal(0, 1, 3)
    origin /= np.linalg.norm(origin)
    size = heart.size() * rng.lognormal(0.15, 0.2)
    side = np.cross(origin, rng.normal(0, 1, 3))
    side /= np.linalg.norm(side)
    beat.qrs.centre_s = np.array([0.022, 0.045, 0.072, 0.102, 0.130])
    beat.qrs.width_s = np.array([0.012, 0.014, 0.016, 0.017, 0.014])
    along = np.array([0.15, 0.6, 1.0, 0.75, 0.25])[:, None] * origin
    across = np.array([0.15, 0.25, 0.10, -0.30, -0.25])[:, None] * side
    beat.qrs.vector_mv = size * (along + across)
    beat.delay_repolarisation(0.05)
    discordant(beat, 1.0)
    return beat


def stimulated(heart: Heart, rng: np.random.Generator) -> Heart:
    """Make a beat from a pacing electrode at the right ventricle's tip: to the left, up and back, slow."""
    beat = Heart()
    size = heart.size() * rng.lognormal(0, 0.2)
    way = np.array([[0.15, 0.10, -0.05], [0.40, -0.30, 0.20], [0.70, -0.75, 0.55], [0.55, -0.70, 0.70], [0.20, -0.25, 0.35]])
    beat.qrs.vector_mv = size * (way + rng.normal(0, 0.08, (5, 3)))
    beat.qrs.centre_s = np.array([0.020, 0.042, 0.070, 0.100, 0.130])
    beat.qrs.width_s = np.array([0.010, 0.014, 0.016, 0.017, 0.014])
    beat.delay_repolarisation(0.05)
    discordant(beat, 1.0)
    return beat
