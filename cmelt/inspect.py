"""What a shard folder holds: in numbers, as a page, and one record of it as a picture. Patients' ids only where they are asked for."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt.config import did_you_mean
from cmelt.errors import ShardError
from cmelt.labels import load_vocabulary
from cmelt.record import LEADS
from cmelt.shards.format import REJECTS
from cmelt.shards.read import ShardFolder
from cmelt.signal.checks import median_height_mv
from cmelt.text.language import language_of

if TYPE_CHECKING:
    from rich.console import Group

    from cmelt.page import Example

CLASSES = {
    "ptbxl": "superclass",
    "cinc2021": "cinc2021",
    "cpsc2018": "cpsc2018",
    "csn": "csn",
    "code15": "code",
    "code-test": "code",
}
"""The task whose classes a data set's codes are counted by."""

OWN = ("wfdb", "files")
"""Families whose files were named by their owner, perhaps after patients."""

FEW = 10
"""So many classes are told all, also those that no recording has."""

EXAMPLES, WORST = 12, 5
"""Recordings that a page shows, and how many of them for their flags."""

DOUBTS = (
    "arm_leads_reversed",
    "augmented_leads_swapped",
    "limb_leads_disagree",
    "leads_zeroed",
    "flat_lead",
    "saturated",
    "gain_doubtful",
    "amplitude_unusual",
    "clipped",
    "nan_filled",
    "mains_noise",
    "gain_assumed",
)
"""Flags that doubt a recording, the gravest first."""

LOOKED_AT = 2000
"""Records whose samples are read for the signal statistics; a larger folder is sampled evenly."""


def inspect(folder: Path | str, *, with_ids: bool = False) -> dict[str, Any]:
    """Return what shard folder `folder` holds: counts, classes, folds, flags, refusals, reports, signal statistics in mV.

    What is told of single recordings names no folders and no patients, unless `with_ids`.
    """
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
        "patients": len(set(shards.column("patient_id")) - {""}),
        "task": task_of(manifest["dataset"]),
        "classes": count_classes(manifest["dataset"], recordings_codes(shards)),
        "refused_first": first_of_each(shards, with_ids),
        "age": {"known": int(np.isfinite(ages).sum()), "median": round(float(np.nanmedian(ages)), 1) if np.isfinite(ages).any() else None},
        "sex": dict(Counter(shards.column("sex")).most_common()),
        "devices": dict(Counter(shards.column("device")).most_common()),
        "reports": {"distinct": len(set(reports)), "median_words": float(np.median(words)), "empty": int((words == 0).sum())},
        "signal": signal_statistics(shards),
    }


def task_of(dataset: str) -> str:
    """Return the task that `dataset` is counted by, '' where there is none."""
    return CLASSES.get(dataset.removesuffix("-simulated"), "")


def recordings_codes(shards: ShardFolder) -> Iterable[list[str]]:
    """Return the codes of each recording, of which every window has them."""
    return dict(zip(shards.column("source"), shards.column("codes"), strict=True)).values()


def count_classes(dataset: str, codes: Iterable[Iterable[str]]) -> dict[str, int]:
    """Return how many recordings have each class of the task that `dataset` is counted by; {} where there is none."""
    task = task_of(dataset)
    if not task:
        return {}
    vocabulary = load_vocabulary(task)
    found = Counter(name for of_one in codes for name in vocabulary.classes_of(of_one))
    return {name: found[name] for name in vocabulary.classes}


def first_of_each(shards: ShardFolder, with_ids: bool) -> dict[str, str]:
    """Return, for each reason of refusal, the first recording that it befell and what was found."""
    rejects = pq.read_table(shards.path / REJECTS).to_pylist()
    first = {row["reason"]: row for row in reversed(rejects)}
    if with_ids:
        return {reason: f"{row['key']}: {row['detail']}" for reason, row in first.items()}
    hide = Hide(shards)
    return {reason: f"{hide.key(row['key'])}: {hide.text(row['detail'], row['source'])}" for reason, row in first.items()}


class Hide:
    """What may be told of a recording to whom patients are unknown: no folders (they are named by patients), no patient ids."""

    def __init__(self, shards: ShardFolder) -> None:
        self.is_own = shards.manifest["dataset"] in OWN
        self.patients = set(shards.column("patient_id")) - {""}

    def key(self, key: str) -> str:
        """Return a recording's key; a digest of it where files were named by their owner, or it is a patient's id."""
        if self.is_own or key in self.patients:
            return "recording " + hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
        return key

    def text(self, text: str, path: str) -> str:
        """Return what was said of the recording at `path`, its folders and any patient's id out of it."""
        return self.report(re.sub(r"[^\s'\"]*/(?=[^\s/])", "…/", self._nameless(text, path)), path)

    def report(self, text: str, path: str) -> str:
        """Return the report of the recording at `path`, its file's name and any patient's id out of it."""
        text = self._nameless(text, path)
        return re.sub(r"[\w-]+", lambda word: "…" if word[0] in self.patients else word[0], text)

    def _nameless(self, text: str, path: str) -> str:
        """Return `text` without the names of the file at `path`, where its owner named it."""
        file = path.rpartition("/")[2]
        for name in filter(None, (path, path.rpartition(".")[0], file, file.rpartition(".")[0])):
            text = text.replace(name, "…") if self.is_own else text
        return text


def looked_at(shards: ShardFolder) -> NDArray[np.int64]:
    """Return the rows whose samples are read: all of them, or LOOKED_AT at even distances."""
    return np.unique(np.linspace(0, len(shards) - 1, min(len(shards), LOOKED_AT)).astype(int)) if len(shards) else np.array([], int)


def signal_statistics(shards: ShardFolder) -> dict[str, Any]:
    """Return, per lead, standard deviation and 1st, 50th and 99th percentile in mV over at most LOOKED_AT records."""
    rows = looked_at(shards)
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


def page(folder: Path | str, file: Path | str, *, with_ids: bool = False) -> Path:
    """Write `file`, one self-contained page about shard folder `folder`; returns its path. Patients' ids stand in it only `with_ids`."""
    from cmelt.page import write_shard_page
    from cmelt.signal.beats import heart_rate_bpm  # imports scipy.signal, a second of each ingest worker

    shards = ShardFolder(folder)
    rows = looked_at(shards)
    amplitude, rate = np.empty(len(rows)), np.empty(len(rows))
    for at, row in enumerate(rows):
        signal = shards.ecg_mv([row])[0]
        amplitude[at], rate[at] = median_height_mv(signal, shards.fs_hz), heart_rate_bpm(signal, shards.fs_hz)
    made = ["report_from_labels" in flags for flags in shards.column("flags")]
    said = zip(shards.column("report_raw"), made, strict=True)
    return write_shard_page(
        file,
        inspect(folder, with_ids=with_ids),
        report_words=[len(report.split()) for report in shards.column("report")],
        languages=dict(Counter("made from labels" if made else language_of(report) for report, made in said).most_common()),
        amplitude_mv=amplitude,
        heart_rate_bpm=rate,
        examples=examples(shards, rows, amplitude, rate, with_ids),
        with_ids=with_ids,
    )


def examples(
    shards: ShardFolder, rows: NDArray[np.int64], amplitude_mv: NDArray[np.float64], rate_bpm: NDArray[np.float64], with_ids: bool
) -> list[Example]:
    """Return EXAMPLES recordings to look at, in this order: the worst flagged, the extremes of `rows`, and some drawn by a hash."""
    from cmelt.page import Example

    why = worst_flagged(shards)
    if len(rows):
        high, low = int(np.argmax(amplitude_mv)), int(np.argmin(amplitude_mv))
        extremes = {high: f"largest: {amplitude_mv[high]:.2f} mV", low: f"smallest: {amplitude_mv[low]:.2f} mV"}
        if np.isfinite(rate_bpm).any():
            fast, slow = int(np.nanargmax(rate_bpm)), int(np.nanargmin(rate_bpm))
            extremes |= {fast: f"fastest: {rate_bpm[fast]:.0f} a minute", slow: f"slowest: {rate_bpm[slow]:.0f} a minute"}
        for at, what in extremes.items():
            why.setdefault(int(rows[at]), what)
    drawn = [hashlib.blake2b(str(key).encode(), digest_size=8).digest() for key in shards.column("key")]
    for row in sorted(range(len(shards)), key=drawn.__getitem__)[: 2 * EXAMPLES]:
        if len(why) < EXAMPLES:
            why.setdefault(row, "drawn at random")
    hide = None if with_ids else Hide(shards)
    found = []
    for row, what in why.items():
        of = shards.index.slice(row, 1).to_pylist()[0]
        key, report = (hide.key(of["key"]), hide.report(of["report"], of["source"])) if hide else (of["key"], of["report"])
        about = {name: of[name] for name in ("flags", "age", "sex", "patient_id")}
        found.append(Example(key, shards.ecg_mv([row])[0], report, why=what, **about))
    return found


def worst_flagged(shards: ShardFolder) -> dict[int, str]:
    """Return at most WORST rows and why: each shows most of the flags of DOUBTS that the ones before it do not, the gravest first."""
    doubts = {row: found for row, flags in enumerate(shards.column("flags")) if (found := set(flags) & set(DOUBTS))}
    gravity = {flag: len(DOUBTS) - at for at, flag in enumerate(DOUBTS)}
    chosen: dict[int, str] = {}
    shown: set[str] = set()
    while doubts and len(chosen) < WORST:
        row = max(doubts, key=lambda row: (sum(gravity[flag] for flag in doubts[row] - shown), sum(gravity[flag] for flag in doubts[row])))
        shown |= doubts.pop(row)
        chosen[row] = "worst flagged"
    return chosen


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
        f"{summary['patients'] or 'unknown'} patients, {summary['samples']} samples at {summary['fs_hz']:g} Hz"
    )
    reports, median = summary["reports"], summary["age"]["median"]
    aged = "unknown" if median is None else f"{median} in the median"
    people = (
        f"reports: {reports['distinct']} distinct, {reports['median_words']:g} words in the median, {reports['empty']} empty; "
        f"age: {aged}; sex: " + ", ".join(f"{name or 'unknown'} {count}" for name, count in summary["sex"].items())
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
            if count or name != "class" or len(of) <= FEW:  # the superclasses all, of fifty classes those that occur
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
