"""Records into a shard: one pass, hashed on the way, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmelt.files import open_whole
from cmelt.record import Record
from cmelt.shards.format import TAR_END, member, npy_header, padded, quantise, record_row, sample_json


@dataclass(frozen=True, slots=True)
class Shard:
    """One finished shard, as the manifest lists it."""

    name: str
    samples: int
    bytes: int
    sha256: str


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
