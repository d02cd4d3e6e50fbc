"""The plan of an ingest: which recording goes into which shard, written down before the first is read.

It lies in ``OUT/.cmelt`` while the folder is unfinished: ``sources.parquet`` with one row group a shard, so that a worker
reads its own and a million recordings never travel between processes; ``refused.parquet``, what planning already refused;
``plan.json``, last, with the hash by which a rerun knows its own work. While it is made, its rows lie on disk, not in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt.errors import OutputError
from cmelt.files import open_whole
from cmelt.record import Refused, Source
from cmelt.shards.format import INDEX_SCHEMA, REJECTS_SCHEMA, SOURCE_COLUMNS, shard_name, source_row
from cmelt.shards.store import WORK, Store

BATCH = 10_000
PLAN, SOURCES, REFUSED = f"{WORK}/plan.json", f"{WORK}/sources.parquet", f"{WORK}/refused.parquet"

PLAN_SCHEMA = pa.schema(
    [INDEX_SCHEMA.field(name) for name in ("key", *(name for name, _ in SOURCE_COLUMNS), "report_raw", "codes", "likelihoods", "flags")]
    + [pa.field("mains_hz", pa.float64())]
)


class Rows:
    """Rows of a table in a temporary file, read back in any order: eight bytes of memory each."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        self.ends = array("q", [0])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __del__(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was told when it was written
            self.file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        line = json.dumps(row).encode()
        self.file.write(line)
        self.ends.append(self.ends[-1] + len(line))

    def line(self, number: int) -> bytes:
        """Return row `number` as it lies in the file."""
        return os.pread(self.file.fileno(), self.ends[number + 1] - self.ends[number], self.ends[number])

    def tables(self, order: Sequence[int] | NDArray[np.int64], sizes: Iterable[int], schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the rows numbered `order` as tables of `sizes` rows."""
        start = 0
        for size in sizes:
            yield pa.Table.from_pylist([json.loads(self.line(int(row))) for row in order[start : start + size]], schema)
            start += size


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be made: the shards' names and planned samples, what was refused, what the plan depends on, and its hash."""

    terms: dict[str, Any]
    """dataset, dataset_version, options, recipe, cmelt_version."""
    shards: tuple[str, ...]
    planned: tuple[int, ...]
    rows: int
    sources: Rows
    order: NDArray[np.int64]
    """The rows of `sources` in the order in which they lie in the shards."""
    refused: Rows
    sha256: str

    def source(self, number: int) -> Source:
        """Return the Source at place `number` of all shards."""
        return row_source(json.loads(self.sources.line(int(self.order[number]))))


def make_plan(
    found: Iterable[Source | Refused],
    terms: dict[str, Any],
    samples_per_shard: int,
    seed: int,
    *,
    first_shard: int = 0,
    taken: Collection[str] = (),
) -> Plan:
    """Return the Plan of the recordings `found`, laid into shards in an order that depends on `seed` and their keys only.

    Shards are numbered from `first_shard`; keys that are `taken` are refused as duplicates.
    """
    try:
        sources, refused, drawn = lay_out(found, seed, taken)
    except OSError as error:
        raise OutputError(f"cannot write the plan to {tempfile.gettempdir()}: {error.strerror}; make room, or set TMPDIR") from None
    order = np.argsort(np.frombuffer(drawn, np.uint64), kind="stable")  # a hash, so that no library's generator can change it
    planned = [min(samples_per_shard, len(order) - start) for start in range(0, len(order), samples_per_shard)]
    names = tuple(shard_name(terms["dataset"], first_shard + number) for number in range(len(planned)))
    digest = hashlib.sha256(json.dumps([terms, samples_per_shard, seed], sort_keys=True).encode())
    for rows, numbers in ((sources, order), (refused, range(len(refused)))):
        for number in numbers:
            digest.update(rows.line(int(number)))
    return Plan(terms, names, tuple(planned), len(sources) + len(refused), sources, order, refused, digest.hexdigest())


def lay_out(found: Iterable[Source | Refused], seed: int, taken: Collection[str]) -> tuple[Rows, Rows, array[int]]:
    """Return the recordings `found` as rows of sources and rows of what is refused, and the number that `seed` draws for each source."""
    sources, refused, drawn, seen = Rows(), Rows(), array("Q"), set(taken)
    salt = seed.to_bytes(8, "big", signed=True)
    for item in found:
        if isinstance(item, Source) and item.key in seen:
            item = Refused(item.key, item.path, "duplicate_key", "an earlier recording has it")
        if isinstance(item, Refused):
            refused.add(refused_row(item))
            continue
        seen.add(item.key)
        drawn.append(int.from_bytes(hashlib.blake2b(item.key.encode(), key=salt, digest_size=8).digest(), "big"))
        sources.add({**source_row(item), "flags": list(item.flags), "mains_hz": item.mains_hz})
    sources.file.flush()
    refused.file.flush()
    return sources, refused, drawn


def refused_row(refused: Refused) -> dict[str, str]:
    """Return a Refused under the names of REJECTS_SCHEMA."""
    return {"key": refused.key, "source": refused.path, "reason": refused.reason, "detail": refused.detail}


def write_plan(plan: Plan, store: Store) -> None:
    """Write `plan` into `store`, its hash last."""
    with store.whole(SOURCES) as path, open_whole(path) as file, pq.ParquetWriter(file, PLAN_SCHEMA) as writer:
        for table in plan.sources.tables(plan.order, plan.planned, PLAN_SCHEMA):
            writer.write_table(table, row_group_size=len(table))
    with store.whole(REFUSED) as path, open_whole(path) as file, pq.ParquetWriter(file, REJECTS_SCHEMA) as writer:
        sizes = [min(BATCH, len(plan.refused) - start) for start in range(0, len(plan.refused), BATCH)]
        for table in plan.refused.tables(range(len(plan.refused)), sizes, REJECTS_SCHEMA):
            writer.write_table(table)
    said = {"sha256": plan.sha256, "terms": plan.terms, "rows": plan.rows, "shards": plan.shards, "planned": plan.planned}
    store.write(PLAN, json.dumps(said, indent=1).encode())


def read_plan(store: Store) -> dict[str, Any]:
    """Return what is written down of the plan in `store`: sha256, terms, rows, shards, planned."""
    plan: dict[str, Any] = json.loads(store.read(PLAN))
    return plan


def read_sources(store: Store, number: int) -> list[Source]:
    """Return the Sources of shard `number` of the plan in `store`, in order."""
    with store.open(SOURCES) as file:
        rows = pq.ParquetFile(file).read_row_group(number, use_threads=False).to_pylist()
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
            there, now = ("not set" if value is None else value for value in (a, b))
            found.append(f"{prefix}{name} is {there} there, {now} now")
    return found
