"""Where a recording was first published, told from its folder and its name: the same recordings travel in several data sets."""

from __future__ import annotations

import re

DATABASES: dict[str, tuple[str, int]] = {
    "cpsc_2018": ("A", 6877),
    "cpsc_2018_extra": ("Q", 3453),
    "st_petersburg_incart": ("I", 74),
    "ptb": ("S", 516),
    "ptb-xl": ("HR", 21837),
    "georgia": ("E", 10344),
    "chapman_shaoxing": ("JS", 10247),
    "ningbo": ("JS", 34905),
}
"""The databases of the PhysioNet/CinC Challenge 2021: how their records' names begin, and how many there are."""

NAME = re.compile(r"(A|Q|I|S|HR|E|JS)(\d{4,5})", re.ASCII)
LAST_OF_CHAPMAN = 10646
"""Chapman-Shaoxing and Ningbo share a prefix; Ningbo's numbers begin after this one."""

PTBXL_NAME = re.compile(r"(\d{5})_[hl]r", re.ASCII)
FIRST_PUBLISHED = {"A": "cpsc2018", "HR": "ptbxl", "JS": "csn", "S": "ptb", "Q": "cpsc2018-extra", "E": "georgia", "I": "incart"}

TRAVELLING = ("ptbxl", "cinc2021", "cpsc2018", "csn", "wfdb")
"""Data sets whose records' names may tell where they were first published."""


def database_of(path: str) -> str:
    """Return the CinC database of a record by a folder on its path, else by its name; '' where neither tells."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if folder in DATABASES:
            return folder
    match = NAME.fullmatch(name.partition(".")[0])
    if not match:
        return ""
    prefix, number = match.groups()
    if prefix == "JS":
        return "chapman_shaoxing" if int(number) <= LAST_OF_CHAPMAN else "ningbo"
    return next(database for database, (of, _) in DATABASES.items() if of == prefix)


def recording_of(key: str, dataset: str) -> str:
    """Return the name by which recording `key` of `dataset` is known wherever it is published ('ptbxl/7'), '' where that is unknown."""
    if dataset == "ptbxl":
        match = PTBXL_NAME.match(key)
        return f"ptbxl/{int(match.group(1))}" if match else ""
    if dataset not in TRAVELLING:
        return ""
    match = NAME.match(key)
    if not match or ((tail := key[match.end() :]) and not tail.startswith("_")):
        return ""
    prefix, number = match.groups()
    return f"{FIRST_PUBLISHED[prefix]}/{int(number)}"
