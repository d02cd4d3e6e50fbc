"""Any folder of WFDB records, with an optional table (CSV or Parquet) of what is known about them.

The table's columns: ``key`` (the record's name, or its path below the folder without extension) and any of ``report``, ``labels``
(parted by ; or | or commas, or a list), ``patient``, ``fold`` (1-10) or ``split`` (train, val, test), ``age``, ``sex``, ``device``.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmelt.datasets.base import Dataset, key_of
from cmelt.datasets.headers import About, parse_age, parse_sex, recordings, report_of
from cmelt.datasets.splits import BY_PATIENT, BY_RECORDING, seeded_fold, split_of
from cmelt.errors import InputError
from cmelt.origins import database_of
from cmelt.raw import Raw
from cmelt.record import SPLITS, Refused, Source

COLUMNS = ("key", "report", "labels", "patient", "fold", "split", "age", "sex", "device")


class WFDB(Dataset):
    """WFDB records below a folder, in any format that wfdb reads."""

    name = "wfdb"
    title = "a folder of WFDB records"
    licence = "as their owner says"
    access = "your own files"
    size = "any"

    def __init__(self, raw: Raw, table: Path | str = "", mains_hz: float = 50.0) -> None:
        self.rows, digest = read_table(Path(table)) if table else ({}, "")
        super().__init__(raw, table_sha256=digest, mains_hz=float(mains_hz))
        self.mains_hz = float(mains_hz)
        has = {name for row in self.rows.values() for name, value in row.items() if value not in (None, "")}
        made = BY_PATIENT if "patient" in has else BY_RECORDING
        self.split_rule = f"as the table says; where it does not: {made}" if has & {"fold", "split"} else made

    @property
    def version(self) -> str:
        """Return 'unknown'."""
        return "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield every recording found, with its row of the table; then the rows without a recording."""
        return join(list(recordings(self.raw)), self.rows, names_of)


def names_of(path: str) -> tuple[str, ...]:
    """Return a header's names: its key, its key where others have that too, and what else a table may call it."""
    stem = path.removesuffix(".hea")
    return key_of(path), key_of(stem.replace("/", "_")), stem, stem.rpartition("/")[2]


def join(
    found: Sequence[tuple[str, About] | Refused], rows: Mapping[str, dict[str, Any]], names: Callable[[str], tuple[str, ...]]
) -> Iterator[Source | Refused]:
    """Yield the recordings of `found`, each with its row of the table `rows` by one of its `names`; then the rows left over."""
    paths = [item.path if isinstance(item, Refused) else item[0] for item in found]
    same = Counter(names(path)[0] for path in paths)
    used: set[str] = set()
    for item, path in zip(found, paths, strict=True):
        short, long, *others = names(path)
        key = short if same[short] == 1 else long
        name = next((name for name in (*others, key) if name and name in rows), "")
        used |= {name} if name else set()
        if isinstance(item, Refused):
            yield Refused(key, path, item.reason, item.detail)
            continue
        try:
            yield read_row(key, path, item[1], rows.get(name, {}))
        except (ValueError, TypeError) as error:
            yield Refused(key, path, "bad_row", f"the table's row of {name[:40]}: {error}")
    for name in rows:
        if not name:
            yield Refused(key_of(name), name, "bad_row", "a row of the table has no key")
        elif name not in used:
            yield Refused(key_of(name), name, "missing_file", f"the table names {name[:80]}, which is not there")


def read_row(key: str, path: str, of: About, row: dict[str, Any]) -> Source:
    """Return the Source of a recording by what its file says and its row; the row wins. Raises ValueError for a wrong value."""
    patient = str(row.get("patient") or "").strip().removesuffix(".0") or of.patient
    split, fold = str(row.get("split") or "").strip().lower(), 0
    if split and split not in SPLITS:
        raise ValueError(f"split {split[:20]!r} is none of {', '.join(SPLITS)}")
    if row.get("fold") not in (None, ""):
        fold = int(float(row["fold"]))
        if not 1 <= fold <= 10:
            raise ValueError(f"fold {row['fold']!r} is none of 1-10")
    elif not split:
        fold = seeded_fold(patient or key)
    labels = row.get("labels")
    parts = re.split(r"[;|,]", labels) if isinstance(labels, str) else list(labels or ())
    codes = tuple(dict.fromkeys(code for part in parts if (code := str(part).strip()))) or of.codes
    report = str(row.get("report") or "") or of.report
    made = "" if report else report_of(codes)
    return Source(
        key=key,
        path=path,
        patient_id=patient,
        fold=fold,
        split=split or split_of(fold),
        age=parse_age(str(row.get("age"))) if row.get("age") not in (None, "") else of.age,
        sex=parse_sex(str(row.get("sex") or "")) or of.sex,
        device=" ".join(str(row.get("device") or of.device).split()),
        report_raw=report or made,
        codes=codes,
        flags=("report_from_labels",) if made else (),
        mains_hz=60.0 if path.endswith(".hea") and database_of(path) == "georgia" else 0.0,
    )


def read_table(file: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Return key → row of a CSV or Parquet table, and the SHA-256 of the file; raises InputError."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        data = file.read_bytes()
        if file.suffix.lower() == ".parquet":
            table = pq.read_table(io.BytesIO(data))
        else:
            header = data.partition(b"\n")[0].decode("utf-8-sig").strip()
            plain = pa.csv.ConvertOptions(column_types=dict.fromkeys((name.strip('"') for name in header.split(",")), pa.string()))
            table = pa.csv.read_csv(io.BytesIO(data), convert_options=plain, parse_options=pa.csv.ParseOptions(newlines_in_values=True))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read as a table ({str(error).splitlines()[0]}); give a CSV or Parquet file") from None
    if "key" not in table.column_names:
        raise InputError(f"{file} has no column key; its columns may be {', '.join(COLUMNS)}")
    unknown = [name for name in table.column_names if name not in COLUMNS]
    table = table.drop_columns(unknown)
    rows: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        name = str(row["key"]).strip().removesuffix(".hea")
        if name in rows:
            raise InputError(f"{file} has two rows with key {name[:40]!r}; a recording has one")
        rows[name] = row
    return rows, hashlib.sha256(data).hexdigest()
