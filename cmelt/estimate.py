"""What an ingest would do, without doing it: the plan, counts, and disk and time by a few recordings that are made for it."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmelt.config import IngestRecipe
from cmelt.ingest import draw_plan, make_records, make_tasks, open_place
from cmelt.raw import Raw
from cmelt.record import Refused
from cmelt.remote import free_bytes
from cmelt.shards.commit import finished_shards, is_finished, obstacle
from cmelt.shards.workers import available_cores
from cmelt.shards.write import write_shard

TRIED = 8
"""Recordings that are made, to see how long one takes and how large it is."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an ingest would do, by its plan and by a few recordings that were made for it."""

    out: str
    dataset: str
    rows: int
    recordings: int
    shards: int
    refused: dict[str, int]
    """What planning refuses, by reason."""
    tried: int
    tried_refused: int
    bytes: int
    free_bytes: int | None
    """Where `out` is, or would be; unknown for a URL."""
    seconds: float
    workers: int
    shards_done: int
    """Of `shards`, where an interrupted ingest goes on."""
    obstacle: str
    """Why the ingest would be refused, if it would."""

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate for machines."""
        return {"dry_run": True, **asdict(self)}

    def line(self) -> str:
        """Return the estimate in words."""
        refused = ", ".join(f"{count} {reason}" for reason, count in self.refused.items()) or "none"
        free = "" if self.free_bytes is None else f" ({self.free_bytes / 1e9:.1f} GB are free)"
        done = f", of which {self.shards_done} are done" if self.shards_done else ""
        took = f"{self.seconds:.1f} s" if self.seconds < 100 else f"{self.seconds / 60:.0f} minutes"
        return (
            f"{self.out}: {self.recordings} of {self.rows} recordings would go into {self.shards} shards{done}; "
            f"refused already: {refused}.\n"
            f"About {self.bytes / 1e9:.3f} GB{free} and {took} with {self.workers} workers, "
            f"by {self.tried} recordings made now, of which {self.tried_refused} were refused. Nothing was written."
            + (f"\nIt would be refused: {self.obstacle}." if self.obstacle else "")
        )


def estimate(
    dataset: str,
    raw: Path | str,
    out: Path | str,
    recipe: IngestRecipe,
    *,
    workers: int | None = None,
    splits: Path | str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    extend: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> Estimate:
    """Return what `ingest` would do with the same arguments, and write nothing to `out`."""
    store, cores = open_place(out, overwrite, extend or retry_failed), workers or available_cores()
    data, plan, _ = draw_plan(dataset, raw, store, recipe, splits, limit, extend, retry_failed, options)
    recordings = len(plan.sources)
    places = range(0, recordings, max(1, recordings // TRIED))[:TRIED]
    sources = [plan.source(number) for number in places]
    refused: list[Refused] = []
    size, seconds = 0, 0.0
    if sources:
        task = make_tasks(data, dataset, raw, store, plan, recipe, [0])[0]
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(2):  # the first time warms up: imports, filters, files
                began, records = time.perf_counter(), make_records(task, Raw(raw), sources, refused := [], None)
                shard, _rows = write_shard(Path(folder, task.name), records)
                seconds, size = time.perf_counter() - began, shard.bytes
    done = set(plan.shards) if is_finished(store, plan) else finished_shards(store, plan)
    left = sum(planned for name, planned in zip(plan.shards, plan.planned, strict=True) if name not in done)
    share = 1 / max(len(sources), 1)
    reasons = dict(sorted(Counter(json.loads(plan.refused.line(row))["reason"] for row in range(len(plan.refused))).items()))
    return Estimate(
        out=str(out),
        dataset=data.name,
        rows=plan.rows,
        recordings=recordings,
        shards=len(plan.shards),
        refused=reasons,
        tried=len(sources),
        tried_refused=len(refused),
        bytes=round(size * share * recordings),
        free_bytes=free_bytes(store.path) if store.path else None,
        seconds=round(seconds * share * left / cores, 1),
        workers=cores,
        shards_done=len(done),
        obstacle="" if overwrite else obstacle(store, plan),
    )
