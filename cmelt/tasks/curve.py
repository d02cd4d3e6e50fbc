"""`cmelt probe --lead-curve`: what remains of a probe's AUROC with fewer and fewer leads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cmelt import __version__
from cmelt.errors import TaskError
from cmelt.files import write_json
from cmelt.plots import plot_steps, save
from cmelt.record import LEAD_SETS, LEADS
from cmelt.tasks.base import open_run
from cmelt.tasks.probe import differences, probe
from cmelt.tasks.results import cells, columns


def lead_curve(
    run: Path | None = None, shards: Sequence[Path | str] | None = None, task: str = "superclass", protocol: str = "strict", **options: Any
) -> dict[str, Any]:
    """Probe with each of LEAD_SETS; write ``RUN/results/curves/leads-TASK.json`` and a picture, return what the file holds.

    `options` are those of `probe`; of their fractions the largest is told. Every lead set also leaves its own result files.
    """
    opened = open_run(run, shards)
    points = []
    for leads in LEAD_SETS.values():
        result = probe(opened.folder, shards, task, protocol=protocol, leads=leads, **options)
        entry = result["fractions"][-1]
        if "not_computed" in entry:
            raise TaskError(f"task {task!r} at {entry['fraction']:.0%} of the labels: {entry['not_computed']}; give a larger --fractions")
        point = {name: entry[name] for name in ("fraction", "n_train", "n_test", "macro_auc", "ci95")}
        points.append({"leads": list(leads), **point, "baselines": {name: base["macro_auc"] for name, base in entry["baselines"].items()}})
    name = "-".join([f"leads-{task}", *differences(result | {"leads": LEADS}, options.get("splits"))])
    place = opened.results / "curves"
    curve = {"task": task, "protocol": protocol, "checkpoint": str(opened), "points": points, "picture": str(place / f"{name}.png")}
    write_json(place / f"{name}.json", {"version": __version__, **curve})
    lines = {"this model": [point["macro_auc"] for point in points]}
    for other in list(points[0]["baselines"])[:2]:
        lines[other.replace("_", " ")] = [point["baselines"][other] for point in points]
    steps, bounds = [str(len(point["leads"])) for point in points], [point["ci95"] for point in points]
    save(plot_steps(lines, steps, bounds, title=f"{task}, {protocol}: macro AUC", x_label="leads that are seen"), place / f"{name}.png")
    return curve


def table(curve: dict[str, Any]) -> Table:
    """Return a curve for the terminal."""
    title = f"{curve['task']} · protocol {curve['protocol']} · {curve['points'][0]['fraction']:.0%} of the labels"
    others = list(curve["points"][0]["baselines"])
    out = columns(title, "leads", "", "", "macro AUC", "95 %", *(name.replace("_", " ") for name in others))
    for point in curve["points"]:
        names = "all" if len(point["leads"]) == 12 else ", ".join(point["leads"])
        more = (f"{point['baselines'][name]:.3f}" for name in others)
        out.add_row(str(len(point["leads"])), "", names, *cells(point["macro_auc"], point["ci95"]), *more)
    out.caption = f"drawn: {curve['picture']}"
    return out
