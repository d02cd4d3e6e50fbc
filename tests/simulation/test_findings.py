"""Every finding can be measured back from clean signals: intervals, axis, Q and R waves, ST, T, rate and rhythm."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmelt.labels import load_vocabulary
from cmelt.record import LEADS
from cmelt.simulation.cases import EXTRA_BEATS, RHYTHMS, Case, Patient, rows
from cmelt.simulation.changes import CHANGES
from cmelt.simulation.trace import FS_HZ, Trace, decimate, record

PATIENTS = 12


def trace(code: str, number: int, severity: float = 0.9, age: int = 60) -> Trace:
    """Record patient `number` without noise, with one finding; NORM = none. The heart beneath is the same for every code."""
    patient = Patient(age, number % 2 == 0, True, {}, 1000 + number)
    case = Case(patient, code if code in RHYTHMS else "SR", shown={} if code == "NORM" else {code: severity})
    return record(case, np.random.default_rng(number), with_noise=False)


def lead(beat: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    return beat[LEADS.index(name)]


def mean_beat(one: Trace) -> NDArray[np.float64]:
    """Return the median beat (12, 400) in mV, from 0.3 s before QRS onset to 0.5 s after it; 0 = the level just before onset."""
    onsets = np.rint(one.events.qrs_s * FS_HZ).astype(int)
    cuts = [one.uv[:, k - 150 : k + 250] for k in onsets if k >= 150 and k + 250 <= one.uv.shape[1]]
    beat = np.median(np.stack(cuts), axis=0) / 1000
    return beat - beat[:, 138:146].mean(axis=1, keepdims=True)


def qrs_ms(beat: NDArray[np.float64]) -> float:
    """Return how long the steep part of a beat lasts: any lead steeper than a twelfth of the steepest."""
    speed = np.abs(np.diff(beat, axis=1)).max(axis=0)[130:260]
    steep = np.flatnonzero(speed > speed.max() / 12)
    return float(steep[-1] - steep[0]) * 1000 / FS_HZ


def axis_deg(beat: NDArray[np.float64]) -> float:
    """Return the frontal axis from the areas of I and aVF."""
    area = beat[:, 145:215].sum(axis=1)
    return float(np.degrees(np.arctan2(lead(area, "aVF") * 2 / np.sqrt(3), lead(area, "I"))))


def pr_ms(beat: NDArray[np.float64]) -> float:
    """Return the time from the top of P, in lead II, to QRS onset."""
    return (150 - int(lead(beat, "II")[20:140].argmax() + 20)) * 1000 / FS_HZ


MEASURES = {
    "qrs": qrs_ms,
    "axis": axis_deg,
    "pr": pr_ms,
    "sokolow": lambda b: -lead(b, "V1")[150:210].min() + lead(b, "V5")[150:210].max(),
    "terminal V1": lambda b: lead(b, "V1")[180:215].max(),
    "terminal I": lambda b: lead(b, "I")[180:215].min(),
    "area V1": lambda b: lead(b, "V1")[145:220].mean(),
    "q aVF": lambda b: lead(b, "aVF")[150:172].min(),
    "r V2": lambda b: lead(b, "V2")[150:170].max(),
    "r aVL": lambda b: lead(b, "aVL")[150:210].max(),
    "limb": lambda b: np.ptp(b[:6, 145:215], axis=1).max(),
    "st V5": lambda b: lead(b, "V5")[210:222].mean(),
    "st V3": lambda b: lead(b, "V3")[210:222].mean(),
    "t V5": lambda b: lead(b, "V5")[270:340].mean(),
    "t aVF": lambda b: lead(b, "aVF")[270:340].mean(),
    "t end": lambda b: np.average(np.arange(230, 390), weights=np.abs(lead(b, "V4")[230:390] - lead(b, "V4")[395])),
    "p II": lambda b: lead(b, "II")[40:140].max(),
    "p V1": lambda b: lead(b, "V1")[100:140].min(),
}


@pytest.mark.parametrize(
    ("code", "measure", "low", "high", "change"),
    [
        ("NORM", "qrs", 60, 110, 0),
        ("NORM", "pr", 80, 150, 0),
        ("1AVB", "pr", 160, 260, 50),
        ("CLBBB", "qrs", 110, 175, 35),
        ("CLBBB", "area V1", -2, -0.2, -0.2),
        ("CLBBB", "t V5", -1, 0, -0.2),
        ("CRBBB", "qrs", 105, 170, 30),
        ("CRBBB", "terminal V1", 0.2, 2, 0.2),
        ("CRBBB", "terminal I", -1, -0.1, -0.1),
        ("IRBBB", "qrs", 70, 120, 2),
        ("IVCD", "qrs", 95, 170, 18),
        ("LAFB", "axis", -90, -30, -40),
        ("LAFB", "r aVL", 0.2, 2, 0.05),
        ("LPFB", "axis", 75, 150, 25),
        ("WPW", "pr", 30, 100, -20),
        ("WPW", "qrs", 85, 160, 10),
        ("IMI", "q aVF", -1, -0.1, -0.15),
        ("ASMI", "r V2", -0.2, 0.25, -0.2),
        ("LVH", "sokolow", 2.8, 7, 0.8),
        ("LVOLT", "limb", 0, 0.8, -0.3),
        ("ISCAL", "t V5", -1, 0.1, -0.12),
        ("ISCIN", "t aVF", -1, 0.05, -0.1),
        ("INJAL", "st V5", -0.6, -0.05, -0.05),
        ("STD_", "st V5", -0.5, -0.02, -0.04),
        ("STE_", "st V3", 0.1, 1, 0.08),
        ("NDT", "t V5", -0.2, 0.12, -0.07),
        ("LNGQT", "t end", 250, 400, 15),
        ("LAO/LAE", "p V1", -0.5, -0.05, -0.03),
        ("RAO/RAE", "p II", 0.2, 0.6, 0.08),
    ],
)
def test_a_finding_is_measured_back(code: str, measure: str, low: float, high: float, change: float) -> None:
    found = np.array([MEASURES[measure](mean_beat(trace(code, n))) for n in range(PATIENTS)])
    without = np.array([MEASURES[measure](mean_beat(trace("NORM", n))) for n in range(PATIENTS)])
    assert low <= np.median(found) <= high
    if change:
        assert np.sign(change) * np.median(found - without) >= abs(change)


def test_severity_is_graded_down_to_barely_visible() -> None:
    def strength(severity: float) -> float:
        return float(np.median([MEASURES["q aVF"](mean_beat(trace("IMI", n, severity))) for n in range(PATIENTS)]))

    none, faint, half, full = (float(strength(s)) for s in (0.0, 0.1, 0.5, 1.0))
    assert full < half < faint <= none + 0.02
    assert none - faint < 0.35 * (none - full)


@pytest.mark.parametrize(
    ("rhythm", "rate", "spread"),
    [
        ("SR", (50, 100), (0.005, 0.10)),
        ("STACH", (100, 180), (0.0, 0.05)),
        ("SBRAD", (34, 60), (0.005, 0.15)),
        ("SARRH", (45, 100), (0.04, 0.25)),
        ("AFIB", (40, 180), (0.06, 0.40)),
        ("SVTAC", (110, 220), (0.0, 0.02)),
        ("PACE", (50, 100), (0.0, 0.01)),
    ],
)
def test_rate_and_regularity(rhythm: str, rate: tuple[float, float], spread: tuple[float, float]) -> None:
    for number in range(PATIENTS):
        rr = np.diff(trace(rhythm, number).events.qrs_s)
        assert rate[0] * 0.97 <= 60 / rr.mean() <= rate[1] * 1.03
        assert spread[0] <= rr.std() / rr.mean() <= spread[1]


def test_fibrillation_has_no_p_and_flutter_has_its_own_frequency() -> None:
    for number in range(4):
        assert len(trace("AFIB", number).events.p_s) == 0
        one = trace("AFLT", number)
        power = np.abs(np.fft.rfft(one.uv[LEADS.index("aVF")] * np.hanning(one.uv.shape[1]))) ** 2
        hz = np.fft.rfftfreq(one.uv.shape[1], 1 / FS_HZ)
        band = (hz > 3.5) & (hz < 6)
        near = np.abs(hz - one.events.atrial_hz) < 0.25
        assert power[near].max() > 15 * np.median(power[band])


def test_ventricular_extra_beats_are_early_wide_and_followed_by_a_pause() -> None:
    seen = 0
    for number in range(PATIENTS):
        one = trace("PVC", number)
        for k in np.flatnonzero(one.events.kind[1:-1]) + 1:
            at = round(one.events.qrs_s[k] * FS_HZ)
            if at < 150 or at + 250 > one.uv.shape[1]:
                continue
            before, after = one.events.qrs_s[k] - one.events.qrs_s[k - 1], one.events.qrs_s[k + 1] - one.events.qrs_s[k]
            assert before < 0.9 * after
            assert qrs_ms(one.uv[:, at - 150 : at + 250] / 1000) > 105
            seen += 1
    assert seen >= 6


def test_third_degree_block_parts_atria_from_ventricles() -> None:
    events = trace("3AVB", 1).events
    assert 60 / np.diff(events.qrs_s).mean() < 50 < 60 / np.diff(events.p_s).mean()


def test_limb_leads_keep_their_relations_to_the_last_bit() -> None:
    one = trace("NORM", 0)
    for uv in (one.uv.astype(int), decimate(one.uv).astype(int)):
        i, ii, iii, avr, avl, avf = uv[:6]
        assert (iii == ii - i).all()
        for derived, exact in ((avr, -(i + ii) / 2), (avl, i - ii / 2), (avf, ii - i / 2)):
            assert np.abs(derived - exact).max() <= 0.5


def test_the_slow_version_lets_nothing_alias() -> None:
    time = np.arange(5000) / FS_HZ
    for hz, kept in ((5, 1.0), (30, 1.0), (60, 0.0), (90, 0.0), (110, 0.0)):
        wave = np.tile((10_000 * np.sin(2 * np.pi * hz * time)).astype(np.int16), (12, 1))
        slow = decimate(wave)[1, 50:-50] / 10_000
        assert abs(np.sqrt(2) * slow.std() - kept) < 0.005


def test_every_code_of_the_vocabulary_can_be_simulated() -> None:
    drawn = {row.code for row in rows()}
    assert drawn | {"NORM", "SR"} == set(load_vocabulary("all").classes)
    assert drawn <= CHANGES.keys() | RHYTHMS | EXTRA_BEATS | {"2AVB", "3AVB"}
