"""The patient around the heart: size, position of the heart, where electrodes are put, shape of the normal waves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmelt.simulation.cases import Case
from cmelt.simulation.changes import CHANGES, discordant
from cmelt.simulation.heart import BASAL, CHEST_OF_P, CHEST_OF_QRS, CHEST_OF_T, LIMBS, TERMINAL, U_WAVE, Array, Heart, rotation

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
    """What eight leads see of the dipole of each wave, (8, 3), how chest leads bend it, and how the heart turns with breath."""

    p: Array
    qrs: Array
    t: Array
    bend: Array
    breath_deg: float
    breath_hz: float


def make_body(case: Case, rng: np.random.Generator) -> Body:
    """Place electrodes on a patient; a second record of the same patient has them nearly where they were."""
    own = np.random.default_rng(case.patient.seed)
    shift = 0.09 * own.normal(0, 1, (6, 3)) + 0.07 * rng.normal(0, 1, (6, 3))
    shift[:, 1] += 0.10 * own.normal() + 0.05 * rng.normal()  # all of them higher or lower
    near = np.exp(0.13 * own.normal(0, 1, (6, 1)) + 0.06 * rng.normal(0, 1, (6, 1)))
    views = []
    for chest, moved in ((CHEST_OF_P, 0.5), (CHEST_OF_QRS, 1.0), (CHEST_OF_T, 1.0)):
        length = np.linalg.norm(chest, axis=1, keepdims=True)
        views.append(np.vstack([LIMBS, near * (chest + moved * shift * length)]))
    bend = np.zeros((8, 3))
    bend[2:] = 0.10 * own.normal(0, 1, (6, 3))
    breath = float(rng.lognormal(np.log(2.5), 0.6))
    return Body(views[0], views[1], views[2], bend, breath, float(rng.uniform(0.17, 0.33)))


def make_heart(case: Case, rng: np.random.Generator) -> Heart:
    """Make the patient's own heart, then let every shown finding change it, in the order of CHANGES."""
    own = np.random.default_rng(case.patient.seed + 1)
    heart = Heart(infarct_age=case.infarct_age)
    male = 1.0 if case.patient.male else -1.0
    old = (case.patient.age - 55) / 20 + (0.0 if case.patient.normal else 0.25)  # illness ages a heart
    gain = float(own.lognormal(0.08 * male - 0.03 * old - (0.0 if case.patient.normal else 0.05), 0.19))
    heart.qrs.vector_mv *= gain * own.lognormal(0, 0.12, (5, 1))
    heart.qrs.vector_mv[[BASAL, TERMINAL], 2] *= np.exp(0.10 * male - 0.12 * old)
    heart.qrs.vector_mv += 0.07 * own.normal(0, 1, (5, 3)) * gain
    heart.qrs.stretch(float(own.lognormal(0.035 * male, 0.06)))
    for _ in range(3):  # notches: no two hearts spread the wave alike
        heart.qrs.add(own.uniform(0.012, 0.062), own.uniform(0.0025, 0.0045), 0.08 * own.normal(0, 1, 3))
    heart.t.vector_mv *= own.lognormal(-0.08 * old, 0.34)
    heart.t.vector_mv += np.array([0.02, 0.005, -0.045]) * male
    heart.t.vector_mv[:2] += np.array([0.04, 0.025, 0.04]) * own.normal(0, 1, (2, 3))
    heart.t.vector_mv[U_WAVE] *= own.lognormal(0, 0.6)
    heart.t.width_s *= own.lognormal(0, 0.08)
    heart.st.vector_mv *= np.exp(0.3 * male - 0.15 * old) * own.lognormal(0, 0.4)
    heart.st.vector_mv += 0.008 * own.normal(0, 1, (2, 3))
    heart.p.vector_mv *= own.lognormal(0, 0.25)
    heart.p.vector_mv += 0.022 * own.normal(0, 1, (3, 3)) * np.array([[1], [1], [0.3]])
    heart.pr_s = float(np.clip(own.normal(0.153 + 0.006 * old, 0.018), 0.11, 0.20))
    heart.qt_stretch = float(own.lognormal(-0.01 * male, 0.035))
    heart.rotate(rotation(own.normal(0, 6), own.normal(0, 9), own.normal(-2 * old, 6)))
    heart.qrs.vector_mv = heart.qrs.vector_mv @ rotation(own.normal(0, 8), own.normal(0, 12), own.normal(1 - 10 * old - 5 * male, 15)).T
    heart.t.vector_mv = heart.t.vector_mv @ rotation(own.normal(0, 7), own.normal(5 * old, 10), own.normal(0, 5)).T
    if not case.patient.normal:
        wear(heart, own)
    for code in CHANGES:
        if code in case.shown and not any(cause in case.shown for cause in CAUSES.get(code, ())):
            CHANGES[code](heart, case.shown[code], rng)
    heart.qrs.vector_mv *= rng.lognormal(0, 0.05)
    heart.t.vector_mv *= rng.lognormal(0, 0.10)
    return heart


def wear(heart: Heart, rng: np.random.Generator) -> None:
    """Let any illness leave its common trace: late forces less to the left and more upwards, ST and T less to the left."""
    size = heart.size() * rng.uniform(0.2, 1.5)
    heart.qrs.vector_mv[BASAL] *= np.array([1 - 0.35 * size / 1.3, 1.0, 1.0])
    heart.qrs.vector_mv[[BASAL, TERMINAL], 1] -= np.array([0.07, 0.08]) * size
    heart.st.vector_mv += rng.uniform(0, 1) * np.array([-0.06, -0.01, 0.01])
    heart.t.vector_mv *= np.exp(np.array([-0.32, -0.25, -0.02]) * rng.uniform(-0.7, 2.3))


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
