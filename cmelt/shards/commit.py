"""The life of a shard folder: claimed with its plan, filled shard by shard, committed by the manifest.

OUT/.cmelt/plan.json        whose work this is; present until the manifest is
OUT/.cmelt/NAME.parquet     index rows of a finished shard, and NAME.json, written last: its entry and what it refused
OUT/.cmelt/discard          what lies here is being removed, for --overwrite
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmelt.errors import OutputError, ShardError
from cmelt.files import json_bytes, open_whole
from cmelt.record import LEADS, SPLITS, Refused
from cmelt.shards.changes import changed, same_terms
from cmelt.shards.format import CROISSANT, FORMAT_VERSION, INDEX, INDEX_SCHEMA, LSB_UV, MANIFEST, README, REJECTS, REJECTS_SCHEMA
from cmelt.shards.grow import BASE, BASE_REJECTS, base_rows
from cmelt.shards.leaks import flag_duplicates
from cmelt.shards.manifest import file_sha256, parse_manifest
from cmelt.shards.plan import BATCH, PLAN, REFUSED, WORK, Plan, read_plan, refused_row, write_plan
from cmelt.shards.store import Store
from cmelt.shards.write import Shard

CHOOSE = "choose another OUT, or --overwrite"
DISCARD = f"{WORK}/discard"
NAMES = "|".join(re.escape(name) for name in (MANIFEST, INDEX, REJECTS, README, CROISSANT, WORK))
MADE = re.compile(rf"{NAMES}|[A-Za-z0-9._-]+-\d{{6}}\.tar|.+\.part")
"""The names that cmelt gives to what lies in a shard folder."""


def check_place(store: Store) -> None:
    """Raise OutputError where `store` is neither new, nor empty, nor a folder of cmelt's."""
    if store.path and store.path.exists() and not store.path.is_dir():
        raise OutputError(f"{store} is a file; choose another OUT")
    names = store.names()
    if names - {WORK} and MANIFEST not in names and not ({"plan.json", "discard"} & store.names(WORK)):
        raise OutputError(f"{store} holds something else; choose an empty or a new folder")


def claim(store: Store, plan: Plan, overwrite: bool = False) -> bool:
    """Make `store` the place of `plan`; returns whether it is finished already. Raises OutputError where it holds anything else.

    With `overwrite`, what cmelt made from another plan is removed; a folder that holds anything that is not cmelt's stays.
    """
    check_place(store)
    if store.exists(DISCARD):  # an --overwrite was cut off
        discard(store)
    if is_finished(store, plan):
        return True
    if why := obstacle(store, plan):
        if not overwrite:
            raise OutputError(why)
        discard(store)
    elif store.exists(PLAN):
        return False
    store.clear_work()
    if plan.terms.get("extends"):
        store.write(BASE_REJECTS, store.read(REJECTS))
        store.write(BASE, store.read(MANIFEST))
    write_plan(plan, store)
    return False


def settle(store: Store) -> None:
    """Remove what is left of the work on a folder whose manifest is written: that last step was cut off."""
    left = store.names(WORK)
    if not left or "discard" in left or not store.exists(MANIFEST):
        return
    if "plan.json" not in left or read_plan(store)["sha256"] == standing_manifest(store).get("plan_sha256"):
        with store.alone():
            store.end_work()


def is_finished(store: Store, plan: Plan) -> bool:
    """Say whether `store` holds all that `plan` makes."""
    return store.exists(MANIFEST) and standing_manifest(store).get("plan_sha256") == plan.sha256


def obstacle(store: Store, plan: Plan) -> str:
    """Say why `plan` cannot be made in `store`, which holds work from another plan, and what to do; '' where it can."""
    if store.exists(DISCARD):
        return ""
    if store.exists(MANIFEST):
        manifest = standing_manifest(store)
        if manifest.get("plan_sha256") not in (plan.sha256, plan.terms.get("extends")):
            hint = "--extend adds what is new, --retry-failed tries again what was refused; or " if same_terms(manifest, plan) else ""
            return f"{store} is finished from another plan ({changed(store, manifest, plan)}); {hint}{CHOOSE}"
    if store.exists(PLAN):
        old = read_plan(store)
        if old["sha256"] != plan.sha256:
            return f"{store} is unfinished from another plan ({changed(store, old['terms'], plan)}); {CHOOSE}"
    return ""


def standing_manifest(store: Store) -> dict[str, Any]:
    """Return the manifest that lies in `store`; raises OutputError where it is not understood, so that nobody overwrites it."""
    try:
        return parse_manifest(store.read(MANIFEST), f"{store}/{MANIFEST}")
    except ShardError as error:
        raise OutputError(f"{error}; remove it yourself if it is not needed") from None


def discard(store: Store) -> None:
    """Remove what cmelt made in `store`, a rerun after a crash goes on; raises OutputError where other things lie there."""
    foreign = sorted(name for name in store.names() if not MADE.fullmatch(name))
    if foreign:
        raise OutputError(f"{store} holds {foreign[0]}, which cmelt did not make; nothing was removed, choose another OUT")
    store.write(DISCARD, b"")
    for name in sorted(store.names() - {WORK}, key=lambda name: (name != MANIFEST, name)):
        store.remove(name)
    store.clear_work("discard")


def finish_shard(
    store: Store, name: str, shard: Shard | None, rows: Sequence[dict[str, Any]], refused: Sequence[Refused], seconds: float = 0.0
) -> None:
    """Write down that shard `name` is done: its index rows, then its entry (None: nothing was kept), its refusals, and how long it took."""
    with store.whole(f"{WORK}/{name}.parquet") as path, open_whole(path) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), INDEX_SCHEMA), file, compression="zstd")
    done = {"shard": asdict(shard) if shard else None, "refused": [refused_row(item) for item in refused], "seconds": round(seconds, 3)}
    store.write(f"{WORK}/{name}.json", json.dumps(done, ensure_ascii=False).encode())


def done_shard(store: Store, name: str) -> dict[str, Any]:
    """Return what is written down of finished shard `name`."""
    done: dict[str, Any] = json.loads(store.read(f"{WORK}/{name}.json"))
    return done


def pending(store: Store, plan: Plan, retry: bool = False) -> list[int]:
    """Return the numbers of the shards that are not done; what else lies half-written in `store` is removed.

    With `retry`, shards that refused recordings are done anew.
    """
    for folder in ("", WORK):
        for name in store.names(folder):
            if name.endswith(".part"):
                store.remove(f"{folder}/{name}" if folder else name)
    done = finished_shards(store, plan)
    if retry:
        for name in tuple(done):
            if done_shard(store, name)["refused"]:
                store.remove(f"{WORK}/{name}.json")
                done.remove(name)
    return [number for number, name in enumerate(plan.shards) if name not in done]


def finished_shards(store: Store, plan: Plan) -> set[str]:
    """Return the shards of `plan` that are written down as done in `store`."""
    return {name.removesuffix(".json") for name in store.names(WORK)} & set(plan.shards)


def commit(store: Store, plan: Plan, fs_hz: float, samples: int, papers: Callable[[dict[str, Any]], dict[str, bytes]]) -> dict[str, Any]:
    """Join the finished shards' rows into index and rejects, write what `papers` makes of the manifest, and it last; return it."""
    base = json.loads(store.read(BASE)) if store.exists(BASE) else None
    shards, tally, reasons = list(base["shards"]) if base else [], Tally(), Counter[str]()
    if base:
        store.remove(MANIFEST)  # from here to the new one the folder is unfinished
    with store.whole(INDEX) as path:
        with open_whole(path) as file, pq.ParquetWriter(file, INDEX_SCHEMA, compression="zstd") as writer:
            for rows in flag_duplicates(lambda columns: index_rows(store, plan, base, columns)):
                writer.write_table(rows)
                tally.add(rows)
        index_sha256 = file_sha256(path)
    with store.whole(REJECTS) as path:
        with open_whole(path) as file, pq.ParquetWriter(file, REJECTS_SCHEMA, compression="zstd") as writer:
            for rows in rejects_rows(store, plan):
                writer.write_table(rows)
                reasons.update(rows.column("reason").to_pylist())
        rejects_sha256 = file_sha256(path)
    shards += [done["shard"] for name in plan.shards if (done := done_shard(store, name))["shard"]]
    counts = tally.counts()
    manifest = {
        "format_version": FORMAT_VERSION,
        **plan.terms,
        "leads": list(LEADS),
        "fs_hz": fs_hz,
        "samples": samples,
        "lsb_uv": LSB_UV,
        "counts": {"rows": counts["kept"] + reasons.total(), **counts, "refused": dict(sorted(reasons.items()))},
        "index_sha256": index_sha256,
        "rejects_sha256": rejects_sha256,
        "plan_sha256": plan.sha256,
        "shards": shards,
    }
    for name, data in papers(manifest).items():
        store.write(name, data)
    store.write(MANIFEST, json_bytes(manifest))
    store.end_work()
    return manifest


def index_rows(store: Store, plan: Plan, base: dict[str, Any] | None, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the index rows of every shard: those of the folder with manifest `base`, where it grows, then those of `plan`."""
    if base:
        yield from base_rows(store, base, columns and [*columns, "shard"])
    for name in plan.shards:
        with store.open(f"{WORK}/{name}.parquet") as file:
            rows = pq.ParquetFile(file).read(columns, use_threads=False)
        if len(rows):
            yield rows


def rejects_rows(store: Store, plan: Plan) -> Iterator[pa.Table]:
    """Yield what was refused: at planning, then shard by shard."""
    with store.open(REFUSED) as file:
        for batch in pq.ParquetFile(file).iter_batches(BATCH, use_threads=False):
            yield pa.Table.from_batches([batch], REJECTS_SCHEMA)
    gathered: list[dict[str, str]] = []
    for name in plan.shards:
        gathered += done_shard(store, name)["refused"]
        if len(gathered) >= BATCH:
            yield pa.Table.from_pylist(gathered, REJECTS_SCHEMA)
            gathered = []
    yield pa.Table.from_pylist(gathered, REJECTS_SCHEMA)


class Tally:
    """What the index holds, counted shard by shard."""

    def __init__(self) -> None:
        self.kept = self.windows = 0
        self.splits: Counter[str] = Counter()
        self.folds: Counter[int] = Counter()
        self.flags: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Count one shard's rows: recordings, of which each counts once, and windows."""
        self.windows += rows.num_rows
        if len(pc.unique(rows.column("source"))) < rows.num_rows:
            rows = rows.take(np.unique(rows.column("source").to_numpy(zero_copy_only=False), return_index=True)[1])
        self.kept += rows.num_rows
        self.splits.update(rows.column("split").to_pylist())
        self.folds.update(rows.column("fold").to_pylist())
        self.flags.update(flag for flags in rows.column("flags").to_pylist() for flag in flags)

    def counts(self) -> dict[str, Any]:
        """Return the counts, in a fixed order."""
        return {
            "kept": self.kept,
            "windows": self.windows,
            "splits": {split: self.splits[split] for split in SPLITS},
            "folds": {str(fold): count for fold, count in sorted(self.folds.items())},
            "flags": dict(sorted(self.flags.items())),
        }
