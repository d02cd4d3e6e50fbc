"""The heart as a moving dipole: a sum of Gaussian pulses in time, each with a direction in space, seen by the lead vectors.

Axes: x to the patient's left, y down, z to the back; millivolt, seconds. A ventricular time of 0 is the onset of the QRS
complex, an atrial one the onset of the P wave. The normal heart's pulses follow the mean loop of healthy adults (QRS 90 ms,
axis near 45 degrees, largest T in V2 to V4); what findings do to them stands in ``changes.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIMBS: Array = np.array([[0.632, -0.235, 0.059], [0.235, 1.066, -0.132]])
"""What leads I and II see of a dipole (x, y, z), by the inverse Dower matrix; the other four limb leads follow from them."""

CHEST_OF_P: Array = np.array(
    [[-0.30, 0.20, -1.00], [0.044, 0.164, -1.387], [0.15, 0.40, -0.75], [0.20, 0.42, -0.35], [0.25, 0.37, -0.10], [0.27, 0.30, 0.00]]
)
CHEST_OF_QRS: Array = np.array(
    [[-0.40, 0.10, -0.62], [0.044, 0.164, -1.387], [0.36, 1.00, -1.30], [0.62, 1.20, -0.75], [0.80, 0.75, -0.15], [0.63, 0.48, 0.08]]
)
CHEST_OF_T: Array = np.array(
    [[-0.36, 0.16, -0.57], [0.044, 0.164, -1.387], [0.28, 0.55, -1.05], [0.45, 0.70, -0.48], [0.65, 0.35, -0.10], [0.58, 0.28, 0.08]]
)
"""What V1 ... V6 see of each wave. V2's row is the inverse Dower matrix's; its others would be (-0.515, 0.157, -0.917), (0.882, 0.098,
-1.277), (1.213, 0.127, -0.601), (1.125, 0.127, -0.086), (0.831, 0.076, 0.230). But clinical chest electrodes lie lower and nearer than
on the matrix's torso: V3 to V6 see more of y and less of x, and the atria, being far from them, show less. So those rows are the
regression of V1 and V3 ... V6 on the dipole that I, II and V2 give, over real recordings, rounded."""

P_RIGHT, P_LEFT, P_REPOLARISATION = 0, 1, 2
SEPTAL, ANTERIOR, MAIN, BASAL, TERMINAL = 0, 1, 2, 3, 4
ST_EARLY, ST_LATE = 0, 1
T_SHOULDER, T_MAIN, U_WAVE = 0, 1, 2


@dataclass(slots=True)
class Pulses:
    """Gaussian pulses: ``centre_s`` (n,), ``width_s`` (n,) (standard deviations), ``vector_mv`` (n, 3)."""

    centre_s: Array
    width_s: Array
    vector_mv: Array

    @classmethod
    def of(cls, *rows: tuple[float, float, float, float, float]) -> Pulses:
        """Make pulses of rows (centre in ms, width in ms, x, y, z in mV)."""
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)
        return cls(table[:, 0] / 1000, table[:, 1] / 1000, table[:, 2:].copy())

    def copy(self) -> Pulses:
        return Pulses(self.centre_s.copy(), self.width_s.copy(), self.vector_mv.copy())

    def add(self, centre_s: float, width_s: float, vector_mv: Array) -> None:
        """Append one pulse."""
        self.centre_s = np.append(self.centre_s, centre_s)
        self.width_s = np.append(self.width_s, width_s)
        self.vector_mv = np.vstack([self.vector_mv, vector_mv])

    def area(self) -> Array:
        """Return the time integral of the vector, (3,), in mV s."""
        return (self.vector_mv * self.width_s[:, None]).sum(0) * np.sqrt(2 * np.pi)

    def stretch(self, factor: float) -> None:
        """Slow the pulses down: times and widths grow by `factor`."""
        self.centre_s *= factor
        self.width_s *= factor


@dataclass(slots=True)
class Heart:
    """One heart's waves; findings change them in place before they are rendered."""

    p: Pulses = field(
        default_factory=lambda: Pulses.of((40, 17, 0.095, 0.058, -0.016), (72, 18, 0.118, 0.050, 0.002), (150, 40, -0.010, -0.010, 0.004))
    )
    qrs: Pulses = field(
        default_factory=lambda: Pulses.of(
            (11, 4.5, -0.06, -0.04, -0.24),
            (20, 5.5, 0.20, 0.02, -0.30),
            (33, 7.0, 1.24, 0.54, 0.38),
            (44, 7.0, 0.60, 0.38, 0.82),
            (56, 7.0, -0.10, 0.05, 0.54),
        )
    )
    st: Pulses = field(default_factory=lambda: Pulses.of((100, 22, 0.010, 0.000, -0.045), (155, 36, 0.040, 0.005, -0.060)))
    t: Pulses = field(
        default_factory=lambda: Pulses.of((255, 42, 0.15, 0.025, -0.165), (312, 37, 0.36, 0.122, -0.180), (490, 35, 0.006, 0.008, -0.012))
    )
    pr_s: float = 0.155
    """From the onset of P to the onset of QRS."""
    qt_stretch: float = 1.0
    """QT over what the rate calls for."""
    infarct_age: str = "old"
    """Of any infarct: ``acute``, ``recent`` or ``old``."""

    def size(self) -> float:
        """Return the length of the largest QRS pulse, in mV: the scale for what findings add."""
        return float(np.sqrt((self.qrs.vector_mv**2).sum(1)).max())

    def delay_repolarisation(self, by_s: float) -> None:
        """Move ST and T later, as after a slower QRS."""
        self.st.centre_s += by_s
        self.t.centre_s += by_s

    def axis_deg(self) -> float:
        """Return the frontal QRS axis in degrees: 0 to the left, 90 down."""
        area = LIMBS @ self.qrs.area()
        return float(np.degrees(np.arctan2((2 * area[1] - area[0]) / np.sqrt(3), area[0])))

    def rotate(self, rotation: Array) -> None:
        """Turn every wave by a rotation matrix."""
        for pulses in (self.p, self.qrs, self.st, self.t):
            pulses.vector_mv = pulses.vector_mv @ rotation.T


def rotation(x_deg: float, y_deg: float, z_deg: float) -> Array:
    """Return the rotation matrix about the three axes; a positive z turns the heart's axis downwards (to the right)."""
    a, b, c = np.radians([x_deg, y_deg, z_deg])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def lead_amplitudes(pulses: Pulses, leads: Array, bend: Array) -> Array:
    """Return what each of the eight leads (8, 3) sees of each pulse, (n, 8) mV.

    `bend` (8, 3) is how much the chest leads differ from a dipole's view; it changes with the pulse's own time, so that every
    part of the beat is seen a little differently.
    """
    phase = np.cos(pulses.centre_s * 60.0)[:, None]
    return pulses.vector_mv @ leads.T + phase * (pulses.vector_mv @ bend.T)
