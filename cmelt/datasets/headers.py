"""Folders of WFDB records: which recordings lie there, and what their headers say besides the signal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from cmelt.datasets.base import key_of
from cmelt.errors import InputError
from cmelt.labels import read_table
from cmelt.raw import Raw, is_inside
from cmelt.record import Refused

HEADER_LIMIT = 1 << 20
"""No header is longer."""


@dataclass(frozen=True, slots=True)
class About:
    """What a header says: the files that its recording needs beside it, whether they are segments, and about the patient."""

    files: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    age: float | None = None
    sex: str = ""
    codes: tuple[str, ...] = ()
    patient: str = ""
    report: str = ""
    device: str = ""


def read_about(text: str) -> About:
    """Return what the text of a header says; whatever cannot be understood is left out, for the decoder to refuse."""
    lines: list[str] = []
    age, sex, codes = None, "", dict[str, None]()
    for raw_line in text.splitlines():
        line = raw_line.strip()
        if not line.startswith("#"):
            lines += [line] if line else []
            continue
        name, _, value = line.lstrip("# \t").partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "age":
            age = parse_age(value)
        elif name == "sex":
            sex = parse_sex(value)
        elif name == "dx":
            codes |= dict.fromkeys(code for part in value.split(",") if (code := part.strip()) and code.lower() != "unknown")
    first = [line.split()[0] for line in lines[1:]]
    segmented = bool(lines) and "/" in lines[0].split()[0]
    segments = tuple(dict.fromkeys(name for name in first if name != "~")) if segmented else ()
    files = () if segmented else tuple(dict.fromkeys(name for name in first if name != "~"))
    return About(files, segments, age, sex, tuple(codes))


def parse_age(text: str) -> float | None:
    """Return an age in years, None where it is not one."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if math.isfinite(age) and 0 <= age <= 300 else None


def parse_sex(text: str) -> str:
    """Return male, female or ''."""
    return {"male": "male", "m": "male", "female": "female", "f": "female"}.get(text.strip().lower(), "")


def recordings(raw: Raw, *signals: str) -> Iterator[tuple[str, About] | Refused]:
    """Yield the header's path and what it says for every recording of `raw`, in the order of its files.

    Recordings are the headers found, the names in ``RECORDS`` files, and files that end in one of `signals` without a header;
    headers of segments are no recordings of their own. What lacks a file is Refused.
    """
    found = dict.fromkeys(raw.files(".hea"))
    about = {path: read_about(raw.read(path, HEADER_LIMIT).decode("utf-8", "replace")) for path in found}
    segments = {folder_of(path) + name + ".hea" for path, of in about.items() for name in of.segments}
    for path, of in about.items():
        if path in segments:
            continue
        beside = [folder_of(path) + name for name in (*of.files, *(f"{segment}.hea" for segment in of.segments))]
        absent = next((file for file in beside if is_inside(file) and not raw.exists(file)), None)
        yield Refused(key_of(path), path, "missing_file", absent) if absent else (path, of)
    listed = dict.fromkeys(list_records(raw))
    for path in (f"{path[: -len(ending)]}.hea" for ending in signals for path in raw.files(ending)):
        listed[path] = None
    if not found and not listed:
        raise InputError(f"{raw.folder} holds no WFDB headers (*.hea); give the data set's folder as it was downloaded")
    for path in listed:
        if path not in found:
            reason = "missing_file" if is_inside(path) else "path_outside"
            yield Refused(key_of(path), path, reason, f"{path} is listed or has a signal file, but is not there")


def list_records(raw: Raw) -> Iterator[str]:
    """Yield the headers that the RECORDS files of `raw` name; their folders' names are not records."""
    for file in raw.files("RECORDS"):
        if file.rpartition("/")[2] == "RECORDS":
            for line in raw.read(file).decode("utf-8", "replace").splitlines():
                if line.strip() and not line.strip().endswith("/"):
                    yield f"{folder_of(file)}{line.strip()}.hea"


def folder_of(path: str) -> str:
    """Return the folder of a path, with its slash."""
    return path[: path.rfind("/") + 1]


@cache
def code_names() -> dict[str, str]:
    """Return SNOMED CT code → name."""
    return {row["code"]: row["name"] for row in read_table("snomed")}


def report_of(codes: tuple[str, ...]) -> str:
    """Return a report made from SNOMED codes: their names, in their order."""
    names = code_names()
    return ". ".join(names[code] for code in codes if code in names)
