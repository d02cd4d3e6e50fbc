"""What is said of a record: a report as PTB-XL's machines and readers word it, in German, English or Swedish, often incomplete.

Umlauts come in capitals and sometimes damaged, as they do there. ``phrases.csv`` holds the sentences in the order of a report
(``slot``), variants apart by ``|``; ``walls.csv`` what to fill in for ``{wall}`` and ``{leads}``.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cmelt.simulation.cases import RHYTHMS, Case

LANGUAGES = ("english", "german", "swedish")


@dataclass(frozen=True, slots=True)
class Device:
    """A machine: its name as PTB-XL writes it, how often it meets normal and abnormal records, its language and its habits."""

    name: str
    normal: float
    abnormal: float
    english: float
    swedish: float
    suffix: str = ""
    free: float = 0.0
    """Share of reports in a reader's own words."""
    automatic: float = 0.0
    """Share of reports left as the machine made them."""


UNCONFIRMED = " 4.46                          unbestÄtigter bericht"
DEVICES = (
    Device("CS100    3", 1771, 4369, 0.0, 0.0, UNCONFIRMED, automatic=0.96),
    Device("CS-12", 1655, 2393, 0.0, 0.02, free=0.25),
    Device("AT-6 C 5.5", 1883, 2069, 0.93, 0.07),
    Device("CS-12   E", 2258, 628, 0.0, 0.04, free=0.6),
    Device("AT-6     6", 998, 1275, 0.90, 0.10),
    Device("AT-60    3", 404, 562, 0.0, 0.0, UNCONFIRMED, automatic=0.94),
    Device("AT-6 C 5.8", 337, 487, 0.95, 0.05),
    Device("AT-6 C", 130, 412, 0.92, 0.08),
)


SHAPES = {"QWAVE", "STD_", "LOWT", "INVT", "NT_", "LPR"}
"""Forms that PTB-XL has nearly only from English reports, as it has ABQRS only from the others."""


def draw_device(case: Case, rng: np.random.Generator) -> Device:
    """Draw the machine a record was made with; what is noted of a record depends on it."""
    weights = np.array([d.normal if case.patient.normal else d.abnormal for d in DEVICES], float)
    english = np.array([d.english > 0 for d in DEVICES])
    if "ABQRS" in case.named:
        weights[english] *= 0.05
    if case.named.keys() & SHAPES:
        weights[~english] *= 0.15
    return DEVICES[int(rng.choice(len(DEVICES), p=weights / weights.sum()))]


@cache
def phrases() -> dict[tuple[str, str], list[tuple[int, dict[str, list[str]]]]]:
    """Read phrases.csv: (code, grade) → the places where it can be said, each a slot and variants by language."""
    table: dict[tuple[str, str], list[tuple[int, dict[str, list[str]]]]] = defaultdict(list)
    with (Path(__file__).parent / "phrases.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            variants = {language: line[language].split("|") for language in LANGUAGES if line[language]}
            table[line["code"], line["grade"]].append((int(line["slot"]), variants))
    return dict(table)


@cache
def walls() -> dict[str, dict[str, str]]:
    """Read walls.csv by code."""
    with (Path(__file__).parent / "walls.csv").open(encoding="utf-8", newline="") as file:
        return {r["code"]: r for r in csv.DictReader(file)}


def axis_name(axis_deg: float) -> str:
    """Return PTB-XL's name of a frontal axis, as in its column ``heart_axis``."""
    if -30 <= axis_deg < 30:
        return "LAD"
    if 30 <= axis_deg < 90:
        return "MID"
    if 90 <= axis_deg < 120:
        return "RAD"
    if 120 <= axis_deg <= 180:
        return "ARAD"
    return "ALAD" if axis_deg >= -90 else "AXL"


ASIDES = ("LAO/LAE", "LVOLT", "LNGQT")
"""What machines mention without its being coded."""


def entries(case: Case, axis: str, rate: float, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Return what is to be said, (phrase code, grade, code), before some of it is left out."""
    said: list[tuple[str, str, str]] = []
    named = case.named
    for code, likelihood in named.items():
        if code in ("NORM", "ABQRS"):
            continue
        grade = ""
        name = code
        if code.endswith("MI"):
            name = "*MI"
            grade = "unsure" if likelihood <= 15 else "possible" if likelihood <= 50 else case.infarct_age
        elif code.startswith("INJ"):
            name = "*INJ"
        elif code.startswith("ISC") and code != "ISC_":
            name = "*ISC"
        elif (code, "sure") in phrases():
            grade = "sure" if likelihood > 50 else "possible"
        elif code == "AFIB":
            grade = "fast" if rate > 105 and rng.random() < 0.7 else "slow" if rate < 55 and rng.random() < 0.5 else ""
        said.append((name, grade, code))
    if "LAFB" in named and "CRBBB" in named and rng.random() < 0.6:
        said.append(("bifascicular", "", ""))
    if "ASMI" in named and rng.random() < 0.25:
        said.append(("poor R", "", ""))
    elif rng.random() < 0.015:
        said.append(("early R" if rng.random() < 0.7 else "late R", "", ""))
    if "CLBBB" in named and rng.random() < 0.25:
        said.append(("LVH", "possible", "LVH"))
    for code in ASIDES:
        if code in case.shown and code not in named and rng.random() < 0.5:
            said.append((code, "possible" if (code, "possible") in phrases() else "", code))
    if case.rhythm != "PACE":
        said.append((f"axis:{axis}", "", ""))
    if "NORM" in named:
        plain = not (named.keys() - {"NORM", "SR"})
        grade = "possible" if named["NORM"] <= 50 else "sure" if plain and axis != "LAD" else "otherwise"
        said.append(("normal", grade, ""))
    return said


def write_report(case: Case, device: Device, axis_deg: float, rate: float, rng: np.random.Generator) -> str:
    """Write the report of a case, lower case, one line, in the device's language and habit."""
    u = rng.random()
    language = "english" if u < device.english else "swedish" if u < device.english + device.swedish else "german"
    if language == "english" and rng.random() < 0.05:
        return "trace only requested."
    axis = axis_name(axis_deg)
    free = rng.random() < device.free
    table = phrases()
    parts: dict[int, list[str]] = defaultdict(list)
    rhythm_said = bool(case.named.keys() & RHYTHMS) or "SR" in case.named
    for name, grade, code in entries(case, axis, rate, rng):
        if (name, grade) not in table:
            continue
        places = [(slot, variants[language]) for slot, variants in table[name, grade] if language in variants]
        if not places:
            continue
        slot, options = places[int(rng.integers(len(places)))]
        if slot not in (1, 13) and rng.random() < (0.5 if name.startswith("axis:") and (language != "german" or free) else 0.08):
            continue
        text = options[0] if language == "german" and device.suffix else str(rng.choice(options))
        place = walls().get(code)
        if place:
            text = text.replace("{wall}", place[language]).replace("{leads}", place["leads"])
        parts[slot].append(text)
    if language == "german" and not free:
        word = "abnorm" if device.suffix else "abnormal"
        if 7 in parts:
            parts[7] = [f"qrs(t) {word}   ", "    ".join(parts[7])]
        if 9 in parts:
            parts[9] = [f"st & t {word}, wahrscheinlich   ", "    ".join(parts[9])]
    elif language == "swedish" and 7 in parts:
        parts[7].insert(0, "avvikande qrs(t) fÖrlopp   ")
    if not rhythm_said and not parts:
        parts[13].append({"english": "abnormal ecg.", "german": "pathologisches ekg", "swedish": "patologiskt ekg"}[language])
    if free and "NORM" not in case.named and rng.random() < 0.4:
        parts[13].append("pathologisches ekg")
    text = " ".join(" ".join(parts[slot]) for slot in sorted(parts))
    if language == "english" and rng.random() < 0.12:
        text = text.replace(". ", " ")
    return text + (device.suffix if language == "german" else "")
