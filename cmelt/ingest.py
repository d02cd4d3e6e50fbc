"""Raw recordings in, a shard folder out: plan, shards, commit.

The plan says which recording goes into which shard; a shard is the unit of work, on this process or on several; the
manifest is written last. Whatever is not kept is a row of ``rejects.parquet``, so rows = kept + refused, always.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmelt import __version__
from cmelt.config import IngestRecipe
from cmelt.datasets import open_dataset
from cmelt.datasets.base import Dataset
from cmelt.datasets.published import LABELLED, differences
from cmelt.datasets.splits import apply_splits, read_splits
from cmelt.errors import RecordError
from cmelt.inspect import count_classes, counts_table
from cmelt.labels import load_vocabulary
from cmelt.raw import Raw
from cmelt.record import Record, Refused, Source
from cmelt.shards.commit import claim, commit, finish_shard, pending
from cmelt.shards.plan import WORK, make_plan, read_sources
from cmelt.shards.read import ShardFolder
from cmelt.shards.readme import readme
from cmelt.shards.workers import available_cores, run_tasks
from cmelt.shards.write import write_shard
from cmelt.signal.checks import check
from cmelt.signal.condition import repair, window_samples, windows
from cmelt.signal.decode import Decoded
from cmelt.text.reports import clean_report

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True, slots=True)
class ShardTask:
    """All that a worker must know to make one shard."""

    raw: str
    out: Path
    number: int
    name: str
    dataset: str
    mains_hz: float
    decoder: str
    layout: dict[str, Any]
    recipe: IngestRecipe


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What an ingest did."""

    out: Path
    manifest: dict[str, Any]
    classes: dict[str, int]
    """Kept recordings by PTB-XL superclass; empty for other data sets."""
    seconds: float
    done_before: bool
    """Whether the folder was finished already, from the same plan."""
    differences: list[str]
    """In what this is not the published data set, in words."""

    @property
    def kept(self) -> int:
        """Return how many recordings were kept."""
        kept: int = self.manifest["counts"]["kept"]
        return kept

    @property
    def refused(self) -> dict[str, int]:
        """Return how many recordings were refused, by reason."""
        refused: dict[str, int] = self.manifest["counts"]["refused"]
        return refused

    def as_dict(self) -> dict[str, Any]:
        """Return the summary for machines."""
        return {
            "out": str(self.out),
            "dataset": self.manifest["dataset"],
            "dataset_version": self.manifest["dataset_version"],
            **self.manifest["counts"],
            "classes": self.classes,
            "seconds": round(self.seconds, 2),
            "done_before": self.done_before,
            "differences": self.differences,
        }

    def table(self) -> Group:
        """Return the summary as something that rich prints."""
        from rich.console import Group

        counts = self.manifest["counts"]
        rate = "done before" if self.done_before else f"{self.seconds:.1f} s, {self.kept / self.seconds:.0f} records/s"
        head = f"{self.out}: {self.kept} of {counts['rows']} recordings kept ({rate})"
        return Group(head, counts_table(counts, self.classes), *(f"DIFFERS: {what}" for what in self.differences))


def ingest(
    dataset: str,
    raw: Path | str,
    out: Path | str,
    recipe: IngestRecipe,
    *,
    workers: int | None = None,
    splits: Path | str | None = None,
    **options: Any,
) -> IngestSummary:
    """Turn the raw folder of `dataset` into shard folder `out`; `options` are the data set's own (PTB-XL: records100=True).

    Splits are the data set's, or those of the split files in folder `splits`.
    Rerun after an interruption, the same call goes on where it stopped. Raises InputError and OutputError.
    """
    began, out = time.monotonic(), Path(out)
    data = open_dataset(dataset, Raw(raw), **options)
    found = data.sources()
    if splits:
        given = read_splits(splits)
        data.split_rule, found = given.rule, apply_splits(found, given)
    plan = make_plan(found, terms(data, recipe), recipe.shards.samples_per_shard, recipe.shards.seed)
    done_before = claim(out, plan)
    if not done_before:
        how = (dataset, data.mains_hz, data.decoder, dict(data.layout), recipe)
        tasks = [ShardTask(str(Path(raw).absolute()), out.absolute(), number, plan.shards[number], *how) for number in pending(out, plan)]
        with Progress(sum(plan.planned[task.number] for task in tasks)) as progress:
            if (workers or available_cores()) == 1 or len(tasks) < 2:
                for task in tasks:
                    make_shard(task, progress.advance)
            else:
                for done in run_tasks(make_shard, tasks, workers or available_cores()):
                    progress.advance(done)
        about = functools.partial(readme, title=data.title, licence=data.licence, access=data.access)
        commit(out, plan, recipe.signal.fs_hz, window_samples(recipe.signal), about)
    shards = ShardFolder(out)
    classes = count_classes(data.name, shards.column("codes"))
    return IngestSummary(out, shards.manifest, classes, time.monotonic() - began, done_before, compare(shards))


def compare(shards: ShardFolder) -> list[str]:
    """Return in what a shard folder is not the published data set, in words."""
    manifest, counts = shards.manifest, shards.manifest["counts"]
    published = (manifest["dataset"], manifest["dataset_version"])
    labelled = {}
    if counts["kept"] == counts["rows"] and published in LABELLED:
        codes = dict(zip(shards.column("source"), shards.column("codes"), strict=True)).values()
        labelled = {task: sum(map(bool, map(load_vocabulary(task).classes_of, codes))) for task in LABELLED[published]}
    return differences(*published, counts["rows"], counts["kept"], labelled, tuple(manifest["options"].get("databases", ())))


def terms(data: Dataset, recipe: IngestRecipe) -> dict[str, Any]:
    """Return what the bytes of a shard folder depend on, but for the recordings."""
    return {
        "dataset": data.name,
        "dataset_version": data.version,
        "options": data.options,
        "mains_hz": data.mains_hz,
        "split_rule": data.split_rule,
        "recipe": recipe.model_dump(mode="json"),
        "cmelt_version": __version__,
    }


def make_shard(task: ShardTask, advance: Callable[[int], None] | None = None) -> int:
    """Make one shard, and write down what became of each recording; returns how many it was planned to have.

    `advance` is told of each recording as it is done.
    """
    work, raw = task.out / WORK, Raw(task.raw)
    sources = read_sources(work, task.number)
    refused: list[Refused] = []
    records = make_records(task, raw, sources, refused, advance)
    first = next(records, None)
    shard, rows = (None, []) if first is None else write_shard(task.out / task.name, itertools.chain((first,), records))
    finish_shard(work, task.name, shard, rows, refused)
    return len(sources)


def make_records(
    task: ShardTask, raw: Raw, sources: list[Source], refused: list[Refused], advance: Callable[[int], None] | None
) -> Iterator[Record]:
    """Yield the Record of each Source that has one; why others have none is added to `refused`."""
    for source in sources:
        try:
            yield from make_windows(task, raw, source)
        except RecordError as error:
            refused.append(Refused(source.key, source.path, error.reason, error.detail))
        if advance:
            advance(1)


def make_windows(task: ShardTask, raw: Raw, source: Source) -> list[Record]:
    """Return what becomes of one Source, a Record a window: decoded, checked, conditioned, its report cleaned; raises RecordError."""
    decoded = resolve(task.decoder)(raw, source.path, **task.layout)
    raw_duration_s = decoded.signal.shape[1] / decoded.fs_hz
    if (source.age is None and decoded.age is not None) or (not source.sex and decoded.sex):
        source = replace(source, age=decoded.age if source.age is None else source.age, sex=source.sex or decoded.sex)
    flags = [*source.flags, *decoded.flags, *repair(decoded, task.recipe.signal)]
    flags += check(decoded.signal, decoded.fs_hz, decoded.present)
    found = windows(decoded, task.recipe.signal, source.mains_hz or task.mains_hz)
    report = clean_report(source.report_raw, task.dataset)
    return [
        Record(
            signal=window.signal,
            fs_hz=task.recipe.signal.fs_hz,
            source=replace(source, key=f"{source.key}_w{number:04d}") if len(found) > 1 else source,
            fs_raw_hz=decoded.fs_hz,
            raw_duration_s=raw_duration_s,
            start_s=window.start_s,
            report=report,
            signal_sha1=decoded.signal_sha1,
            flags=list(dict.fromkeys([*flags, *window.flags])),
        )
        for number, window in enumerate(found)
    ]


@functools.cache
def resolve(name: str) -> Callable[..., Decoded]:
    """Return the decoder that ``module:name`` names."""
    module, _, function = name.partition(":")
    found: Callable[..., Decoded] = getattr(importlib.import_module(module), function)
    return found


INTERVAL_S = 10.0
"""Between two plain lines of progress."""


class Progress:
    """How far an ingest is: a live bar with records/s on a terminal, else a plain line now and then; both on stderr."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.began = self.said = time.monotonic()

    def __enter__(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = Console(stderr=True)
        columns = (TextColumn("ingest"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.task = self.bar.add_task("ingest", total=self.total, rate="")
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, records: int) -> None:
        """Count `records` more as done."""
        self.done += records
        now = time.monotonic()
        rate = f"{self.done / max(now - self.began, 1e-9):.0f} records/s"
        self.bar.update(self.task, completed=self.done, rate=rate)
        if not self.console.is_terminal and now - self.said > INTERVAL_S:
            self.said = now
            self.console.print(f"ingest: {self.done} of {self.total} recordings, {rate}")
