"""CPSC2018 as first published: ``A####.mat`` structs and ``REFERENCE.csv`` with up to three labels a record, by number.

Some copies have more columns (sex, age, reports made from the labels); a folder of validation repeats rows of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from cmelt.datasets.base import Dataset, key_of
from cmelt.datasets.headers import parse_age, parse_sex
from cmelt.datasets.splits import BY_RECORDING, seeded_fold, split_of
from cmelt.datasets.tables import read_rows
from cmelt.errors import InputError
from cmelt.labels import class_texts, load_vocabulary
from cmelt.raw import Raw
from cmelt.record import LEADS, Refused, Source

TABLE = "REFERENCE.csv"
LABELS = ("First_label", "Second_label", "Third_label")
NEEDED = ("Recording", *LABELS)


class CPSC2018(Dataset):
    """The training set of the China Physiological Signal Challenge 2018."""

    name = "cpsc2018"
    title = "China Physiological Signal Challenge 2018"
    licence = "open, for research; cite Liu et al. 2018"
    access = "open: http://2018.icbeb.org/Challenge.html"
    citation = "Liu et al. An open access database for … rhythm and morphology abnormality detection (2018). doi:10.1166/jmihi.2018.2442"
    size = "6,877 recordings, 3 GB"
    mains_hz = 50.0
    split_rule = BY_RECORDING
    decoder = "cmelt.signal.mat:decode_struct"
    layout = MappingProxyType({"fs_hz": 500.0, "leads": LEADS})

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        self.tables = [path for path in raw.files(TABLE) if path.rpartition("/")[2] == TABLE]
        if not self.tables:
            raise InputError(f"{raw.folder} has no {TABLE}; give the folder that holds it and the .mat files (or folders of them)")

    @property
    def version(self) -> str:
        """Return 'unknown': the files carry no version."""
        return "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield every recording that a table names, once, then those that only lie there."""
        files: dict[str, str] = {}
        for path in self.raw.files(".mat"):
            if files.setdefault(key_of(path), path) != path:
                yield Refused(key_of(path), path, "duplicate_key", f"{files[key_of(path)]} has this name too")
        rows: dict[str, dict[str, Any]] = {}
        clashes: set[str] = set()
        for table in self.tables:
            for row in read_rows(self.raw, table, NEEDED):
                key = key_of(row["Recording"].strip())
                earlier = rows.setdefault(key, row | {"table": table})
                if any(earlier[name].strip() != row[name].strip() for name in LABELS):
                    clashes.add(key)
        for key, row in rows.items():
            path = files.get(key, f"{key}.mat")
            if key in clashes:
                yield Refused(key, path, "bad_row", f"{TABLE} gives it different labels in different rows")
            elif key not in files:
                yield Refused(key, path, "missing_file", f"{key}.mat")
            else:
                yield read_row(key, path, row)
        for key, path in files.items():
            if key not in rows:
                yield read_row(key, path, {})


def read_row(key: str, path: str, row: dict[str, Any]) -> Source | Refused:
    """Return the Source of one row; Refused bad_row where a label is none of the nine."""
    codes = tuple(dict.fromkeys(code for name in LABELS if (code := row.get(name, "").strip().removesuffix(".0"))))
    vocabulary = load_vocabulary("cpsc2018")
    unknown = vocabulary.unknown(codes)
    if unknown:
        return Refused(key, path, "bad_row", f"{TABLE} gives it label {min(unknown)!r}, which is none of 1-9")
    texts = class_texts("cpsc2018")
    report = ". ".join(texts[name]["name"] for code in codes for name in sorted(vocabulary.classes_of([code])))
    fold = seeded_fold(key)
    return Source(
        key=key,
        path=path,
        fold=fold,
        split=split_of(fold),
        age=parse_age(row.get("age", "")),
        sex=parse_sex(row.get("sex", "")),
        report_raw=report,
        codes=codes,
        flags=("report_from_labels",) if report else (),
    )
