"""Draw the curves of a run: every loss of training and validation, retrieval, the learning rate and the speed, by step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cmelt.errors import CheckpointError
from cmelt.plots import plot_curve_grid, save

Lines = dict[str, tuple[list[float], list[float]]]

LOSSES: dict[str, tuple[str, float | None]] = {
    "loss": ("all losses", None),
    "mlm": ("masked text (mlm)", None),
    "mem": ("masked ECG (mem)", 1.0),
    "etm": ("matching (etm)", math.log(2)),
    "ets": ("contrast (ets)", None),
    "entities": ("findings of the report (entities)", None),
    "auroc_entities": ("findings of the report: mean AUROC, validation fold", 0.5),
    "value": ("validation fold: what stops training", None),
}
"""Column of metrics.jsonl → its title, and what a model that knows nothing would get."""

SPEED = {"lr": "learning rate", "samples_per_s": "samples per second", "data_wait": "share of time waiting for data"}
"""Further columns of training, drawn alone, and their titles."""


def curves(run: Path, out: Path | None = None) -> Path:
    """Draw the curves of `run` as `out` (.png, .svg or .pdf; default RUN/curves.png) and return its path.

    Raises CheckpointError where there are none, OutputError.
    """
    metrics = read_metrics(run / "metrics.jsonl")
    if not metrics:
        raise CheckpointError(f"{run / 'metrics.jsonl'}: nothing logged yet; name a run folder that cmelt pretrain made")
    panels = panels_of(metrics)
    panels |= {title: (lines, None) for name, title in SPEED.items() if (lines := lines_of(metrics, name, {"training": "train"}))}
    return save(plot_curve_grid(panels, title=run.resolve().name), out or run / "curves.png")


def panels_of(metrics: list[dict[str, Any]]) -> dict[str, tuple[Lines, float | None]]:
    """Return title → (curves, level) of every loss of training and validation, and of retrieval on the validation fold."""
    panels: dict[str, tuple[Lines, float | None]] = {}
    for name, (title, level) in LOSSES.items():
        if lines := lines_of(metrics, name, {"training": "train", "validation": "val"}):
            panels[title] = (lines, level)
    ways = {"ECG to report": "ecg_to_text", "report to ECG": "text_to_ecg"}
    recall = {label: lines_of(metrics, f"retrieval_{way}@10", {label: "val"}) for label, way in ways.items()}
    if any(recall.values()):
        panels["retrieval: recall@10, validation fold"] = ({k: v for lines in recall.values() for k, v in lines.items()}, None)
    return panels


def lines_of(metrics: list[dict[str, Any]], name: str, splits: dict[str, str]) -> Lines:
    """Return label → (steps, values of column `name`) for each label's split that has any."""
    lines: Lines = {}
    for label, split in splits.items():
        rows = [(row["step"], row[name]) for row in metrics if row["split"] == split and row.get(name) is not None]
        if rows:
            lines[label] = ([step for step, _ in rows], [value for _, value in rows])
    return lines


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line without an end (a run cut off) is left out. Raises CheckpointError."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise CheckpointError(f"{file}: a line is not JSON ({error})") from None
