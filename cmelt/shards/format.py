"""The shard format, version 1 (docs/concepts/shard-format.md): names, columns, and how one sample's bytes lie in a tar.

Every other module of this folder, and nothing outside it, asks here how the folder is laid out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cmelt.record import LEADS, Record, Source

FORMAT_VERSION = 1
LSB_UV = 1
"""One stored unit in µV."""
LARGEST = 32767
"""Stored values lie in ±LARGEST; what does not fit is clipped and flagged."""

MANIFEST, INDEX, REJECTS = "manifest.json", "index.parquet", "rejects.parquet"
README, CROISSANT = "README.md", "croissant.json"

KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")

SOURCE_COLUMNS = [
    ("source", pa.string()),
    ("patient_id", pa.string()),
    ("fold", pa.int32()),
    ("split", pa.string()),
    ("age", pa.float64()),
    ("sex", pa.string()),
    ("device", pa.string()),
]
RECORD_COLUMNS = [
    ("fs_raw_hz", pa.float64()),
    ("raw_duration_s", pa.float64()),
    ("start_s", pa.float64()),
    ("report", pa.string()),
    ("report_raw", pa.string()),
    ("codes", pa.list_(pa.string())),
    ("likelihoods", pa.list_(pa.float64())),
    ("flags", pa.list_(pa.string())),
    ("signal_sha1", pa.string()),
]
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("ecg_offset", pa.int64()),
        ("ecg_bytes", pa.int64()),
        *SOURCE_COLUMNS,
        *RECORD_COLUMNS,
    ]
)
REJECTS_SCHEMA = pa.schema([("key", pa.string()), ("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])

PLACE = ("shard", "ecg_offset", "ecg_bytes")
"""Index columns that say where a sample lies; the rest stands in the sample's own KEY.json too, but for the report."""


def shard_name(dataset: str, number: int) -> str:
    """Return the file name of shard `number`."""
    return f"{dataset}-{number:06d}.tar"


def source_row(source: Source) -> dict[str, Any]:
    """Return a Source under the names of its columns."""
    return {
        "key": source.key,
        "source": source.path,
        "patient_id": source.patient_id,
        "fold": source.fold,
        "split": source.split,
        "age": source.age,
        "sex": source.sex,
        "device": source.device,
        "report_raw": source.report_raw,
        "codes": list(source.codes),
        "likelihoods": list(source.likelihoods),
    }


def record_row(record: Record) -> dict[str, Any]:
    """Return a Record's columns as the index has them, but for its place."""
    row = source_row(record.source)
    row |= {name: getattr(record, name) for name in ("fs_raw_hz", "raw_duration_s", "start_s", "report", "flags", "signal_sha1")}
    return {name: row[name] for name in INDEX_SCHEMA.names if name not in PLACE}


to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def sample_json(row: dict[str, Any], fs_hz: float) -> bytes:
    """Return KEY.json of an index row: all that is known of the sample but its place and its report (KEY.txt)."""
    rest = {name: value for name, value in row.items() if name not in PLACE and name != "report"}
    return to_json({**rest, "fs_hz": fs_hz, "lsb_uv": LSB_UV, "leads": LEADS}).encode()


def quantise(signal_mv: NDArray[np.float32]) -> tuple[NDArray[np.int16], bool]:
    """Return mV (12, samples) as int16 in LSB_UV, and whether values were clipped."""
    units = np.multiply(signal_mv, np.float32(1000 / LSB_UV))
    np.rint(units, out=units)
    clipped = bool(max(units.max(), -units.min()) > LARGEST)
    if clipped:
        np.clip(units, -LARGEST, LARGEST, out=units)
    return units.astype("<i2"), clipped


@lru_cache(16)
def npy_header(samples: int) -> bytes:
    """Return the .npy header (a multiple of 64 bytes) of an int16 array (12, samples) in C order."""
    text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({len(LEADS)}, {samples}), }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


MODE, PLAIN_FILE = b"0000644\0" + b"0000000\0" * 2, b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
"""Parts of a tar header that are alike in all: rights and no owner; a plain file of the ustar kind."""
SUM = sum(MODE) + 11 * ord("0") + sum(PLAIN_FILE) + 8 * ord(" ")
"""What they, the time of zero and the blank checksum add to the checksum."""


def member(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a plain file: no owner, no time, so that equal samples make equal bytes."""
    title, length = name.encode("ascii"), b"%011o" % size
    checksum = b"%06o\0 " % (SUM + sum(title) + sum(length))
    return b"".join((title.ljust(100, b"\0"), MODE, length, b"\x0000000000000\0", checksum, PLAIN_FILE))


def padded(data: bytes) -> bytes:
    """Return `data` filled to whole tar blocks."""
    return data + bytes(-len(data) % 512)


TAR_END = bytes(1024)
