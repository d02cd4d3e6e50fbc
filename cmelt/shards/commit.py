"""The life of a shard folder: claimed with its plan, filled shard by shard, committed by the manifest.

OUT/.cmelt/plan.json        whose work this is; present until the manifest is
OUT/.cmelt/NAME.parquet     index rows of a finished shard, and NAME.json, written last: its entry and what it refused
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmelt.errors import OutputError
from cmelt.record import LEADS, SPLITS, Refused
from cmelt.shards.format import FORMAT_VERSION, INDEX, INDEX_SCHEMA, LSB_UV, MANIFEST, README, REJECTS, REJECTS_SCHEMA
from cmelt.shards.manifest import file_sha256, manifest_bytes, read_manifest
from cmelt.shards.plan import WORK, Plan, differences, refused_row, write_plan
from cmelt.shards.write import Shard, open_whole, write_whole

CONTINUE = "remove it, or choose another OUT"


def claim(out: Path, plan: Plan) -> bool:
    """Make `out` the place of `plan`; returns whether it is finished already. Raises OutputError where it holds anything else."""
    work = out / WORK
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; {CONTINUE}")
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        if manifest.get("plan_sha256") != plan.sha256:
            raise OutputError(f"{out} is finished from another plan ({changed(manifest, plan)}); {CONTINUE}")
        shutil.rmtree(work, ignore_errors=True)  # a crash between the manifest and this line leaves it
        return True
    if (work / "plan.json").exists():
        old = json.loads((work / "plan.json").read_bytes())
        if old["sha256"] != plan.sha256:
            raise OutputError(f"{out} is unfinished from another plan ({changed(old['terms'], plan)}); {CONTINUE}")
        return False
    if out.exists() and any(entry.name != WORK for entry in out.iterdir()):
        raise OutputError(f"{out} holds something else; choose an empty or a new folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {out}: {error.strerror}") from None
    write_plan(plan, work)
    return False


def changed(old: dict[str, Any], plan: Plan) -> str:
    """Say what differs between an earlier plan's terms and `plan`."""
    return "; ".join(differences({name: old.get(name) for name in plan.terms}, plan.terms)) or "the raw folder's table or files changed"


def finish_shard(work: Path, name: str, shard: Shard | None, rows: Sequence[dict[str, Any]], refused: Sequence[Refused]) -> None:
    """Write down that shard `name` is done: its index rows, then its entry (None: nothing was kept) and its refusals."""
    with open_whole(work / f"{name}.parquet") as file:
        pq.write_table(pa.Table.from_pylist(list(rows), INDEX_SCHEMA), file, compression="zstd")
    done = {"shard": asdict(shard) if shard else None, "refused": [refused_row(item) for item in refused]}
    write_whole(work / f"{name}.json", json.dumps(done, ensure_ascii=False).encode())


def pending(out: Path, plan: Plan) -> list[int]:
    """Return the numbers of the shards that are not done; what else lies half-written in `out` is removed."""
    for part in (*out.glob("*.part"), *(out / WORK).glob("*.part")):
        part.unlink()
    return [number for number, name in enumerate(plan.shards) if not (out / WORK / f"{name}.json").exists()]


def commit(out: Path, plan: Plan, fs_hz: float, samples: int, readme: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """Join the finished shards' rows into index and rejects, write what `readme` says of the manifest, and last the manifest; return it."""
    work = out / WORK
    shards, refused, tally = [], plan.refused.to_pylist(), Tally()
    with open_whole(out / INDEX) as file, pq.ParquetWriter(file, INDEX_SCHEMA, compression="zstd") as writer:
        for name in plan.shards:
            done = json.loads((work / f"{name}.json").read_bytes())
            refused += done["refused"]
            if done["shard"]:
                shards.append(done["shard"])
                rows = pq.read_table(work / f"{name}.parquet")
                writer.write_table(rows)
                tally.add(rows)
    with open_whole(out / REJECTS) as file:
        pq.write_table(pa.Table.from_pylist(refused, REJECTS_SCHEMA), file, compression="zstd")
    manifest = {
        "format_version": FORMAT_VERSION,
        **plan.terms,
        "leads": list(LEADS),
        "fs_hz": fs_hz,
        "samples": samples,
        "lsb_uv": LSB_UV,
        "counts": {"rows": plan.rows, **tally.counts(), "refused": dict(sorted(Counter(row["reason"] for row in refused).items()))},
        "index_sha256": file_sha256(out / INDEX),
        "rejects_sha256": file_sha256(out / REJECTS),
        "plan_sha256": plan.sha256,
        "shards": shards,
    }
    write_whole(out / README, readme(manifest).encode())
    write_whole(out / MANIFEST, manifest_bytes(manifest))
    shutil.rmtree(work)
    return manifest


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
