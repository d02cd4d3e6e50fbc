"""Records into a shard: one pass, hashed on the way, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cmelt.errors import OutputError
from cmelt.record import Record
from cmelt.shards.format import TAR_END, member, npy_header, padded, quantise, record_row, sample_json


@dataclass(frozen=True, slots=True)
class Shard:
    """One finished shard, as the manifest lists it."""

    name: str
    samples: int
    bytes: int
    sha256: str


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears whole or not at all: written as .part, synced, renamed."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # its own: a worker that was given up may still write another
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM):
            raise OutputError(f"cannot write {path}: {error.strerror}; make room or rights, then run the same command again") from None
        raise
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it appears whole or not at all."""
    with open_whole(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_shard(path: Path, records: Iterable[Record]) -> tuple[Shard, list[dict[str, Any]]]:
    """Write `records` as shard `path`; returns its entry for the manifest and its index rows, in order."""
    rows: list[dict[str, Any]] = []
    digest, offset = hashlib.sha256(), 0
    with open_whole(path) as file:
        for record in records:
            ecg, clipped = quantise(record.signal)
            if clipped:
                record.flags.append("clipped")
            row = record_row(record)
            key, header, report = row["key"], npy_header(ecg.shape[1]), record.report.encode()
            rest = sample_json(row, record.fs_hz)
            head = member(f"{key}.ecg.npy", len(header) + ecg.nbytes) + header
            gap = bytes(-(len(header) + ecg.nbytes) % 512)
            texts = (member(f"{key}.txt", len(report)), padded(report), member(f"{key}.json", len(rest)), padded(rest))
            sample = b"".join((head, ecg.data, gap, *texts))  # one piece to hash and to write
            rows.append({"key": key, "shard": path.name, "ecg_offset": offset + len(head), "ecg_bytes": ecg.nbytes, **row})
            digest.update(sample)
            file.write(sample)
            offset += len(sample)
        digest.update(TAR_END)
        file.write(TAR_END)
    return Shard(path.name, len(rows), offset + len(TAR_END), digest.hexdigest()), rows
