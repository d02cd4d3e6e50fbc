"""How far an ingest is: what is finished, what was refused, how fast; while it runs, or after it was cut off."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmelt.errors import InputError
from cmelt.shards.commit import done_shard
from cmelt.shards.format import MANIFEST
from cmelt.shards.grow import BASE
from cmelt.shards.manifest import parse_manifest
from cmelt.shards.plan import PLAN, WORK, read_plan
from cmelt.shards.store import Store

if TYPE_CHECKING:
    from rich.console import Group


def status(out: Path | str) -> dict[str, Any]:
    """Return how far the ingest into `out` is: state (finished, running, growing, stopped), counts, and a row a shard."""
    store = Store(out)
    manifest = parse_manifest(store.read(MANIFEST), f"{store}/{MANIFEST}") if store.exists(MANIFEST) else {}
    plan = read_plan(store) if store.exists(PLAN) else {}
    if plan and plan["sha256"] != manifest.get("plan_sha256"):
        return unfinished(store, plan)
    if not manifest:
        raise InputError(f"{out} is no shard folder, or none of which a shard was planned; make one with: cmelt ingest DATASET RAW {out}")
    shards = [
        {"name": shard["name"], "state": "done", "samples": shard["samples"], "bytes": shard["bytes"]} for shard in manifest["shards"]
    ]
    counts = manifest["counts"]
    return {
        "out": str(out),
        "state": "finished",
        "dataset": manifest["dataset"],
        "rows": counts["rows"],
        "planned": counts["kept"] + sum(counts["refused"].values()),
        "done": counts["kept"] + sum(counts["refused"].values()),
        "samples": counts["windows"],
        "refused": counts["refused"],
        "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
        "shards_done": len(shards),
        "shards_planned": len(shards),
        "shards": shards,
    }


def unfinished(store: Store, plan: dict[str, Any]) -> dict[str, Any]:
    """Return how far `plan` is in `store`."""
    names = store.names(WORK)
    growing = f"{BASE.rpartition('/')[2]}" in names
    shards, refused = [], Counter[str]()
    for name, planned in zip(plan["shards"], plan["planned"], strict=True):
        row = {"name": name, "state": "to do", "planned": planned}
        if f"{name}.json" in names:
            done = done_shard(store, name)
            made = done["shard"] or {"samples": 0, "bytes": 0}
            row |= {"state": "done", "samples": made["samples"], "bytes": made["bytes"], "refused": len(done["refused"])}
            row["seconds"] = done["seconds"]
            refused.update(item["reason"] for item in done["refused"])
        shards.append(row)
    done_ones = [row for row in shards if row["state"] == "done"]
    return {
        "out": str(store),
        "state": ("running" if store.is_led else "stopped") + (", growing" if growing else ""),
        "dataset": plan["terms"]["dataset"],
        "rows": plan["rows"],
        "planned": sum(plan["planned"]),
        "done": sum(row["planned"] for row in done_ones),
        "samples": sum(row["samples"] for row in done_ones),
        "refused": dict(sorted(refused.items())),
        "bytes": sum(row["bytes"] for row in done_ones),
        "shards_done": len(done_ones),
        "shards_planned": len(shards),
        "shards": shards,
    }


SHOWN = 12
"""Shards in the table; `--json` has them all."""


def table(summary: dict[str, Any]) -> Group:
    """Return a status as something that rich prints."""
    from rich.console import Group
    from rich.table import Table

    refused = ", ".join(f"{count} {reason}" for reason, count in summary["refused"].items()) or "none"
    head = (
        f"{summary['out']}: {summary['state']}; {summary['shards_done']} of {summary['shards_planned']} shards, "
        f"{summary['done']} of {summary['planned']} recordings, {summary['bytes'] / 1e9:.3f} GB; refused: {refused}"
    )
    more = {"stopped": "Run the same cmelt ingest command again to go on."}.get(summary["state"].partition(",")[0])
    rows = Table("shard", "state", "samples", "refused", "MB", "records/s")
    done = [row for row in summary["shards"] if row["state"] == "done"][-SHOWN:]
    for row in done:
        rate = f"{row['planned'] / row['seconds']:.0f}" if row.get("seconds") else ""
        rows.add_row(row["name"], row["state"], str(row["samples"]), str(row.get("refused", "")), f"{row['bytes'] / 1e6:.1f}", rate)
    return Group(head, *([rows] if done else []), *([more] if more else []))
