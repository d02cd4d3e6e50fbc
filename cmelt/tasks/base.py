"""What every task starts from: a run and its shards, the recordings that have a label, and the frozen encoder's features.

N recordings, C classes, D embedding width, W encoder width.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from cmelt.config import did_you_mean
from cmelt.errors import CheckpointError, ShardError, TaskError
from cmelt.labels import TASKS, Vocabulary, load_vocabulary
from cmelt.models.cmelt import CMELT
from cmelt.models.store import SHIPPED, WEIGHTS
from cmelt.record import LEADS
from cmelt.shards.progress import told
from cmelt.shards.read import ShardFolder
from cmelt.tasks.features import Features, blocks

__all__ = ["Cohort", "Features", "Run", "default_run", "encoder_features", "load_for", "load_model", "newest_run", "on_device", "open_run"]

RUNS = Path("runs")


@dataclass(frozen=True)
class Run:
    """A run folder, and the shard folders, paths or URLs, that a task reads (the run's own, or others)."""

    folder: Path
    shards: tuple[Path | str, ...]

    def __str__(self) -> str:
        """Return the folder; of the shipped model, its name."""
        return SHIPPED.name if self.folder == SHIPPED else str(self.folder)

    @property
    def results(self) -> Path:
        """Return the folder in which tasks leave what they find: the run's own; of the shipped model, one of its name under RUNS."""
        return (RUNS / SHIPPED.name if self.folder == SHIPPED else self.folder) / "results"

    def facts(self) -> dict[str, Any]:
        """Return what a result says about where it comes from."""
        with (self.folder / WEIGHTS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"checkpoint": str(self), "checkpoint_sha256": sha256, "shards": [str(shard) for shard in self.shards]}

    @property
    def cache(self) -> Path | None:
        """Return the folder in which the run's features are kept (features.py); None where the run may not be written to."""
        there = next(folder for folder in (self.results, *self.results.absolute().parents) if folder.is_dir())
        return self.results / "features" if os.access(there, os.W_OK) else None


def newest_run(runs: Path = RUNS) -> Path:
    """Return the run folder below `runs` whose checkpoint was written last; raises CheckpointError where there is none."""
    files = sorted(runs.glob(f"*/{WEIGHTS}"), key=lambda file: (file.stat().st_mtime_ns, file))
    if not files:
        raise CheckpointError(f"no run under {runs}/; make one with cmelt pretrain --shards DIR, or name one with --run")
    return files[-1].parent


def default_run() -> Path:
    """Return the newest run, or SHIPPED where there is none under RUNS, which is said; raises CheckpointError where that is not there."""
    if any(RUNS.glob(f"*/{WEIGHTS}")) or not (SHIPPED / WEIGHTS).is_file():
        return newest_run()
    said = f"no run under {RUNS}/: taking {SHIPPED.name}, which comes with cmelt and learnt from simulated ECGs alone"
    Console(stderr=True).print(said, soft_wrap=True, highlight=False)
    return SHIPPED


def open_run(folder: Path | None, shards: Sequence[Path | str] | None, needed: bool = True) -> Run:
    """Return run `folder` (default: the newest, else SHIPPED, which goes by its name too) with `shards` (default: its training's).

    Raises CheckpointError where the run does not exist, is unfinished, or, where shards are `needed`, does not say what it was trained on.
    """
    folder = default_run() if folder is None else Path(folder)
    if str(folder) == SHIPPED.name and not folder.exists():
        folder = SHIPPED
    if not (folder / WEIGHTS).is_file():
        what = "has no checkpoint yet" if folder.is_dir() else "does not exist"
        others = [file.parent.name for file in sorted(folder.parent.glob(f"*/{WEIGHTS}"))]
        known = f"{did_you_mean(folder.name, others)}; runs there: {', '.join(others)}" if others else "; make one with cmelt pretrain"
        raise CheckpointError(f"run {folder} {what}{known}")
    if not shards:
        try:
            shards = [str(place) for place in json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["shards"]]
        except (OSError, ValueError, KeyError, TypeError):
            if not needed:
                return Run(folder, ())
            what = "comes without shards" if folder == SHIPPED else "does not say in recipe.json which shards it was trained on"
            raise CheckpointError(f"{Run(folder, ())} {what}; name shards with --shards") from None
    return Run(folder, tuple(shards))


class Cohort:
    """The recordings of one or more shard folders that have a label of `task`, in the order of the folders' rows.

    ``keys``, ``patients`` and ``split`` are (N,), ``truth`` is (N, C). Patient ids are compared within one data set only; a recording
    without one is its own patient. With several folders a key carries its data set's name. What an encoder makes of the recordings is
    kept in folder ``cache``, where there is one; only recordings for which the filter `where` is true are taken (``fold <= 8``).
    Raises TaskError where nothing has a label, InputError for a filter that is none.
    """

    def __init__(self, shards: Sequence[Path | str], task: str, cache: Path | None = None, where: str = "") -> None:
        self.vocabulary = load_vocabulary(task)
        self.cache = cache
        self.folders = [ShardFolder(path) for path in shards]
        self.told = ", ".join(map(str, self.folders)) + (f" where {where}" if where else "")
        """What the recordings are taken from, for messages."""
        fit_each_other(self.folders)
        self.datasets = [str(folder.manifest["dataset"]) for folder in self.folders]
        folder_of, row_of, keys, patients, split, truth = [], [], [], [], [], []
        for number, (folder, dataset) in enumerate(zip(self.folders, self.datasets, strict=True)):
            codes: list[Sequence[str]] = folder.column("codes")  # type: ignore[assignment]
            _refuse_foreign(folder, self.vocabulary, codes)
            labels = self.vocabulary.targets(codes)
            rows = folder.rows(where=where)
            rows = rows[labels[rows].any(1)]
            key, patient, fold = (np.asarray(folder.column(name), dtype=object)[rows] for name in ("key", "patient_id", "split"))
            folder_of.append(np.full(len(rows), number))
            row_of.append(rows)
            keys += [f"{dataset}/{k}" for k in key] if len(self.folders) > 1 else [str(k) for k in key]
            patients += [f"{dataset}/{p}" if p else f"{dataset}/recording/{k}" for p, k in zip(patient, key, strict=True)]
            split += [str(name) for name in fold]
            truth.append(labels[rows])
        self.folder_of, self.row_of = np.concatenate(folder_of), np.concatenate(row_of)
        self.keys, self.patients, self.split = np.array(keys, str), np.array(patients, str), np.array(split, str)
        self.truth: NDArray[np.int8] = np.concatenate(truth)
        if not len(self):
            raise TaskError(
                f"no recording of {self.told} has a label of task {task!r} "
                f"(codes of {self.vocabulary.table}); take another --task or other --shards"
            )

    def __len__(self) -> int:
        """Return N."""
        return len(self.row_of)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes of the task, in the order of the columns of ``truth``."""
        return self.vocabulary.classes

    @property
    def fs_hz(self) -> float:
        """Return the sampling rate of every folder."""
        return self.folders[0].fs_hz

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return which of the N belong to `split`; raises TaskError where none does."""
        rows = np.flatnonzero(self.split == split)
        if not len(rows):
            raise TaskError(
                f"no recording in the {split} split of {self.told} has a label of task {self.vocabulary.name!r}; "
                "add such recordings, or name others with --shards"
            )
        return rows

    def ecg_mv(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the ECGs (len(rows), 12, samples) of `rows` in mV."""
        out = np.empty((len(rows), len(LEADS), self.folders[0].samples), np.float32)
        for number, folder in enumerate(self.folders):
            here = np.flatnonzero(self.folder_of[rows] == number)
            if len(here):
                out[here] = folder.ecg_mv(self.row_of[rows[here]])
        return out

    def batches(self, size: int, what: str, quiet: bool = False, rows: NDArray[np.intp] | None = None) -> Iterator[NDArray[np.float32]]:
        """Yield the ECGs of `rows` (default: all N) in batches, saying on standard error how far it is."""
        rows = np.arange(len(self)) if rows is None else rows
        with told(what, len(rows), quiet) as advance:
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                yield self.ecg_mv(some)
                advance(len(some))


def load_model(run: Run, cohort: Cohort) -> CMELT:
    """Return the run's model on the best device there is; raises CheckpointError where it was made for other ECGs than `cohort`'s."""
    return load_for(run, cohort.folders)


def load_for(run: Run, folders: Sequence[ShardFolder]) -> CMELT:
    """Return the run's model on the best device there is; raises CheckpointError where `folders` hold other ECGs than it was made for."""
    model = CMELT.from_pretrained(run.folder)
    wants = model.config.fs_hz, model.config.samples
    for folder in folders:
        has = folder.fs_hz, folder.samples
        if wants != has:
            raise CheckpointError(
                f"run {run} reads {wants[1]} samples at {wants[0]:g} Hz, but {folder} holds {has[1]} at {has[0]:g} Hz; "
                f"ingest with --set signal.fs_hz={wants[0]:g} --set signal.duration_s={wants[1] / wants[0]:g}"
            )
    if folders:
        fit_each_other(folders)
    return on_device(model)


def on_device(model: CMELT) -> CMELT:
    """Return `model` in evaluation mode on a GPU where there is one."""
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def encoder_features(
    model: CMELT,
    cohort: Cohort,
    what: str = "features",
    quiet: bool = False,
    rows: NDArray[np.intp] | None = None,
    batch: int = 64,
    side: str = "ecg",
) -> Features:
    """Return the frozen encoder's features of `rows` of `cohort` (default: all), each ECG encoded once, nothing masked.

    `side` is one of those that read ECGs: ``ecg``, ``entities``.
    """
    rows = np.arange(len(cohort)) if rows is None else rows
    out: Features = {}
    with told(what, len(rows), quiet) as advance:
        for number, folder in enumerate(cohort.folders):
            here = np.flatnonzero(cohort.folder_of[rows] == number)
            for at, part in blocks(model, folder, cohort.row_of[rows[here]], side, cohort.cache, advance, batch):
                for name, values in part.items():
                    out.setdefault(name, np.empty((len(rows), values.shape[1]), np.float32))[here[at]] = values
    return out


def fit_each_other(folders: Sequence[ShardFolder]) -> None:
    """Raise ShardError where folders differ in rate, length or leads, or hold other leads than LEADS in their order."""
    first = folders[0]
    for folder in folders:
        if folder.leads != LEADS:
            raise ShardError(f"{folder} holds leads {', '.join(folder.leads)}; wanted is {', '.join(LEADS)}: ingest it again")
        if (folder.fs_hz, folder.samples) != (first.fs_hz, first.samples):
            raise ShardError(
                f"{folder} holds {folder.samples} samples at {folder.fs_hz:g} Hz, {first} {first.samples} at {first.fs_hz:g} Hz; "
                "ingest both with the same recipe"
            )


def _refuse_foreign(folder: ShardFolder, vocabulary: Vocabulary, codes: Sequence[Sequence[str]]) -> None:
    """Raise TaskError where PTB-XL's statements stand behind a task of another data set: some names (AFIB, 1AVB) are in both."""
    distinct = {code for some in codes for code in some}
    statements = load_vocabulary("all")
    if vocabulary.table != statements.table and len(statements.unknown(distinct)) < len(vocabulary.unknown(distinct)):
        tasks = ", ".join(name for name, (table, _) in TASKS.items() if table == statements.table)
        raise TaskError(f"{folder} is labelled with PTB-XL's statements, not with codes of task {vocabulary.name!r}; tasks for it: {tasks}")
