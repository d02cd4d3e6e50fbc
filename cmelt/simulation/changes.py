"""What each finding does to a heart's waves: infarcts turn forces away, blocks re-aim late forces, chambers grow.

Every function takes the heart (changed in place), a severity in (0, 1] and a generator, and returns nothing. ``CHANGES`` names
them by PTB-XL code. Directions are those of the wall concerned: x left, y down, z back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from cmelt.simulation.heart import (
    ANTERIOR,
    BASAL,
    MAIN,
    P_LEFT,
    P_RIGHT,
    SEPTAL,
    ST_EARLY,
    ST_LATE,
    T_MAIN,
    T_SHOULDER,
    TERMINAL,
    Array,
    Heart,
)

Change = Callable[[Heart, float, np.random.Generator], None]

WALLS: dict[str, tuple[float, float, float]] = {
    "inferior": (0.05, 0.95, 0.15),
    "anteroseptal": (-0.15, 0.00, -1.00),
    "anterior": (0.30, 0.05, -0.95),
    "anterolateral": (0.75, -0.10, -0.65),
    "lateral": (0.95, -0.25, 0.10),
    "inferolateral": (0.65, 0.70, 0.15),
    "posterior": (0.15, 0.10, 1.00),
    "inferoposterior": (0.10, 0.75, 0.70),
    "inferoposterolateral": (0.55, 0.60, 0.60),
    "unspecific": (0.95, 0.30, 0.05),
}
"""From the middle of the heart to each wall."""


LOST: dict[str, float] = {"inferior": 0.70, "anteroseptal": 1.50, "anterior": 1.15}
"""How much of the early forces an infarct of a wall takes, over the others."""

AGES: dict[str, tuple[float, float]] = {"acute": (0.30, 0.15), "recent": (0.10, -0.35), "old": (0.02, -0.08)}
"""Age of an infarct → what it adds to ST and to T towards its wall, in mV, when it is large."""


def wall(name: str, rng: np.random.Generator) -> Array:
    """Return the unit vector to a wall, a little different in every patient."""
    direction = np.array(WALLS[name]) + rng.normal(0, 0.15, 3)
    return np.asarray(direction / np.linalg.norm(direction))


def infarct(name: str, heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Turn early forces away from the dead wall (Q waves, lost R); by age of the infarct raise ST or invert T there."""
    to_wall = wall(name, rng)
    size = heart.size()
    early = (0.15 + 0.72 * severity) * LOST.get(name, 1.0)
    reach = np.zeros(len(heart.qrs.centre_s))
    reach[[SEPTAL, ANTERIOR, MAIN, BASAL]] = 0.45, 0.90, 0.80, 0.25
    along = np.clip(heart.qrs.vector_mv @ to_wall, 0, None)
    lost = reach * early * (0.40 * size + 0.9 * along)
    heart.qrs.vector_mv -= lost[:, None] * to_wall
    st, t = AGES[heart.infarct_age]
    st *= severity * rng.lognormal(0, 0.4)
    t *= (0.3 + 0.7 * severity) * rng.lognormal(0, 0.4)
    heart.st.vector_mv += np.array([[st], [st]]) * to_wall
    heart.t.vector_mv[:2] *= 1 - 0.35 * severity
    heart.t.vector_mv[T_MAIN] += t * to_wall
    heart.t.vector_mv[T_SHOULDER] += 0.5 * t * to_wall


def injury(name: str, heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Push the ST segment away from a wall whose inner layer suffers, with T following."""
    to_wall = wall(name, rng)
    depth = (0.04 + 0.14 * severity) * rng.lognormal(0, 0.3)
    heart.st.vector_mv -= depth * to_wall
    heart.t.vector_mv[T_MAIN] -= 1.2 * depth * to_wall


def ischaemia(name: str, heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Turn T away from a wall and lower its ST segment."""
    to_wall = wall(name, rng)
    depth = (0.02 + 0.09 * severity) * rng.lognormal(0, 0.3)
    turned = (0.14 + 0.30 * severity) * rng.lognormal(0, 0.3)
    heart.st.vector_mv[ST_LATE] -= 1.3 * depth * to_wall
    heart.st.vector_mv[ST_EARLY] -= 1.0 * depth * to_wall
    heart.t.vector_mv[T_MAIN] -= turned * to_wall
    heart.t.vector_mv[T_SHOULDER] -= 0.6 * turned * to_wall


def flat_t(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Lower the T wave everywhere, a little more on the left side."""
    heart.t.vector_mv[:2] *= 1 - (0.25 + 0.55 * severity) * rng.uniform(0.6, 1.1) * np.array([1.0, 0.9, 0.6])
    heart.t.vector_mv[T_MAIN] -= 0.05 * severity * wall("lateral", rng)


def st_down(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Lower the ST segment on the left side, slightly."""
    heart.st.vector_mv -= (0.03 + 0.07 * severity) * wall("unspecific", rng)
    heart.t.vector_mv[T_MAIN] *= 1 - 0.4 * severity


def st_up(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Raise the ST segment in front."""
    heart.st.vector_mv += (0.05 + 0.1 * severity) * wall("anterior", rng)


def digitalis(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Let the ST segment sag like a hammock, flatten T and shorten QT."""
    heart.st.vector_mv[ST_LATE] -= (0.06 + 0.10 * severity) * wall("unspecific", rng)
    heart.st.width_s[ST_LATE] *= 1.2
    heart.t.vector_mv[:2] *= 1 - 0.6 * severity
    heart.qt_stretch *= 1 - 0.10 * severity


def long_qt(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Lengthen QT by 10 to 30 per cent."""
    heart.qt_stretch *= 1.10 + 0.20 * severity


def electrolytes(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Low potassium (flat T, large U, long QT) or, less often, high potassium (narrow tall T)."""
    if rng.random() < 0.7:
        heart.t.vector_mv[:2] *= 1 - 0.7 * severity
        heart.t.vector_mv[2] += 0.10 * severity * wall("anterior", rng)
        heart.qt_stretch *= 1 + 0.12 * severity
    else:
        heart.t.vector_mv[T_MAIN] *= 1.5 + severity
        heart.t.width_s[T_MAIN] *= 0.7


def aneurysm(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Keep ST raised over an old anterior infarct."""
    infarct("anterior", heart, 0.5 + 0.5 * severity, rng)
    heart.st.vector_mv += (0.12 + 0.15 * severity) * wall("anterior", rng)


def discordant(heart: Heart, share: float) -> None:
    """Let ST and T point against the QRS, as after any abnormal spread: `share` of 1 is a full bundle branch block's."""
    area = heart.qrs.area()
    against = -area / (np.linalg.norm(area) + 1e-9)
    size = heart.size()
    keep = 1 - 0.75 * share
    heart.t.vector_mv[:2] *= keep
    heart.st.vector_mv *= keep
    heart.t.vector_mv[T_MAIN] += 0.36 * size * share * against
    heart.t.vector_mv[T_SHOULDER] += 0.22 * size * share * against
    heart.st.vector_mv[ST_LATE] += 0.13 * size * share * against
    heart.st.vector_mv[ST_EARLY] += 0.07 * size * share * against


def left_bundle(complete: bool, heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Reverse the septum, then spread slowly to the left and back, with a notch; ST and T against it."""
    share = 0.75 + 0.25 * severity if complete else 0.25 + 0.3 * severity
    size = heart.size() * rng.lognormal(0, 0.15)
    q = heart.qrs
    left = np.array([[0.15, 0.02, -0.03], [0.33, 0.12, 0.68], [0.40, 0.08, 1.02], [0.58, -0.12, 0.66], [0.40, -0.20, 0.28]]) * 1.6 * size
    slow = np.array([18, 40, 65, 92, 111]) / 1000
    wide = np.array([9, 11, 12, 12, 10]) / 1000
    q.vector_mv[:5] = (1 - share) * q.vector_mv[:5] + share * left
    q.centre_s[:5] = (1 - share) * q.centre_s[:5] + share * slow
    q.width_s[:5] = (1 - share) * q.width_s[:5] + share * wide
    heart.delay_repolarisation(0.045 * share)
    discordant(heart, share)


def right_bundle(complete: bool, heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Add a late slow force to the right and front; with a complete block T turns away from it."""
    right = (np.array([-0.60, 0.00, -0.44]) if complete else np.array([-0.60, -0.08, -0.14])) + rng.normal(0, 0.10, 3)
    q = heart.qrs.vector_mv
    if complete:
        strength = (0.75 + 0.60 * severity) * rng.lognormal(0, 0.2)
        q[BASAL] *= 0.55
        q[BASAL, 2] *= 0.4
        q[TERMINAL] *= 0.15
        heart.qrs.add(0.080, 0.013, strength * right)
        heart.qrs.add(0.105, 0.013, 0.55 * strength * right)
        heart.delay_repolarisation(0.035)
        heart.t.vector_mv[T_MAIN] -= 0.25 * strength * right
        heart.t.vector_mv[T_SHOULDER] -= 0.30 * strength * right
    else:
        strength = 0.40 + 0.55 * severity
        q[BASAL, 2] *= 1 - 0.6 * strength
        q[TERMINAL] *= 1 - 0.8 * strength
        q[MAIN, 2] -= 0.35 * strength * heart.size()
        heart.qrs.add(0.070, 0.009, strength * right * rng.lognormal(0, 0.2))
        heart.t.vector_mv[:2, 2] += 0.06 * severity
        heart.delay_repolarisation(0.008)


def turn_frontal(heart: Heart, target_deg: float, share: float) -> None:
    """Turn the main and late QRS forces in the frontal plane towards an axis."""
    now = heart.axis_deg()
    turn = np.radians(((target_deg - now + 180) % 360 - 180) * share)
    rows = slice(MAIN, None)
    v = heart.qrs.vector_mv[rows].copy()
    heart.qrs.vector_mv[rows, 0] = np.cos(turn) * v[:, 0] - np.sin(turn) * v[:, 1]
    heart.qrs.vector_mv[rows, 1] = np.sin(turn) * v[:, 0] + np.cos(turn) * v[:, 1]


def left_anterior_fascicle(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Aim early forces down, then the rest up and to the left; QRS a little wider."""
    share = 0.55 + 0.45 * severity
    q = heart.qrs.vector_mv
    up = np.array([[-0.02, 0.05, -0.10], [0.25, 0.03, -0.20], [0.56, -0.12, 0.05], [0.02, -0.36, 0.38], [-0.10, -0.30, 0.22]])
    up = up * heart.size() + rng.normal(0, 0.06, (5, 3))
    q[:5] = (1 - share) * q[:5] + share * up
    heart.qrs.centre_s[TERMINAL] += 0.006 * share
    heart.qrs.stretch(1.08)


def left_posterior_fascicle(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Aim early forces up and left, then the rest down and to the right."""
    turn_frontal(heart, rng.normal(108, 8), 0.7 + 0.3 * severity)
    heart.qrs.vector_mv[SEPTAL] += np.array([0.12, -0.08, 0.0])
    heart.qrs.stretch(1.05)


def slow_ventricles(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Widen the QRS complex by a quarter to a half, with a notch."""
    factor = 1.14 + 0.28 * severity
    heart.qrs.stretch(factor)
    heart.qrs.add(rng.uniform(0.05, 0.09), 0.008, rng.normal(0, 0.18, 3))
    heart.delay_repolarisation(0.08 * (factor - 1))
    discordant(heart, 0.25 * severity)


def preexcitation(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Start the QRS early with a slow delta wave from an accessory pathway; short PR, discordant T."""
    pathway = np.array([[0.9, 0.3, -0.4], [0.7, -0.6, -0.5], [0.3, 0.8, 0.6]])[rng.integers(3)]
    early = 0.030 + 0.020 * severity
    heart.qrs.centre_s += early
    heart.qrs.add(early * 0.75, 0.014, (0.25 + 0.30 * severity) * pathway)
    heart.qrs.add(early * 1.35, 0.012, (0.15 + 0.25 * severity) * pathway)
    heart.delay_repolarisation(0.5 * early)
    heart.pr_s = max(heart.pr_s - early - 0.02, 0.085)
    discordant(heart, 0.35 + 0.4 * severity)


def long_pr(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Lengthen PR to 0.20 to 0.32 s."""
    heart.pr_s = 0.212 + 0.12 * severity * rng.uniform(0.6, 1.3)


def left_ventricle(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Let the forces to the left and back grow."""
    q = heart.qrs.vector_mv
    q[[MAIN, BASAL]] *= np.array([1.22 + 0.45 * severity, 1.50 + 0.60 * severity, 1.45 + 0.95 * severity])
    q[MAIN, 1] += 0.15 * heart.size()
    q[BASAL] += np.array([0.25, -0.15, 0.10]) * severity * heart.size()
    q[TERMINAL, 0] += 0.25 * severity
    heart.qrs.stretch(1 + 0.10 * severity)
    strain = (0.2 + 0.8 * severity) * rng.uniform(0.1, 1.2)
    heart.t.vector_mv[:2] += strain * np.array([[-0.18, -0.05, -0.02], [-0.28, -0.08, -0.02]])
    heart.st.vector_mv += strain * np.array([-0.13, -0.05, -0.03])


def high_voltage(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Let the QRS grow, nothing else."""
    heart.qrs.vector_mv[[MAIN, BASAL]] *= 1.15 + 0.35 * severity


def low_voltage(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Shrink the QRS, the limb leads' share of it most."""
    heart.qrs.vector_mv *= np.array([0.55, 0.45, 0.70]) * (1.1 - 0.3 * severity)
    heart.t.vector_mv *= 0.75


def septum(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Let early septal forces grow: deep narrow Q laterally, tall R in V1."""
    heart.qrs.vector_mv[SEPTAL] += np.array([-0.30, 0.05, -0.25]) * (0.5 + severity)
    heart.qrs.width_s[SEPTAL] *= 1.3


def right_ventricle(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Add forces to the right and front, turn the axis right, let T turn away from the right side."""
    turn_frontal(heart, rng.normal(105, 12), 0.5 + 0.5 * severity)
    forward = (0.35 + 0.65 * severity) * heart.size()
    heart.qrs.vector_mv[MAIN] = 0.75 * heart.qrs.vector_mv[MAIN] + forward * np.array([-0.35, 0.05, -0.60])
    heart.qrs.vector_mv[BASAL] += forward * np.array([-0.35, 0.0, -0.55])
    heart.t.vector_mv[T_MAIN] += np.array([0.10, -0.08, 0.25]) * severity


def left_atrium(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Make P long and notched, its end pointing back (negative in V1)."""
    heart.p.centre_s[P_LEFT] += 0.018 + 0.016 * severity
    heart.p.vector_mv[P_LEFT] *= 1.15 + 0.3 * severity
    heart.p.vector_mv[P_LEFT] += np.array([0.01, 0.0, 0.05]) * (0.5 + severity)
    heart.pr_s += 0.015


def right_atrium(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Make P tall below and in front."""
    heart.p.vector_mv[P_RIGHT] += np.array([0.0, 0.12, -0.05]) * (0.5 + severity)


def septal_shift(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Change the QRS in a way that has no name: notches and a turned beginning."""
    heart.qrs.vector_mv[[SEPTAL, ANTERIOR]] += rng.normal(0, 0.10 + 0.08 * severity, (2, 3))
    heart.qrs.add(rng.uniform(0.03, 0.08), 0.006, rng.normal(0, 0.10 + 0.10 * severity, 3))


def q_waves(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Add a small early force away from the inferior or lateral wall."""
    heart.qrs.vector_mv[[SEPTAL, ANTERIOR]] -= (0.10 + 0.12 * severity) * wall("inferior" if rng.random() < 0.7 else "lateral", rng)


def inverted_t(heart: Heart, severity: float, rng: np.random.Generator) -> None:
    """Turn T over on one side of the heart."""
    name = ("lateral", "anterolateral", "inferior", "anterior")[rng.integers(4)]
    heart.t.vector_mv[T_MAIN] -= (0.22 + 0.2 * severity) * wall(name, rng)


CHANGES: dict[str, Change] = {
    "IMI": partial(infarct, "inferior"),
    "ASMI": partial(infarct, "anteroseptal"),
    "AMI": partial(infarct, "anterior"),
    "ALMI": partial(infarct, "anterolateral"),
    "ILMI": partial(infarct, "inferolateral"),
    "LMI": partial(infarct, "lateral"),
    "IPMI": partial(infarct, "inferoposterior"),
    "IPLMI": partial(infarct, "inferoposterolateral"),
    "PMI": partial(infarct, "posterior"),
    "INJAS": partial(injury, "anteroseptal"),
    "INJAL": partial(injury, "anterolateral"),
    "INJIN": partial(injury, "inferior"),
    "INJLA": partial(injury, "lateral"),
    "INJIL": partial(injury, "inferolateral"),
    "ISC_": partial(ischaemia, "unspecific"),
    "ISCAL": partial(ischaemia, "anterolateral"),
    "ISCIN": partial(ischaemia, "inferior"),
    "ISCIL": partial(ischaemia, "inferolateral"),
    "ISCAS": partial(ischaemia, "anteroseptal"),
    "ISCLA": partial(ischaemia, "lateral"),
    "ISCAN": partial(ischaemia, "anterior"),
    "NDT": flat_t,
    "NT_": flat_t,
    "LOWT": flat_t,
    "TAB_": inverted_t,
    "INVT": inverted_t,
    "NST_": st_down,
    "STD_": st_down,
    "STE_": st_up,
    "DIG": digitalis,
    "LNGQT": long_qt,
    "EL": electrolytes,
    "ANEUR": aneurysm,
    "CLBBB": partial(left_bundle, True),
    "ILBBB": partial(left_bundle, False),
    "CRBBB": partial(right_bundle, True),
    "IRBBB": partial(right_bundle, False),
    "LAFB": left_anterior_fascicle,
    "LPFB": left_posterior_fascicle,
    "IVCD": slow_ventricles,
    "WPW": preexcitation,
    "1AVB": long_pr,
    "LPR": long_pr,
    "LVH": left_ventricle,
    "VCLVH": high_voltage,
    "HVOLT": high_voltage,
    "LVOLT": low_voltage,
    "SEHYP": septum,
    "RVH": right_ventricle,
    "LAO/LAE": left_atrium,
    "RAO/RAE": right_atrium,
    "ABQRS": septal_shift,
    "QWAVE": q_waves,
}
"""Code → change; rhythms, extra beats and higher AV blocks are in ``rhythm.py``."""
