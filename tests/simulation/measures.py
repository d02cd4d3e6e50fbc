"""What every finding is measured by, from the signal alone, and how it is told from the same hearts without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks
from scipy.stats import rankdata

from cmelt.record import LEADS
from cmelt.simulation.cases import RHYTHMS, Case, Patient
from cmelt.simulation.trace import FS_HZ, Trace, record

Array = NDArray[np.float64]
ONSET = 150
"""Where in a beat of 400 samples, 0.8 s, the QRS begins."""


def trace(code: str, number: int, severity: float = 0.9, age: int = 60) -> Trace:
    """Record patient `number` without noise, with one finding; NORM = none. The heart beneath is the same for every code."""
    patient = Patient(age, number % 2 == 0, True, {}, 1000 + number)
    case = Case(patient, code if code in RHYTHMS else "SR", shown={} if code == "NORM" else {code: severity})
    return record(case, np.random.default_rng(number), with_noise=False)


@dataclass
class Measured:
    """A recording, what its beats look like and when they come; all found in the signal, nothing taken from the simulator."""

    mv: Array
    """(12, 5000)"""

    @cached_property
    def peaks(self) -> NDArray[np.int64]:
        """Return the sample of every beat's steepest stretch: one every 0.24 s at most, all steeper than a third of the steepest."""
        speed = np.abs(np.diff(self.mv[[0, 1, 6, 7, 8, 9, 10, 11]], axis=1)).sum(axis=0)
        speed = np.convolve(speed, np.ones(20) / 20, "same")
        found, _ = find_peaks(speed, height=0.33 * np.quantile(speed, 0.99), distance=int(0.24 * FS_HZ))
        return found

    @cached_property
    def rr_s(self) -> Array:
        return np.diff(self.peaks) / FS_HZ

    @cached_property
    def onset(self) -> int:
        """Return how many samples before its peak a typical beat begins to be steep."""
        cuts = [self.mv[:, k - 100 : k + 60] for k in self.peaks if k >= 100 and k + 60 <= self.mv.shape[1]]
        speed = np.abs(np.diff(np.median(np.stack(cuts), axis=0), axis=1)).max(axis=0)
        calm = np.flatnonzero(speed[:100] < speed.max() / 15)
        return int(100 - calm[-1]) if len(calm) else 30

    @cached_property
    def cuts(self) -> Array:
        """Return every beat, (beats, 12, 400) mV, from 0.3 s before QRS onset to 0.5 s after it; 0 = the level just before onset."""
        starts = self.peaks - self.onset - ONSET
        cuts = np.stack([self.mv[:, k : k + 400] for k in starts if k >= 0 and k + 400 <= self.mv.shape[1]])
        return np.asarray(cuts - cuts[:, :, 138:146].mean(axis=2, keepdims=True))

    @cached_property
    def beat(self) -> Array:
        """Return the median beat, (12, 400) mV."""
        return np.asarray(np.median(self.cuts, axis=0))

    def lead(self, name: str) -> Array:
        return np.asarray(self.beat[LEADS.index(name)])

    def wave(self, name: str, start: int, stop: int) -> Array:
        """Return a lead of the median beat from `start` to `stop` ms after QRS onset."""
        return self.lead(name)[ONSET + start // 2 : ONSET + stop // 2]


def width_ms(beat: Array) -> float:
    """Return how long the steep part of a beat (12, 400) lasts: any lead steeper than a twelfth of the steepest."""
    speed = np.abs(np.diff(beat, axis=1)).max(axis=0)[130:260]
    steep = np.flatnonzero(speed > speed.max() / 12)
    return float(steep[-1] - steep[0]) * 1000 / FS_HZ


def axis_deg(one: Measured) -> float:
    """Return the frontal axis from the areas of I and aVF."""
    return float(np.degrees(np.arctan2(one.wave("aVF", -10, 130).sum() * 2 / np.sqrt(3), one.wave("I", -10, 130).sum())))


def pr_ms(one: Measured) -> float:
    """Return the time from the top of P, in lead II, to QRS onset."""
    return float(ONSET - 20 - int(one.lead("II")[20:140].argmax())) * 1000 / FS_HZ


def qt_ms(one: Measured) -> float:
    """Return the time from QRS onset to the steepest end of T in lead V4 or II, corrected for rate by Bazett."""
    t = max((one.wave(name, 160, 500) for name in ("II", "V4")), key=np.ptp)
    top = int(np.abs(t - np.median(t)).argmax())
    end = top + int(np.abs(np.diff(t[top:])).argmax()) if top < len(t) - 2 else top
    return float(160 + 2 * end) / float(np.sqrt(np.median(one.rr_s)))


def notches(one: Measured) -> float:
    """Return how often the slope of the QRS turns round, in the mean of the leads."""
    q = one.beat[:, ONSET - 5 : ONSET + 60]
    slope = np.diff(q, axis=1)
    large = np.where(np.abs(slope) > 0.03 * np.ptp(q, axis=1, keepdims=True), np.sign(slope), 0)
    return float(np.mean([(np.diff(row[row != 0]) != 0).sum() for row in large]))


def oddest(one: Measured) -> float:
    """Return how far the beat least like the median beat is from it, over the size of that."""
    return float(np.sqrt(((one.cuts - one.beat) ** 2).mean(axis=(1, 2)).max() / (one.beat**2).mean()))


def lagged(one: Measured, lag: int) -> float:
    """Return how like the RR interval `lag` beats before each RR interval is: 1 for the same, -1 for the opposite."""
    rr = one.rr_s - one.rr_s.mean()
    return float((rr[lag:] * rr[:-lag]).sum() / ((rr**2).sum() + 1e-9)) if len(rr) > lag else 0.0


def spectrum(one: Measured, low_hz: float, high_hz: float) -> float:
    """Return how far the largest line of aVF between two frequencies stands above their median, in decibels."""
    lead = one.mv[LEADS.index("aVF")]
    power = np.abs(np.fft.rfft((lead - lead.mean()) * np.hanning(len(lead)))) ** 2
    hz = np.fft.rfftfreq(len(lead), 1 / FS_HZ)
    band = power[(hz > low_hz) & (hz < high_hz)]
    return float(10 * np.log10(band.max() / np.median(band)))


def restless(one: Measured) -> float:
    """Return the sd of V1, 4 to 10 Hz, between T and the next QRS, over the beats, after their mean is taken away: f waves."""
    lead = one.mv[LEADS.index("V1")]
    pieces = [lead[k - one.onset - 80 : k - one.onset - 6] for k in one.peaks if k - one.onset >= 80]
    calm = np.stack([p - np.polyval(np.polyfit(np.arange(len(p)), p, 1), np.arange(len(p))) for p in pieces])
    return float((calm - np.median(calm, axis=0)).std())


def spikes(one: Measured) -> float:
    """Return the largest single sample in II that stands out from both its neighbours, in mV."""
    lead = one.mv[LEADS.index("II")]
    return float(np.abs(lead[1:-1] - (lead[:-2] + lead[2:]) / 2).max())


MEASURES: dict[str, Callable[[Measured], float]] = {
    "rate, per min": lambda m: 60 / float(np.median(m.rr_s)),
    "mean rate, per min": lambda m: 60 / float(np.mean(m.rr_s)),
    "RR sd / mean": lambda m: float(m.rr_s.std() / m.rr_s.mean()),
    "RR longest / median": lambda m: float(m.rr_s.max() / np.median(m.rr_s)),
    "RR shortest / median": lambda m: float(m.rr_s.min() / np.median(m.rr_s)),
    "RR shortest, s": lambda m: float(m.rr_s.min()),
    "RR against the one before": lambda m: lagged(m, 1),
    "RR against the third before": lambda m: lagged(m, 3),
    "oddest beat": oddest,
    "spike, mV": spikes,
    "flutter line, dB": lambda m: spectrum(m, 3.5, 6),
    "f waves, mV": restless,
    "P in the mean beat, mV": lambda m: float(np.ptp(m.lead("II")[40:140])),
    "PR from the top of P, ms": pr_ms,
    "QRS, ms": lambda m: width_ms(m.beat),
    "QTc, ms": qt_ms,
    "axis, degrees": axis_deg,
    "notches": notches,
    "Sokolow-Lyon, mV": lambda m: float(-m.wave("V1", 0, 120).min() + max(m.wave("V5", 0, 120).max(), m.wave("V6", 0, 120).max())),
    "limb leads, mV": lambda m: float(np.ptp(m.beat[:6, ONSET - 5 : ONSET + 65], axis=1).max()),
    "terminal V1, mV": lambda m: float(m.wave("V1", 60, 130).max()),
    "terminal I, mV": lambda m: float(m.wave("I", 60, 130).min()),
    "area V1": lambda m: float(m.wave("V1", -10, 140).mean()),
    "R V1, mV": lambda m: float(m.wave("V1", 0, 90).max()),
    "R V2, mV": lambda m: float(m.wave("V2", 0, 40).max()),
    "R V3, mV": lambda m: float(m.wave("V3", 0, 60).max()),
    "R V5, mV": lambda m: float(m.wave("V5", 0, 70).max()),
    "R aVL, mV": lambda m: float(m.wave("aVL", 0, 120).max()),
    "Q aVF, mV": lambda m: float(m.wave("aVF", 0, 44).min()),
    "Q I, mV": lambda m: float(m.wave("I", 0, 40).min()),
    "Q aVF or I, mV": lambda m: float(min(m.wave("aVF", 0, 30).min(), m.wave("I", 0, 30).min())),
    **{f"ST {name}, mV": lambda m, name=name: float(m.wave(name, 120, 150).mean()) for name in ("V2", "V3", "V5", "aVF", "aVL")},  # type: ignore[misc]
    **{f"late ST {name}, mV": lambda m, name=name: float(m.wave(name, 150, 200).mean()) for name in ("V5",)},  # type: ignore[misc]
    **{f"T {name}, mV": lambda m, name=name: float(m.wave(name, 240, 380).mean()) for name in ("V2", "V3", "V5", "V6", "aVF", "aVL")},  # type: ignore[misc]
    "size of T V3, mV": lambda m: float(np.ptp(m.wave("V3", 170, 420))),
    "lowest T, mV": lambda m: float(min(m.wave(name, 240, 380).min() for name in ("I", "II", "aVF", "V3", "V4", "V5", "V6"))),
    "P V1, mV": lambda m: float(m.lead("V1")[100:140].min()),
    "P II, mV": lambda m: float(m.lead("II")[40:140].max()),
}

FINDINGS: dict[str, tuple[str, int]] = {
    "STACH": ("rate, per min", 1),
    "SBRAD": ("rate, per min", -1),
    "SARRH": ("RR sd / mean", 1),
    "SVARR": ("RR sd / mean", 1),
    "SVTAC": ("rate, per min", 1),
    "PSVT": ("RR shortest, s", -1),
    "AFIB": ("RR sd / mean", 1),
    "AFLT": ("flutter line, dB", 1),
    "PACE": ("spike, mV", 1),
    "PVC": ("oddest beat", 1),
    "PRC(S)": ("oddest beat", 1),
    "PAC": ("RR shortest / median", -1),
    "BIGU": ("RR against the one before", -1),
    "TRIGU": ("RR against the third before", 1),
    "1AVB": ("PR from the top of P, ms", 1),
    "LPR": ("PR from the top of P, ms", 1),
    "2AVB": ("RR longest / median", 1),
    "3AVB": ("mean rate, per min", -1),
    "WPW": ("PR from the top of P, ms", -1),
    "CLBBB": ("QRS, ms", 1),
    "ILBBB": ("QRS, ms", 1),
    "CRBBB": ("terminal V1, mV", 1),
    "IRBBB": ("terminal V1, mV", 1),
    "IVCD": ("QRS, ms", 1),
    "LAFB": ("axis, degrees", -1),
    "LPFB": ("axis, degrees", 1),
    "IMI": ("Q aVF, mV", -1),
    "ILMI": ("Q aVF, mV", -1),
    "IPMI": ("Q aVF, mV", -1),
    "IPLMI": ("Q aVF, mV", -1),
    "PMI": ("R V1, mV", 1),
    "ASMI": ("R V2, mV", -1),
    "AMI": ("R V3, mV", -1),
    "ALMI": ("R V5, mV", -1),
    "LMI": ("Q I, mV", -1),
    "ANEUR": ("ST V3, mV", 1),
    "INJAS": ("ST V2, mV", -1),
    "INJAL": ("ST V5, mV", -1),
    "INJIN": ("ST aVF, mV", -1),
    "INJLA": ("ST aVL, mV", -1),
    "INJIL": ("ST aVF, mV", -1),
    "ISC_": ("T V6, mV", -1),
    "ISCAL": ("T V5, mV", -1),
    "ISCAS": ("T V2, mV", -1),
    "ISCAN": ("T V3, mV", -1),
    "ISCLA": ("T aVL, mV", -1),
    "ISCIN": ("T aVF, mV", -1),
    "ISCIL": ("T aVF, mV", -1),
    "NDT": ("T V5, mV", -1),
    "NT_": ("T V5, mV", -1),
    "LOWT": ("T V5, mV", -1),
    "TAB_": ("lowest T, mV", -1),
    "INVT": ("lowest T, mV", -1),
    "NST_": ("ST V5, mV", -1),
    "STD_": ("ST V5, mV", -1),
    "STE_": ("ST V3, mV", 1),
    "DIG": ("late ST V5, mV", -1),
    "LNGQT": ("QTc, ms", 1),
    "EL": ("size of T V3, mV", -1),
    "LVH": ("Sokolow-Lyon, mV", 1),
    "VCLVH": ("Sokolow-Lyon, mV", 1),
    "HVOLT": ("Sokolow-Lyon, mV", 1),
    "LVOLT": ("limb leads, mV", -1),
    "SEHYP": ("R V1, mV", 1),
    "RVH": ("R V1, mV", 1),
    "LAO/LAE": ("P V1, mV", -1),
    "RAO/RAE": ("P II, mV", 1),
    "QWAVE": ("Q aVF or I, mV", -1),
    "ABQRS": ("notches", 1),
}
"""Code → what it is told by, and whether that rises or falls."""

ALSO: tuple[tuple[str, str, int], ...] = (
    ("AFIB", "P in the mean beat, mV", -1),
    ("AFIB", "f waves, mV", 1),
    ("CLBBB", "area V1", -1),
    ("CRBBB", "QRS, ms", 1),
    ("WPW", "QRS, ms", 1),
    ("LAFB", "R aVL, mV", 1),
    ("LVH", "T V6, mV", -1),
    ("RVH", "axis, degrees", 1),
)
"""What else some are told by."""


@lru_cache(maxsize=4096)
def measured(code: str, number: int, severity: float = 0.9) -> Measured:
    """Return what can be measured on a record of `trace`."""
    return Measured(trace(code, number, severity).uv / 1000)


def values(code: str, measure: str, patients: int, severity: float = 0.9) -> Array:
    """Return a measure of the first `patients` patients with a finding, or without any (NORM)."""
    return np.array([MEASURES[measure](measured(code, n, severity)) for n in range(patients)])


def auc(found: Array, without: Array) -> float:
    """Return the share of pairs in which the one with the finding is larger."""
    ranks = rankdata(np.concatenate([found, without]))
    return float((ranks[: len(found)].sum() - len(found) * (len(found) + 1) / 2) / (len(found) * len(without)))
