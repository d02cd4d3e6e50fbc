"""PTB-XL: ``ptbxl_database.csv`` says everything; ``records500`` and ``records100`` hold the same recordings at two rates.

Ages above 89 are published as 300, to hide who they belong to, and stay so. Sex is 0 for male and 1 for female in the table.
"""

from __future__ import annotations

import ast
import csv
import io
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cmelt.datasets.base import Dataset, key_of
from cmelt.errors import InputError, RecordError
from cmelt.raw import Raw
from cmelt.record import Refused, Source

TABLE = "ptbxl_database.csv"
VERSIONS = {21_837: "1.0.1", 21_799: "1.0.3"}
"""Rows of the table → published version."""

NEEDED = ("patient_id", "age", "sex", "device", "report", "scp_codes", "strat_fold")

ROW_ERRORS = (ValueError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError)
"""What a row that is not as published raises; the last three come from ast.literal_eval."""


class PTBXL(Dataset):
    """PTB-XL in its published layout, at 500 or 100 Hz; with a file SIMULATED in it, cmelt's own imitation."""

    name = "ptbxl"
    title = "PTB-XL, a large publicly available electrocardiography dataset"
    licence = "CC BY 4.0"
    access = "open: https://physionet.org/content/ptb-xl/"
    citation = "Wagner et al. PTB-XL, a large publicly available electrocardiography dataset (2020). doi:10.1038/s41597-020-0495-6"
    size = "21,837 recordings, 3 GB"
    mains_hz = 50.0

    def __init__(self, raw: Raw, records100: bool = False) -> None:
        super().__init__(raw, records100=records100)
        self.column = "filename_lr" if records100 else "filename_hr"
        self.simulated = raw.exists("SIMULATED")
        if self.simulated:
            self.name = "ptbxl-simulated"
            self.title = "SIMULATED recordings in PTB-XL's layout, made by cmelt simulate: no patient was ever recorded"
            self.licence, self.access, self.citation = "none needed", "anyone can make them: cmelt simulate OUT --records N", ""
        if not raw.exists(TABLE):
            raise InputError(f"{raw.folder} has no {TABLE}; give the folder that the PTB-XL download unpacks to")
        self.count = sum(1 for _ in self.rows())
        if not self.count:
            raise InputError(f"{raw.folder}/{TABLE} has no rows; download it again")

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield the rows of the table; raises InputError where it is not as published."""
        where = f"{self.raw.folder}/{TABLE}"
        try:
            with self.raw.open(TABLE) as file:
                rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), restval="", strict=True)
                absent = [name for name in (*NEEDED, self.column) if name not in (rows.fieldnames or ())]
                if rows.fieldnames and absent:
                    raise InputError(f"{where} has no column {absent[0]}; download it again")
                yield from rows
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{where} cannot be read ({error}); download it again") from None

    @property
    def version(self) -> str:
        """Return the version by the number of rows: later versions withdrew 38 recordings."""
        return "simulated" if self.simulated else VERSIONS.get(self.count, "unknown")

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a Source for each row whose header and signal file are there, else a Refused; then what is there without a row."""
        named: set[str] = set()
        for number, row in enumerate(self.rows(), 2):
            path = f"{row[self.column]}.hea"
            named.add(path)
            key = key_of(path)
            try:
                source = read_row(row, key, path)
                absent = [file for file in (path, path[:-4] + ".dat") if not self.raw.exists(file)]
                if absent:
                    raise RecordError("missing_file", absent[0])
                yield source
            except RecordError as error:
                yield Refused(key, path, error.reason, error.detail)
            except ROW_ERRORS as error:
                yield Refused(key, path, "bad_row", f"{TABLE}, record {number}: {error}")
        copy = "records100/" if self.options["records100"] else "records500/"
        for path in self.raw.files(".hea"):
            if path.startswith(copy) and path not in named:
                yield Refused(key_of(path), path, "no_row", f"{TABLE} has no row for it, so neither patient nor fold is known")


def read_row(row: dict[str, Any], key: str, path: str) -> Source:
    """Return the Source of one row of the table; raises ValueError or TypeError where the row is not as published."""
    fold = int(float(row["strat_fold"]))
    if not 1 <= fold <= 10:
        raise ValueError(f"strat_fold {row['strat_fold']!r}")
    codes, likelihoods = read_codes(row["scp_codes"])
    age = float(row["age"] or "nan")
    return Source(
        key=key,
        path=path,
        patient_id=row["patient_id"].strip().removesuffix(".0"),
        fold=fold,
        split="train" if fold <= 8 else "val" if fold == 9 else "test",
        age=age if math.isfinite(age) else None,
        sex={"0": "male", "1": "female"}.get(row["sex"].strip().removesuffix(".0"), ""),
        device=" ".join(row["device"].split()),
        report_raw=row["report"],
        codes=codes,
        likelihoods=likelihoods,
    )


@lru_cache(8192)  # most rows say what another said; parsing is half of the time that a plan takes
def read_codes(text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return codes and likelihoods of a ``scp_codes`` cell, the Python literal of a dict; raises as `read_row` does."""
    codes = ast.literal_eval(text)
    if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes):
        raise ValueError(f"scp_codes {text[:80]!r}")
    likelihoods = tuple(float(value) for value in codes.values())
    if not all(map(math.isfinite, likelihoods)):
        raise ValueError(f"likelihoods {likelihoods}")
    return tuple(codes), likelihoods
