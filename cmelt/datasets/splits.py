"""Which recordings train and which test: by a hash of the patient where nobody has said, or by published split files."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cmelt.datasets.base import key_of
from cmelt.errors import InputError
from cmelt.record import Refused, Source

BY_PATIENT = "seeded, patient-wise: fold = 1 + blake2b(patient id) mod 10; folds 1-8 train, 9 val, 10 test"
BY_RECORDING = "seeded, record-wise (no patient ids are published): fold = 1 + blake2b(key) mod 10; folds 1-8 train, 9 val, 10 test"
"""What the manifest says of splits that cmelt made."""

NAMES = ("filename", "ecg_path", "filename_hr", "filename_lr", "key")
"""Columns of the published split files that name a recording."""

FILES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
"""Words in a split file's name → the split that it lists."""


def seeded_fold(who: str) -> int:
    """Return a fold from 1 to 10 for a patient (or recording) by a hash of its name: the same on any machine, in any order."""
    return 1 + int.from_bytes(hashlib.blake2b(who.encode(), digest_size=8, person=b"cmelt-split").digest(), "big") % 10


def split_of(fold: int) -> str:
    """Return the split of a fold of ten."""
    return "train" if fold <= 8 else "val" if fold == 9 else "test"


@dataclass(frozen=True, slots=True)
class Splits:
    """Which split each recording is in, as files say: key → split; and how that is told in the manifest."""

    of: Mapping[str, str]
    rule: str


def read_splits(folder: Path | str) -> Splits:
    """Return what the split files (\\*train\\*.csv, \\*val\\*.csv, \\*test\\*.csv) of `folder` say; raises InputError."""
    of: dict[str, str] = {}
    told = []
    for file in sorted(Path(folder).glob("*.csv")):
        words = file.stem.lower().replace("-", "_").split("_")
        split = next((FILES[word] for word in words if word in FILES), None)
        if split is None:
            continue
        data = file.read_bytes()
        for name in names_in(file, data):
            key = either_rate(key_of(name))
            if of.setdefault(key, split) != split:
                raise InputError(f"{file} has {key} in {split}, another file of {folder} in {of[key]}; a recording has one split")
        told.append(f"{file.name} (sha256 {hashlib.sha256(data).hexdigest()[:12]})")
    if not told:
        raise InputError(f"{folder} has no split files; their names hold train, val or test and end in .csv")
    return Splits(of, f"from split files: {', '.join(told)}")


def either_rate(key: str) -> str:
    """Return a key without what tells PTB-XL's two copies of a recording apart: a list of one is good for the other."""
    return key.removesuffix("_hr").removesuffix("_lr")


def names_in(file: Path, data: bytes) -> list[str]:
    """Return the recordings that a split file names."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read ({error})") from None
    column = next((name for name in NAMES if rows and name in rows[0]), None)
    if column is None:
        raise InputError(f"{file} has no column that names recordings; one of {', '.join(NAMES)} is needed")
    return [row[column] for row in rows if row[column]]


def apply_splits(found: Iterator[Source | Refused], splits: Splits) -> Iterator[Source | Refused]:
    """Yield what is `found` with the splits of `splits`; a recording that they do not name is refused as ``no_split``."""
    for item in found:
        if isinstance(item, Refused):
            yield item
        elif (name := either_rate(item.key)) in splits.of:
            yield replace(item, split=splits.of[name], fold=0)
        else:
            yield Refused(item.key, item.path, "no_split", "no split file names it")
