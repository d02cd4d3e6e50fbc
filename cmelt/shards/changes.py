"""What differs between the plan by which a shard folder was made, or is being made, and another: settings, then recordings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from cmelt.shards.format import INDEX, REJECTS
from cmelt.shards.plan import BATCH, PLAN, REFUSED, SOURCES, Plan, differences
from cmelt.shards.store import Store

COLUMNS = ("patient_id", "fold", "split", "report_raw", "codes", "likelihoods")
"""What is compared of a recording's row, each remembered by four bytes; age, sex and flags may have come from its file."""

NAMED = 3
"""Recordings that are named of each kind of change."""

Row = bytes | str
"""A planned recording's columns, four bytes each; of a refused one the reason."""


def same_terms(old: dict[str, Any], plan: Plan) -> bool:
    """Say whether a plan's terms and an earlier one's differ in nothing but how far they went."""
    return not differences({name: old.get(name) for name in plan.terms if name not in ("limit", "extends")}, plan.terms)


def changed(store: Store, old: dict[str, Any], plan: Plan) -> str:
    """Say what differs between `old`, the terms by which `store` was made, and `plan`; where only recordings do, which."""
    names = {*plan.terms, *({"limit", "extends"} & old.keys())}
    return "; ".join(differences({name: old.get(name) for name in names}, plan.terms)) or changed_rows(store, plan)


def changed_rows(store: Store, plan: Plan) -> str:
    """Say which recordings of `plan` the folder `store` does not know, or knows otherwise, and which it knows that are not in `plan`."""
    old, new, other = dict(old_rows(store)), [], []
    for path, row in planned_rows(plan):
        before = old.pop(path, None)
        if before is None:
            new.append(path)
        elif isinstance(before, bytes) and isinstance(row, bytes) and before != row:
            columns = (name for number, name in enumerate(COLUMNS) if before[4 * number :][:4] != row[4 * number :][:4])
            other.append(f"{path}: {', '.join(columns)}")
        elif isinstance(row, str) and row not in (before, "duplicate_key"):
            other.append(f"{path}: {row}")
    found = [f"{len(paths)} {what} ({'; '.join(paths[:NAMED])}{' …' if len(paths) > NAMED else ''})"
             for what, paths in (("new", new), ("gone", list(old)), ("changed", other)) if paths]  # fmt: skip
    return f"recordings in the raw folder: {', '.join(found)}" if found else "the raw folder's table"


def planned_rows(plan: Plan) -> Iterator[tuple[str, Row]]:
    """Yield where each recording of `plan` lies, and its row."""
    for number in range(len(plan.sources)):
        row = json.loads(plan.sources.line(number))
        yield row["source"], digest(row)
    for number in range(len(plan.refused)):
        row = json.loads(plan.refused.line(number))
        yield row["source"], row["reason"]


def old_rows(store: Store) -> Iterator[tuple[str, Row]]:
    """Yield where each recording that `store` knows lies, and its row: of its unfinished plan, else of index and refusals."""
    kept, refused = (SOURCES, REFUSED) if store.exists(PLAN) else (INDEX, REJECTS)
    with store.open(refused) as file:
        for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["source", "reason"], use_threads=False):
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    with store.open(kept) as file:
        for batch in pq.ParquetFile(file).iter_batches(BATCH, columns=["source", *COLUMNS], use_threads=False):
            yield from ((row["source"], digest(row)) for row in batch.to_pylist())


def digest(row: dict[str, Any]) -> bytes:
    """Return four bytes of each of COLUMNS."""
    return b"".join(hashlib.blake2b(json.dumps(row[name]).encode(), digest_size=4).digest() for name in COLUMNS)
