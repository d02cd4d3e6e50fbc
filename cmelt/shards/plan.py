"""The plan of an ingest: which recording goes into which shard, written down before the first is read.

It lies in ``OUT/.cmelt`` while the folder is unfinished: ``sources.parquet`` with one row group a shard, so that a worker
reads its own and a million recordings never travel between processes; ``refused.parquet``, what planning already refused;
``plan.json``, last, with the hash by which a rerun knows its own work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cmelt.record import Refused, Source
from cmelt.shards.format import INDEX_SCHEMA, REJECTS_SCHEMA, SOURCE_COLUMNS, shard_name, source_row
from cmelt.shards.write import open_whole, write_whole

WORK = ".cmelt"
BATCH = 10_000

PLAN_SCHEMA = pa.schema(
    [INDEX_SCHEMA.field(name) for name in ("key", *(name for name, _ in SOURCE_COLUMNS), "report_raw", "codes", "likelihoods", "flags")]
    + [pa.field("mains_hz", pa.float64())]
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be made: the shards' names and planned samples, what was refused, what the plan depends on, and its hash."""

    terms: dict[str, Any]
    """dataset, dataset_version, options, recipe, cmelt_version."""
    shards: tuple[str, ...]
    planned: tuple[int, ...]
    rows: int
    refused: pa.Table
    sources: pa.Table
    sha256: str


def make_plan(found: Iterable[Source | Refused], terms: dict[str, Any], samples_per_shard: int, seed: int) -> Plan:
    """Return the Plan of the recordings `found`, laid into shards in an order that depends on `seed` and their keys only."""
    batches, batch, refused = [], [], []
    taken: set[str] = set()
    rows = 0
    for item in found:
        rows += 1
        if isinstance(item, Source) and item.key in taken:
            item = Refused(item.key, item.path, "duplicate_key", "an earlier recording has it")
        if isinstance(item, Refused):
            refused.append(refused_row(item))
            continue
        taken.add(item.key)
        batch.append({**source_row(item), "flags": list(item.flags), "mains_hz": item.mains_hz})
        if len(batch) == BATCH:
            batches.append(pa.RecordBatch.from_pylist(batch, PLAN_SCHEMA))
            batch = []
    batches.append(pa.RecordBatch.from_pylist(batch, PLAN_SCHEMA))
    sources = pa.Table.from_batches(batches, PLAN_SCHEMA)
    sources = sources.take(pa.array(permutation(sources.column("key").to_pylist(), seed), pa.int64()))
    planned = [min(samples_per_shard, len(sources) - start) for start in range(0, len(sources), samples_per_shard)]
    names = tuple(shard_name(terms["dataset"], number) for number in range(len(planned)))
    refusals = pa.Table.from_pylist(refused, REJECTS_SCHEMA)
    digest = hashlib.sha256(json.dumps([terms, samples_per_shard, seed], sort_keys=True).encode())
    for table in (sources, refusals):
        for start in range(0, len(table), BATCH):
            digest.update(json.dumps(table.slice(start, BATCH).to_pylist(), ensure_ascii=False).encode())
    return Plan(terms, names, tuple(planned), rows, refusals, sources, digest.hexdigest())


def permutation(keys: list[str], seed: int) -> list[int]:
    """Return the rows of `keys` in an order drawn by `seed`; a hash, so that no library's generator can change it."""
    salt = seed.to_bytes(8, "big", signed=True)
    return sorted(range(len(keys)), key=lambda row: (hashlib.blake2b(keys[row].encode(), key=salt, digest_size=8).digest(), keys[row]))


def refused_row(refused: Refused) -> dict[str, str]:
    """Return a Refused under the names of REJECTS_SCHEMA."""
    return {"key": refused.key, "source": refused.path, "reason": refused.reason, "detail": refused.detail}


def write_plan(plan: Plan, work: Path) -> None:
    """Write `plan` into folder `work`, its hash last."""
    with open_whole(work / "sources.parquet") as file, pq.ParquetWriter(file, PLAN_SCHEMA) as writer:
        start = 0
        for samples in plan.planned:
            writer.write_table(plan.sources.slice(start, samples), row_group_size=samples)
            start += samples
    write_whole(work / "plan.json", json.dumps({"sha256": plan.sha256, "terms": plan.terms}, indent=1).encode())


def read_sources(work: Path, number: int) -> list[Source]:
    """Return the Sources of shard `number` of the plan in folder `work`, in order."""
    rows = pq.ParquetFile(work / "sources.parquet").read_row_group(number).to_pylist()
    return [row_source(row) for row in rows]


def row_source(row: dict[str, Any]) -> Source:
    """Return the Source that a row of PLAN_SCHEMA says."""
    row = {**row, "path": row["source"], **{name: tuple(row[name]) for name in ("codes", "likelihoods", "flags")}}
    del row["source"]
    return Source(**row)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two plans' terms, as ``recipe.signal.fs_hz is 500 there, 250 now``."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append(f"{prefix}{name} is {a} there, {b} now")
    return found
