"""Entities of a report: the findings that it says to be present, absent or uncertain.

``entities.csv`` says how a finding is worded, ``cues.csv`` how it is denied or hedged. A report is cut into clauses. A cue reaches
forward to the end of its clause ("possible left atrial enlargement"); one that ends its clause, or can only follow ("cannot be
excluded"), reaches back over its clause, or over the clause before where it stands alone ("septal infarct, not excluded"). What a
report says twice is taken at its surest: present before uncertain before absent. What it does not say has no status.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNSAID = -1
"""How `entity_matrix` writes a finding that a report does not speak of."""

SENTENCE = re.compile(r"[.;!?](?!\d)\s*")
CLAUSE = re.compile(r":\s+|,(?!\s*(?:v?\d|(?:i{1,3}|av[lrf])\b|or\b|and\b))\s*|(?<!specific)\s+but\s+")
"""A comma between leads, or before "and" and "or", does not end a clause."""

INFARCT = (
    r"(?:,? (?:and|or|wall|old|new|chronic|recent|acute|subacute|transmural|subendocardial|myocardial|pericardial"
    r"|high|septal|anter\w+|infer\w+|\w*lateral|\w*posterior))* (?:infarct|damage)"
)
"""What stands between the wall and the word, in ``entities.csv``'s patterns ``{infarct}``."""


class Status(IntEnum):
    """What a report says of a finding."""

    ABSENT = 0
    PRESENT = 1
    UNCERTAIN = 2


SUREST = (Status.ABSENT, Status.UNCERTAIN, Status.PRESENT)


class Entity(NamedTuple):
    """A finding: its code (of SCP-ECG where it has one), its words, and PTB-XL's superclass ('' where it is of none)."""

    code: str
    words: str
    superclass: str


class Wording(NamedTuple):
    """One row of ``entities.csv``: a finding's code, the status that the wording has whatever the cues, and its pattern."""

    code: str
    says: Status | None
    pattern: re.Pattern[str]


class Cue(NamedTuple):
    """A cue where it was found: what it reaches ('on', 'back'), what it says (None: the mention does not count), its place."""

    reach: str
    says: Status | None
    start: int
    end: int


def entities(report: str) -> dict[str, Status]:
    """Return the status of each finding that `report`, cleaned by `clean_report`, speaks of, by the finding's code."""
    found: dict[str, Status] = {}
    for sentence in SENTENCE.split(report.lower()):
        for code, status in in_sentence(sentence):
            if code not in found or SUREST.index(status) > SUREST.index(found[code]):
                found[code] = status
    return found


def entity_matrix(reports: Sequence[str]) -> NDArray[np.int8]:
    """Return (N, E) statuses of the findings of `known_entities` in N cleaned reports, `UNSAID` where a report is silent."""
    column = {entity.code: at for at, entity in enumerate(known_entities())}
    different = {report: at for at, report in enumerate(dict.fromkeys(reports))}
    table = np.full((len(different), len(column)), UNSAID, np.int8)
    for report, row in different.items():
        for code, status in entities(report).items():
            table[row, column[code]] = status
    return table[[different[report] for report in reports]]


def entity_shares(reports: Sequence[str], most: int = 10_000) -> NDArray[np.float64]:
    """Return which share (E,) of at most so many of the `reports`, evenly chosen, states or hedges each finding."""
    table = entity_matrix(reports[:: max(1, len(reports) // most)])
    return np.isin(table, (Status.PRESENT, Status.UNCERTAIN)).mean(axis=0)


@cache
def known_entities() -> tuple[Entity, ...]:
    """Return the findings of ``entities.csv`` in its order."""
    return tuple(dict.fromkeys(Entity(row["code"], row["entity"], row["superclass"]) for row in table_rows("entities.csv")))


@lru_cache(65_536)  # 21,837 reports of PTB-XL are made of some 5,000 sentences
def in_sentence(sentence: str) -> tuple[tuple[str, Status], ...]:
    """Return the findings that a sentence mentions, each mention with its status."""
    said: list[tuple[str, Status]] = []
    before: list[tuple[str, Status | None]] = []
    for clause in CLAUSE.split(sentence):
        mentions = [(wording, match) for wording in wordings() for match in wording.pattern.finditer(clause)]
        cues = list(cues_in(clause))
        for cue in cues:  # one that stands at the head of its clause, with nothing of its own, speaks of the clause before
            if cue.reach == "back" and not any(match.start() < cue.start for _, match in mentions):
                before = [(code, cue.says) for code, _ in before]
        said += [(code, status) for code, status in before if status is not None]
        before = []
        for wording, match in mentions:
            before.append((wording.code, status_of(wording, match.start(), match.end(), cues)))
    said += [(code, status) for code, status in before if status is not None]
    return tuple(said)


def status_of(wording: Wording, start: int, end: int, cues: Sequence[Cue]) -> Status | None:
    """Return the status of a mention at `start` to `end` of a clause with `cues`; None where it is no statement of this recording."""
    if wording.says is not None:
        return wording.says
    for cue in cues:
        if cue.reach == "back" and end <= cue.start:
            return cue.says
    says = [cue.says for cue in cues if cue.reach == "on" and (cue.end <= start or (start <= cue.start and cue.end <= end))]
    if None in says:
        return None
    return Status.ABSENT if Status.ABSENT in says else Status.UNCERTAIN if says else Status.PRESENT


def cues_in(clause: str) -> Iterator[Cue]:
    """Yield the cues of a clause; one that may come before or after reaches back where it ends the clause."""
    pattern, meanings = cue_table()
    for match in pattern.finditer(clause):
        reach, says = meanings[(match.lastindex or 1) - 1]
        if reach:
            yield Cue("back" if match.end() == len(clause) else reach, says, match.start(), match.end())


@cache
def wordings() -> tuple[Wording, ...]:
    """Return the rows of ``entities.csv``, compiled."""
    rows = table_rows("entities.csv")
    return tuple(Wording(row["code"], meaning(row["says"]), re.compile(row["pattern"].replace("{infarct}", INFARCT))) for row in rows)


@cache
def cue_table() -> tuple[re.Pattern[str], tuple[tuple[str, Status | None], ...]]:
    """Return one pattern with a group for each row of ``cues.csv``, first row first, and each group's reach and status."""
    rows = list(table_rows("cues.csv"))
    pattern = re.compile(r"\b(?:" + "|".join(f"({row['cue']})" for row in rows) + ")")
    return pattern, tuple((row["reach"], meaning(row["says"])) for row in rows)


def meaning(says: str) -> Status | None:
    """Return the status that a table's word names; None for '' and for a cue that takes the mention out."""
    return Status[says.upper()] if says else None


def table_rows(name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table of this folder."""
    yield from csv.DictReader(io.StringIO((files("cmelt.text") / name).read_text(encoding="utf-8")))
