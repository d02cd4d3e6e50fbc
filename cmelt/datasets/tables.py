"""A data set's tables: CSV by rows, with the columns that are needed, or an InputError that says what is wrong with the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from cmelt.errors import InputError
from cmelt.raw import Raw


def read_rows(raw: Raw, path: str, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of CSV `path` by column, '' where a row is short; raises InputError where the file is not as published."""
    where = f"{raw.folder}/{path}"
    if not raw.exists(path):
        raise InputError(f"{raw.folder} has no {path}; give the folder that the data set's download unpacks to")
    try:
        with raw.open(path) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), restkey="", restval="")
            absent = [name for name in needed if name not in (rows.fieldnames or ())]
            if absent:
                raise InputError(f"{where} has no column {absent[0]}; download it again")
            yield from rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where} cannot be read ({error}); download it again") from None
