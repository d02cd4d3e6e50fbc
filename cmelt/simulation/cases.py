"""Who is recorded and what is found: a patient, then a case with rhythm, findings and their severity.

``findings.csv`` holds, for every code, how often it is found among abnormal records (``rate``), at what age and in which share
of men, which group of mutually exclusive findings it belongs to, whether it stays with the patient, and by what factor other
findings make it likelier (``with``). Its numbers are rounded rates counted in PTB-XL's published table.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from cmelt.labels import load_vocabulary

NORMAL_SHARE = 0.44
MIMICS = ("NDT", "NST_", "IMI", "LVH", "IRBBB", "LAFB", "ASMI", "ISCAL", "ABQRS", "LAO/LAE", "STE_", "LVOLT", "LNGQT")
"""What a normal record may hold in a trace: too little to be named, enough to blur the border."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of findings.csv."""

    code: str
    group: str
    rate: float
    normal_rate: float
    age: float
    male: float
    lasting: bool
    least: float
    """The least severity."""
    raised_by: dict[str, float]

    def factor(self, age: float, male: bool, normal: bool) -> float:
        """Return how much likelier the finding is at this age and sex than in all normal, or all abnormal, records."""
        if normal:
            return math.exp(min(max((age - 52.0) * (self.age - 52.0) / 306.0, -3.0), 1.5))
        tilt = math.exp(min(max((age - 66.0) * (self.age - 66.0) / 196.0, -3.0), 1.5))
        return tilt * (self.male / 0.57 if male else (1 - self.male) / 0.43)


@cache
def rows() -> tuple[Row, ...]:
    """Read findings.csv, in the order in which findings are drawn."""
    with (Path(__file__).parent / "findings.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Row(
                code=line["code"],
                group=line["group"],
                rate=float(line["rate"]),
                normal_rate=float(line["normal_rate"]),
                age=float(line["age"]),
                male=float(line["male"]),
                lasting=line["lasting"] == "1",
                least=float(line["least"]),
                raised_by={k: float(v) for k, v in (pair.split("=") for pair in line["with"].split())},
            )
            for line in csv.DictReader(file)
        )


@cache
def chances(age: float, male: bool, normal: bool, lasting: bool) -> tuple[tuple[Row, float], ...]:
    """Return the findings that last, or those that do not, with how often they are seen at this age and sex when found alone."""
    told = ((row, row.normal_rate if normal else row.rate) for row in rows() if row.lasting is lasting)
    return tuple((row, rate * row.factor(age, male, normal)) for row, rate in told if rate)


UNSURE = {"IMI", "ASMI", "AMI", "ALMI", "ILMI", "LMI", "IPMI", "IPLMI", "PMI", "LVH", "ISC_", "ISCAL", "ISCIN", "ISCIL", "RVH", "LAO/LAE"}
"""Named with a likelihood below 100 where they are faint."""
RHYTHMS = {"AFIB", "AFLT", "STACH", "SBRAD", "SARRH", "SVARR", "SVTAC", "PSVT", "PACE"}
EXTRA_BEATS = {"PVC", "PAC", "PRC(S)", "BIGU", "TRIGU"}


OF_P = {"1AVB", "LPR", "2AVB", "3AVB", "LAO/LAE", "RAO/RAE", "PAC"}
EXCLUDED: dict[str, set[str]] = {
    **dict.fromkeys(("AFIB", "AFLT", "SVTAC", "PSVT"), OF_P),
    "LVH": {"LVOLT"},
    "BIGU": {"TRIGU"},
    "3AVB": EXTRA_BEATS,
}
"""What cannot be found beside a finding: without a P wave there is no long PR and no large atrium, nor an early atrial beat."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Who is recorded; several records may be of one patient."""

    age: int
    male: bool
    normal: bool
    lasting: dict[str, float]
    """Code → severity of what stays from record to record."""
    seed: int
    """Of the generator of the patient's body."""


@dataclass(slots=True)
class Case:
    """What one record shows: ``shown`` is in the signal, ``named`` is in its labels with a likelihood; they differ a little."""

    patient: Patient
    rhythm: str = "SR"
    infarct_age: str = "old"
    """Of any infarct: ``acute``, ``recent`` or ``old``."""
    shown: dict[str, float] = field(default_factory=dict)
    """Code → severity in (0, 1], rhythm and extra beats too."""
    named: dict[str, float] = field(default_factory=dict)
    """Code → likelihood in per cent, as PTB-XL's ``scp_codes``."""


def draw_severity(rng: np.random.Generator, least: float) -> float:
    """Draw how marked a finding is, from `least` to 1: a good part is barely visible."""
    return float(least + (1 - least) * rng.beta(1.15, 1.5))


def draw_codes(rng: np.random.Generator, age: float, male: bool, normal: bool, given: dict[str, float], lasting: bool) -> dict[str, float]:
    """Add to the findings `given` those that last, or those that do not; returns code → severity, in the table's order."""
    found = dict(given)
    groups = {row.group for row in rows() if row.code in found and row.group}
    for row, chance in chances(age, male, normal, lasting):
        if row.group in groups:
            continue
        if not normal:
            for code, factor in row.raised_by.items():
                if code in found:
                    chance *= factor
        if rng.random() < min(chance, 0.95):
            found[row.code] = draw_severity(rng, row.least)
            if row.group:
                groups.add(row.group)
    return found


def draw_patient(seed: int, number: int) -> Patient:
    """Draw patient `number` of the simulation `seed`: age, sex, and what stays with them."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, number, 1)))
    normal = rng.random() < NORMAL_SHARE
    male = bool(rng.random() < (0.46 if normal else 0.57))
    age = round(min(max(rng.normal(52, 17.5) if normal else rng.normal(66, 14), 17), 95))
    lasting = draw_codes(rng, age, male, normal, {}, lasting=True)
    return Patient(age, male, normal, lasting, int(rng.integers(2**31)))


def draw_findings(patient: Patient, rng: np.random.Generator) -> dict[str, float]:
    """Draw what one record of `patient` shows, code → severity: what lasts, a little changed, and what comes and goes."""
    start = {code: float(np.clip(s + rng.normal(0, 0.08), 0.03, 1)) for code, s in patient.lasting.items()}
    for _ in range(8):  # an abnormal record without any diagnosis is rare
        found = without_contradictions(draw_codes(rng, patient.age, patient.male, patient.normal, start, lasting=False))
        if patient.normal or found.keys() & diagnoses() or rng.random() < 0.04:
            break
    if "PACE" in found:  # pacing hides the rest
        found = {code: s for code, s in found.items() if code == "PACE" or rng.random() < 0.02}
    return found


def without_contradictions(found: dict[str, float]) -> dict[str, float]:
    """Return the findings less those that another one excludes."""
    return {code: s for code, s in found.items() if not any(code in EXCLUDED.get(other, ()) for other in found)}


def draw_case(patient: Patient, rng: np.random.Generator) -> Case:
    """Draw what a record of `patient` shows and what is said of it."""
    found = draw_findings(patient, rng)
    rhythm = next((code for code in found if code in RHYTHMS), "SR")
    infarct_age = str(rng.choice(["acute", "recent", "old"], p=[0.07, 0.28, 0.65]))
    case = Case(patient, rhythm, infarct_age, shown=dict(found))
    name_findings(case, found, rng)
    return case


def name_findings(case: Case, found: dict[str, float], rng: np.random.Generator) -> None:
    """Fill ``named`` (what the reader noted) and blur ``shown``: traces without a name, names without a trace."""
    if case.patient.normal:
        case.named["NORM"] = float(rng.choice([100.0, 80.0, 50.0], p=[0.76, 0.19, 0.05]))
    for code, severity in found.items():
        if code in UNSURE:
            sure = severity + rng.normal(0, 0.25)
            likelihood = 100.0 if sure > 0.42 else float(rng.choice([15.0, 35.0, 50.0, 80.0], p=[0.42, 0.08, 0.38, 0.12]))
        else:
            likelihood = 100.0 if code in diagnoses() else 0.0
        missed = rng.random() < (0.10 * (1 - severity) if code in RHYTHMS else 0.15 * (1 - severity) ** 2)
        if not missed:
            case.named[code] = likelihood
        if code not in RHYTHMS and rng.random() < 0.05:
            case.shown[code] = 0.03
    if not case.patient.normal and not case.named.keys() & diagnoses() and case.rhythm != "PACE" and rng.random() < 0.7:
        case.named["NORM"] = float(rng.choice([80.0, 50.0, 15.0], p=[0.5, 0.4, 0.1]))  # all was missed
    if case.rhythm == "SR" and rng.random() < 0.96:
        case.named["SR"] = 0.0
    if rng.random() < 0.35:
        mimic = str(rng.choice(MIMICS))
        case.shown.setdefault(mimic, 0.30 * rng.random())
        case.shown = without_contradictions(case.shown)


@cache
def diagnoses() -> frozenset[str]:
    """Return the codes that name a diagnosis, a normal ECG apart, and pacing, which replaces any."""
    return frozenset(load_vocabulary("diagnostic").classes) - {"NORM"} | {"PACE"}
