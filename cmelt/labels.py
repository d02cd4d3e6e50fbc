"""Label vocabularies: the codes of a recording in, its classes out. The facts are tables in ``vocab/*.csv``, each with its source.

A task is one label set of protocols.md. Its classes stand in the order of first appearance in its table (superclass: NORM, MI, STTC,
CD, HYP). A recording without a class of the task is left out of that task.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from cmelt.config import did_you_mean
from cmelt.errors import TaskError

Row = dict[str, str]

TASKS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "superclass": ("ptbxl", lambda row: row["superclass"]),
    "subclass": ("ptbxl", lambda row: row["subclass"]),
    "form": ("ptbxl", lambda row: row["code"] if row["form"] else ""),
    "rhythm": ("ptbxl", lambda row: row["code"] if row["rhythm"] else ""),
    "diagnostic": ("ptbxl", lambda row: row["code"] if row["superclass"] else ""),
    "all": ("ptbxl", lambda row: row["code"]),
    "cpsc2018": ("cpsc2018", lambda row: row["class"]),
    "csn": ("csn", lambda row: row["class"]),
    "csn-merl": ("csn", lambda row: row["class"]),
    "cinc2021": ("cinc2021", lambda row: row["class"]),
    "code": ("code", lambda row: row["class"]),
}
"""Task → its table, and the class that a row of the table gives its code ('' = none)."""

TEXTS_OF = {"subclass": "all", "form": "all", "rhythm": "all", "diagnostic": "all", "csn-merl": "csn"}
"""Where a task finds the words for a class that has no row of its own in ``texts.csv``."""


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a task and what each code means in it."""

    name: str
    table: str
    """The table of ``vocab/`` that holds its codes."""
    classes: tuple[str, ...]
    meaning: Mapping[str, frozenset[str]]
    """Code → classes, for every code of the table (an empty set where the task does not use it)."""
    whole: bool = False
    """Whether one unknown code makes the recording's label unknown (csn-merl)."""

    def classes_of(self, codes: Iterable[str]) -> set[str]:
        """Return the classes that a recording with `codes` has; an empty set leaves it out of the task."""
        codes = list(codes)
        if self.whole and self.unknown(codes):
            return set()
        return {name for code in codes for name in self.meaning.get(code, ())}

    def unknown(self, codes: Iterable[str]) -> set[str]:
        """Return the codes that the task's table does not list."""
        return {code for code in codes if code not in self.meaning}

    def targets(self, codes: Sequence[Iterable[str]]) -> NDArray[np.int8]:
        """Return the classes of N recordings as (N, C) zeros and ones, columns in the order of ``classes``."""
        column = {name: i for i, name in enumerate(self.classes)}
        truth = np.zeros((len(codes), len(column)), np.int8)
        for row, of_one in enumerate(codes):
            for name in self.classes_of(of_one):
                truth[row, column[name]] = 1
        return truth

    def describe(self, name: str) -> str:
        """Return the plain name of class `name`."""
        return class_texts(self.name)[name]["name"]


@lru_cache
def load_vocabulary(task: str) -> Vocabulary:
    """Return the vocabulary of `task`; raises TaskError for one that is not in TASKS."""
    if task not in TASKS:
        raise TaskError(f"no task {task!r}{did_you_mean(task, TASKS)}; known: {', '.join(TASKS)}")
    table, class_of = TASKS[task]
    rows = read_table(table)
    first: dict[str, str] = {}  # where a code has several names, its first row wins (CSN)
    for row in rows:
        first.setdefault(row["code"], class_of(row))
    if "class" in rows[0]:  # these data sets are also published with class names in place of codes
        for row in rows:
            first.setdefault(row["class"], first[row["code"]])
    if task == "csn-merl":
        return _merl(rows, first)
    classes = tuple(dict.fromkeys(name for name in first.values() if name))
    return Vocabulary(task, table, classes, {code: frozenset([name] if name else []) for code, name in first.items()})


def _merl(rows: list[Row], acronyms: Mapping[str, str]) -> Vocabulary:
    """Return the label set of MERL's published Chapman files: a column is set where its name is a *substring* of an acronym."""
    columns = {row["class"]: int(row["merl"]) for row in rows if row["merl"]}
    classes = tuple(sorted(columns, key=columns.__getitem__))
    meaning = {code: frozenset(name for name in classes if name in acronym) for code, acronym in acronyms.items()}
    return Vocabulary("csn-merl", "csn", classes, meaning, whole=True)


@lru_cache
def class_texts(task: str) -> dict[str, Row]:
    """Return the words for each class of `task`: class → name, description, reports (wordings parted by ' | ')."""
    own, shared = ({row["class"]: row for row in read_table("texts") if row["task"] == of} for of in (task, TEXTS_OF.get(task)))
    return {name: own.get(name) or shared[name] for name in load_vocabulary(task).classes}


@lru_cache
def class_entities(task: str) -> dict[str, tuple[str, ...]]:
    """Return the findings, by their codes, any of which stands for a class of `task`; a class that none stands for is not among them."""
    own, shared = ({row["class"]: row for row in read_table("findings") if row["task"] == of} for of in (task, TEXTS_OF.get(task)))
    rows = {name: own.get(name) or shared.get(name) for name in load_vocabulary(task).classes}
    return {name: tuple(row["entities"].split("|")) for name, row in rows.items() if row}


def challenge_weights() -> NDArray[np.float64]:
    """Return the credit (26, 26) of CinC 2021 for answering the column's class where the row's is true, in the order of task cinc2021."""
    classes = load_vocabulary("cinc2021").classes
    return np.array([[float(row[name]) for name in classes] for row in read_table("cinc2021_weights")])


def read_table(name: str) -> list[Row]:
    """Return the rows of ``vocab/NAME.csv``; lines that begin with # say where its facts come from."""
    text = files("cmelt").joinpath("vocab", f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
