"""A shard folder, read again from the first byte to the last: what was written is what is there, and the parts agree."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmelt.errors import REASONS, ShardError
from cmelt.record import DUPLICATE, FLAGS, SPLITS
from cmelt.shards.commit import Tally
from cmelt.shards.format import INDEX, INDEX_SCHEMA, KEY, REJECTS, REJECTS_SCHEMA, sample_json
from cmelt.shards.manifest import file_sha256, read_manifest

SHOWN = 5
"""Problems named in the error; the rest are counted."""


def verify(folder: Path | str) -> dict[str, Any]:
    """Re-hash and re-read shard folder `folder`; returns what was read. Raises ShardError that names the first problems."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    problems = list(find_problems(folder, manifest))
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ShardError(f"{folder} is damaged: {'; '.join(problems[:SHOWN])}{more}. Make it again with cmelt ingest")
    return {
        "folder": str(folder),
        "dataset": manifest["dataset"],
        "samples": manifest["counts"]["windows"],
        "refused": sum(manifest["counts"]["refused"].values()),
        "shards": len(manifest["shards"]),
        "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
    }


def find_problems(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Yield, in words, everything in which `folder` is not what its manifest says."""
    tables = {}
    for name, schema, digest in ((INDEX, INDEX_SCHEMA, "index_sha256"), (REJECTS, REJECTS_SCHEMA, "rejects_sha256")):
        try:
            if digest in manifest and file_sha256(folder / name) != manifest[digest]:
                yield f"{name} has changed"
            tables[name] = pq.read_table(folder / name)
        except (OSError, pa.ArrowException) as error:
            yield f"{name} cannot be read ({str(error).splitlines()[0]})"
            continue
        if not tables[name].schema.equals(schema):
            yield f"{name} does not have the columns of the format"
            del tables[name]
    listed = {shard["name"] for shard in manifest["shards"]}
    yield from (f"{file.name} is not in the manifest" for file in sorted(folder.glob("*.tar")) if file.name not in listed)
    if len(tables) == 2:
        yield from check_tables(manifest, tables[INDEX], tables[REJECTS])
        shards = tables[INDEX].column("shard").to_numpy(zero_copy_only=False)
        for shard in manifest["shards"]:
            rows = tables[INDEX].take(np.flatnonzero(shards == shard["name"])).to_pylist()
            yield from check_shard(folder, manifest, shard, rows)


def check_tables(manifest: dict[str, Any], index: pa.Table, rejects: pa.Table) -> Iterator[str]:
    """Yield where index and rejects disagree with the manifest or with the closed lists."""
    counts, tally = manifest["counts"], Tally()
    tally.add(index)
    refused = Counter(rejects.column("reason").to_pylist())
    yield from (f"counts.{name} is wrong" for name, value in tally.counts().items() if counts[name] != value)
    if counts["refused"] != refused:
        yield "counts.refused is wrong"
    if counts["rows"] != len(rejects) + counts["kept"]:
        yield f"{counts['rows']} rows, but {counts['kept']} kept and {len(rejects)} refused"
    keys = Counter(index.column("key").to_pylist())
    yield from (f"key {key!r} occurs {count} times" for key, count in keys.items() if count > 1)
    yield from (f"key {key!r} is not allowed" for key in keys if KEY.fullmatch(key) is None)
    first: dict[str, str] = {}
    for row in index.select(["key", "source", "signal_sha1", "flags"]).to_pylist():
        if (first.setdefault(row["signal_sha1"], row["source"]) != row["source"]) != (DUPLICATE in row["flags"]):
            yield f"{row['key']} is flagged {DUPLICATE} and is none, or is one and is not flagged"
    for what, found, known in (("reason", refused, REASONS), ("flag", tally.flags, FLAGS), ("split", tally.splits, SPLITS)):
        yield from (f"unknown {what} {name!r}" for name in found if name not in known)


def check_shard(folder: Path, manifest: dict[str, Any], shard: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with one shard: its bytes, and each sample as a plain tar reader finds it against its index row."""
    name, file = shard["name"], folder / shard["name"]
    if not file.is_file():
        yield f"{name} is missing"
        return
    if file.stat().st_size != shard["bytes"]:
        yield f"{name} has {file.stat().st_size} bytes of {shard['bytes']}"
    elif file_sha256(file) != shard["sha256"]:
        yield f"{name} has changed"
    if len(rows) != shard["samples"]:
        yield f"{name} has {len(rows)} index rows for {shard['samples']} samples"
    shape = (len(manifest["leads"]), manifest["samples"])
    try:
        with tarfile.open(file, "r:") as tar:
            members = iter(tar)
            for row in rows:
                yield from check_sample(tar, [next(members, None) for _ in range(3)], row, shape, manifest["fs_hz"])
            if next(members, None) is not None:
                yield f"{name} holds samples that the index does not have"
    except (tarfile.TarError, OSError, ValueError) as error:
        yield f"{name} cannot be read on ({error})"


def check_sample(
    tar: tarfile.TarFile, members: list[tarfile.TarInfo | None], row: dict[str, Any], shape: tuple[int, int], fs_hz: float
) -> Iterator[str]:
    """Yield what is wrong with the three files of one sample."""
    key = row["key"]
    names = [member.name if member else "nothing" for member in members]
    if names != [f"{key}.ecg.npy", f"{key}.txt", f"{key}.json"]:
        yield f"{row['shard']} has {names[0]} where {key} should be"
        return
    ecg, report, rest = (tar.extractfile(member).read() for member in members if member)  # type: ignore[union-attr]
    array = np.load(io.BytesIO(ecg), allow_pickle=False)
    start = members[0].offset_data + len(ecg) - array.nbytes  # type: ignore[union-attr]
    if array.dtype != np.dtype("<i2") or array.shape != shape or (start, array.nbytes) != (row["ecg_offset"], row["ecg_bytes"]):
        yield f"the samples of {key} are not where or what the index says"
    if report.decode("utf-8", "replace") != row["report"]:
        yield f"{key}.txt is not the report of the index"
    if rest != sample_json({**row, "flags": [flag for flag in row["flags"] if flag != DUPLICATE]}, fs_hz):
        yield f"{key}.json is not the index's row"
