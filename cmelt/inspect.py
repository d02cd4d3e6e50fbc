"""What a shard folder holds, in numbers, and one record of it as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from cmelt.config import did_you_mean
from cmelt.errors import ShardError
from cmelt.labels import load_vocabulary
from cmelt.record import LEADS
from cmelt.shards.format import REJECTS
from cmelt.shards.read import ShardFolder

if TYPE_CHECKING:
    from rich.console import Group

CLASSES = {"ptbxl": "superclass"}
"""The task whose classes a data set's codes are counted by."""

LOOKED_AT = 2000
"""Records whose samples are read for the signal statistics; a larger folder is sampled evenly."""


def inspect(folder: Path | str) -> dict[str, Any]:
    """Return what shard folder `folder` holds: counts, classes, folds, flags, refusals, reports, signal statistics in mV."""
    shards = ShardFolder(folder)
    manifest = shards.manifest
    reports = shards.column("report")
    words = np.array([len(report.split()) for report in reports] or [0])
    ages = np.array(shards.column("age"), float)
    return {
        "folder": str(shards.path),
        "dataset": manifest["dataset"],
        "dataset_version": manifest["dataset_version"],
        "fs_hz": shards.fs_hz,
        "samples": shards.samples,
        "counts": manifest["counts"],
        "patients": len(set(shards.column("patient_id"))),
        "classes": count_classes(manifest["dataset"], shards.column("codes")),
        "refused_first": first_of_each(folder),
        "age": {"known": int(np.isfinite(ages).sum()), "median": round(float(np.nanmedian(ages)), 1) if np.isfinite(ages).any() else None},
        "sex": dict(Counter(shards.column("sex")).most_common()),
        "devices": dict(Counter(shards.column("device")).most_common()),
        "reports": {"distinct": len(set(reports)), "median_words": float(np.median(words)), "empty": int((words == 0).sum())},
        "signal": signal_statistics(shards),
    }


def count_classes(dataset: str, codes: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return how many recordings have each class of the task that `dataset` is counted by; {} where there is none."""
    task = CLASSES.get(dataset.removesuffix("-simulated"))
    if task is None:
        return {}
    vocabulary = load_vocabulary(task)
    found = Counter(name for of_one in codes for name in vocabulary.classes_of(of_one))
    return {name: found[name] for name in vocabulary.classes}


def first_of_each(folder: Path | str) -> dict[str, str]:
    """Return, for each reason of refusal, the first recording that it befell and what was found."""
    rejects = pq.read_table(Path(folder) / REJECTS).to_pylist()
    return {row["reason"]: f"{row['key']}: {row['detail']}" for row in reversed(rejects)}


def signal_statistics(shards: ShardFolder) -> dict[str, Any]:
    """Return, per lead, standard deviation and 1st, 50th and 99th percentile in mV over at most LOOKED_AT records."""
    rows = np.unique(np.linspace(0, len(shards) - 1, min(len(shards), LOOKED_AT)).astype(int)) if len(shards) else np.array([], int)
    if not len(rows):
        return {"records": 0, "leads": {}}
    histogram = np.zeros((len(LEADS), 2**16), np.int64)
    for row in rows:
        for of, samples in zip(histogram, shards.ecg([row])[0], strict=True):
            of += np.bincount(samples.astype(np.int32) + 2**15, minlength=2**16)
    mv = (np.arange(2**16) - 2**15) * shards.manifest["lsb_uv"] * 1e-3
    leads = {}
    for lead, counts in zip(LEADS, histogram, strict=True):
        total, share = counts.sum(), counts.cumsum() / counts.sum()
        mean = float(counts @ mv / total)
        low, middle, high = (float(mv[np.searchsorted(share, at)]) for at in (0.01, 0.5, 0.99))
        deviation = float(np.sqrt(counts @ (mv - mean) ** 2 / total))
        leads[lead] = {"sd": round(deviation, 4), "p1": round(low, 3), "p50": round(middle, 3), "p99": round(high, 3)}
    return {"records": len(rows), "leads": leads}


def plot(folder: Path | str, key: str, file: Path | str) -> Path:
    """Draw record `key` of shard folder `folder` on 12-lead ECG paper; returns `file`. Raises ShardError for an unknown key."""
    from cmelt.plots import plot_ecg

    shards = ShardFolder(folder)
    keys = shards.column("key")
    if key not in keys:
        raise ShardError(f"{folder} has no record {key!r}{did_you_mean(key, keys)}; its keys stand in index.parquet")
    row = list(keys).index(key)
    of = shards.index.slice(row, 1).to_pylist()[0]
    about = ", ".join(part for part in (of["sex"], "" if of["age"] is None else f"{of['age']:.0f} years", *of["codes"]) if part)
    plot_ecg(shards.ecg_mv([row])[0], shards.fs_hz, file, title=f"{shards.manifest['dataset']} {key}: {about}", note=of["report"])
    return Path(file)


def table(summary: dict[str, Any]) -> Group:
    """Return what ``inspect`` found as something that rich prints."""
    from rich.console import Group

    counts = summary["counts"]
    head = (
        f"{summary['dataset']} {summary['dataset_version']} in {summary['folder']}: {counts['kept']} of {counts['rows']} recordings, "
        f"{summary['patients']} patients, {summary['samples']} samples at {summary['fs_hz']:g} Hz"
    )
    reports, age = summary["reports"], summary["age"]
    people = (
        f"reports: {reports['distinct']} distinct, {reports['median_words']:g} words in the median, {reports['empty']} empty; "
        f"age: {age['median']} in the median; sex: " + ", ".join(f"{name or 'unknown'} {count}" for name, count in summary["sex"].items())
    )
    parts: list[Any] = [head, people, counts_table(counts, summary["classes"])]
    parts += [f"first {reason}: {what}" for reason, what in summary["refused_first"].items()]
    if summary["signal"]["leads"]:
        parts.append(signal_table(summary["signal"]))
    return Group(*parts)


def counts_table(counts: dict[str, Any], classes: dict[str, int]) -> Any:
    """Return splits, folds, classes, flags and refusals as one table for rich."""
    from rich.table import Table

    out = Table("", "recordings", box=None, pad_edge=False)
    out.columns[1].justify = "right"
    out.add_row("kept", str(counts["kept"]))
    for name, of in (("split", counts["splits"]), ("fold", counts["folds"]), ("class", classes)):
        for key, count in of.items():
            out.add_row(f"  {name} {key}", str(count))
    for name, count in counts["flags"].items():
        out.add_row(f"  flag {name}", str(count))
    out.add_row("refused", str(sum(counts["refused"].values())))
    for name, count in counts["refused"].items():
        out.add_row(f"  {name}", str(count))
    return out


def signal_table(signal: dict[str, Any]) -> Any:
    """Return the signal statistics as a table for rich."""
    from rich.table import Table

    title = f"mV over {signal['records']} recordings"
    out = Table("lead", "sd", "1 %", "50 %", "99 %", title=title, title_justify="left", box=None, pad_edge=False)
    for column in out.columns[1:]:
        column.justify = "right"
    for lead, of in signal["leads"].items():
        out.add_row(lead, f"{of['sd']:.3f}", *(f"{of[name]:.2f}" for name in ("p1", "p50", "p99")))
    return out
