"""Raw recordings in, a shard folder out: plan, shards, commit.

The plan says which recording goes into which shard; a shard is the unit of work, on this process or on several; the
manifest is written last. Whatever is not kept is a row of ``rejects.parquet``, so rows = kept + refused, always.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from cmelt import __version__
from cmelt.config import IngestRecipe
from cmelt.datasets import open_dataset
from cmelt.datasets.base import Dataset
from cmelt.datasets.published import LABELLED, differences
from cmelt.datasets.splits import apply_splits, read_splits
from cmelt.errors import InputError, RecordError
from cmelt.inspect import count_classes, counts_table
from cmelt.labels import load_vocabulary
from cmelt.raw import Raw
from cmelt.record import LEADS, Record, Refused, Source
from cmelt.remote import local_path
from cmelt.shards.commit import check_place, claim, commit, finish_shard, pending, settle
from cmelt.shards.croissant import croissant
from cmelt.shards.format import CROISSANT, INDEX, MANIFEST, README
from cmelt.shards.grow import read_base
from cmelt.shards.manifest import parse_manifest
from cmelt.shards.plan import Plan, make_plan, read_sources
from cmelt.shards.progress import Progress
from cmelt.shards.readme import About, readme
from cmelt.shards.store import Store
from cmelt.shards.workers import MakeExecutor, available_cores, dask, find_dask, processes, run_tasks
from cmelt.shards.write import write_shard
from cmelt.signal.checks import check
from cmelt.signal.condition import repair, window_samples, windows
from cmelt.signal.decode import Decoded
from cmelt.text.reports import clean_report

if TYPE_CHECKING:
    from rich.console import Group

KEPT_BYTES = 16 << 20
"""Once so much was freed in one piece, glibc's malloc keeps what is freed later: each record's arrays need no new pages."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """All that a worker must know to make one shard."""

    raw: str
    out: str
    number: int
    name: str
    dataset: str
    mains_hz: float
    decoder: str
    layout: dict[str, Any]
    recipe: IngestRecipe


@dataclass(frozen=True, slots=True)
class ShardDone:
    """What became of one shard; `bytes` are 0 where nothing was kept."""

    name: str
    planned: int
    samples: int
    refused: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What an ingest did."""

    out: str
    manifest: dict[str, Any]
    classes: dict[str, int]
    """Kept recordings by the classes of the data set's own task; empty where it has none."""
    seconds: float
    done_before: bool
    """Whether the folder was finished already, from the same plan."""
    differences: list[str]
    """In what this is not the published data set, in words."""
    shards: list[ShardDone]
    """The shards that were made this time."""

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
            "out": self.out,
            "dataset": self.manifest["dataset"],
            "dataset_version": self.manifest["dataset_version"],
            **self.manifest["counts"],
            "classes": self.classes,
            "seconds": round(self.seconds, 2),
            "done_before": self.done_before,
            "differences": self.differences,
            "shards": [asdict(shard) for shard in self.shards],
        }

    def table(self) -> Group:
        """Return the summary as something that rich prints."""
        from rich.console import Group

        counts, made = self.manifest["counts"], sum(shard.planned for shard in self.shards)
        rate = "done before" if self.done_before else f"{self.seconds:.1f} s, {made / self.seconds:.0f} records/s"
        head = f"{self.out}: {self.kept} of {counts['rows']} recordings kept ({rate})"
        return Group(head, counts_table(counts, self.classes), *(f"DIFFERS: {what}" for what in self.differences))


def ingest(
    dataset: str,
    raw: Path | str,
    out: Path | str,
    recipe: IngestRecipe,
    *,
    workers: int | None = None,
    executor: MakeExecutor | None = None,
    cluster: str = "",
    splits: Path | str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    extend: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> IngestSummary:
    """Turn the raw folder of `dataset` into shard folder `out`; `options` are the data set's own (PTB-XL: records100=True).

    Both may be URLs. Splits are the data set's, or those of the split files in folder `splits`. Shards are made by `workers` processes,
    by the Dask `cluster` (address or scheduler file), or by whatever `executor` makes. `limit` stops at so many recordings; `overwrite`
    removes what cmelt made in `out` from another plan; `extend` adds what a finished `out` does not name yet, and `retry_failed` tries
    again what it refused. Rerun after an interruption, the same call goes on where it stopped. Raises InputError and OutputError.
    """
    began, store = time.monotonic(), open_place(out, overwrite, extend or retry_failed)
    cluster = find_dask(cluster) if cluster else ""
    settle(store)
    data, plan, new = draw_plan(dataset, raw, store, recipe, splits, limit, extend, retry_failed, options)
    made: list[ShardDone] = []
    if new:
        store.make()
        with store.alone():
            done_before = claim(store, plan, overwrite)
            if not done_before:
                tasks = make_tasks(data, dataset, raw, store, plan, recipe, pending(store, plan, retry_failed))
                cores = workers or available_cores()
                with contextlib.ExitStack() as stack:
                    makes = stack.enter_context(dask(cluster, cores)) if cluster else executor
                    made = make_shards(store, plan, tasks, cores, makes, window_samples(recipe.signal))
                commit(store, plan, recipe.signal.fs_hz, window_samples(recipe.signal), functools.partial(papers, data))
    manifest = parse_manifest(store.read(MANIFEST), f"{store}/{MANIFEST}")
    classes = count_classes(data.name, kept_codes(store))
    done_before = not new or done_before
    return IngestSummary(str(out), manifest, classes, time.monotonic() - began, done_before, compare(store, manifest), made)


def open_place(out: Path | str, overwrite: bool, go_on: bool) -> Store:
    """Return the place `out`, where shards may be made; raises OutputError, and InputError where it cannot be done as asked."""
    if overwrite and go_on:
        raise InputError("--overwrite begins anew, --extend and --retry-failed go on; give one of them")
    store = Store(out)
    check_place(store)
    return store


def draw_plan(
    dataset: str,
    raw: Path | str,
    store: Store,
    recipe: IngestRecipe,
    splits: Path | str | None,
    limit: int | None,
    extend: bool,
    retry: bool,
    options: dict[str, Any],
) -> tuple[Dataset, Plan, bool]:
    """Return the data set in `raw`, the plan of what is to be done, and whether that is anything where a finished folder grows."""
    data = open_dataset(dataset, Raw(raw), **options)
    found = data.sources()
    if splits:
        given = read_splits(splits)
        data.split_rule, found = given.rule, apply_splits(found, given)
    said = terms(data, recipe) | ({"limit": limit} if limit else {})
    base = read_base(store) if extend or retry else None
    if not base:
        return data, make_plan(first(found, limit), said, recipe.shards.samples_per_shard, recipe.shards.seed), True
    base.check(said)
    said["extends"] = base.manifest["plan_sha256"]
    grown = itertools.chain(first(base.new(found, extend, retry), limit), base.standing())
    shards = recipe.shards
    plan = make_plan(grown, said, shards.samples_per_shard, shards.seed, first_shard=base.shards, taken=base.keys)
    return data, plan, bool(len(plan.sources)) or len(plan.refused) > len(base.rejects)


def first(found: Iterable[Source | Refused], limit: int | None) -> Iterator[Source | Refused]:
    """Yield of `found` what comes before the recording after the `limit`-th; refusals on the way are not counted."""
    left = limit
    for item in found:
        if left is not None and isinstance(item, Source):
            if left == 0:
                return
            left -= 1
        yield item


def make_tasks(
    data: Dataset, dataset: str, raw: Path | str, store: Store, plan: Plan, recipe: IngestRecipe, numbers: Iterable[int]
) -> list[ShardTask]:
    """Return the work of making shards `numbers` of `plan`."""
    places = [str(path.absolute()) if (path := local_path(place)) else str(place) for place in (raw, str(store))]
    how = (dataset, data.mains_hz, data.decoder, dict(data.layout), recipe)
    return [ShardTask(places[0], places[1], number, plan.shards[number], *how) for number in numbers]


def make_shards(
    store: Store, plan: Plan, tasks: list[ShardTask], workers: int, executor: MakeExecutor | None, samples: int
) -> list[ShardDone]:
    """Make the shards of `tasks`, here or on workers, and show how far that is; returns what became of each."""
    made = []
    total = sum(plan.planned[task.number] for task in tasks)
    with Progress(store, len(tasks), total, len(LEADS) * 2 * samples) as progress:
        if executor is None and (workers == 1 or len(tasks) < 2):
            results: Iterable[ShardDone] = (make_shard(task, progress.advance) for task in tasks)
        else:
            results = run_tasks(make_shard, tasks, workers, executor or processes, progress.look)
        for done in results:
            made.append(done)
            progress.finish(done.planned, done.refused)
    return sorted(made, key=lambda done: done.name)


def kept_codes(store: Store) -> Iterator[list[str]]:
    """Yield the codes of each kept recording, shard by shard: an index may be larger than memory."""
    with store.open(INDEX) as file:
        index = pq.ParquetFile(file)
        for number in range(index.num_row_groups):
            rows = index.read_row_group(number, ["source", "codes"], use_threads=False)
            yield from dict(zip(rows.column("source").to_pylist(), rows.column("codes").to_pylist(), strict=True)).values()


def papers(data: Dataset, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Return the files that tell people and tools what a folder with `manifest`, made from `data`, holds."""
    about = About(data.title, data.licence, data.access, data.citation)
    return {README: readme(manifest, about).encode(), CROISSANT: croissant(manifest, about)}


def compare(store: Store, manifest: dict[str, Any]) -> list[str]:
    """Return in what a shard folder is not the published data set, in words."""
    counts, published = manifest["counts"], (manifest["dataset"], manifest["dataset_version"])
    labelled = {}
    if counts["kept"] == counts["rows"] and published in LABELLED:
        tasks = {task: load_vocabulary(task) for task in LABELLED[published]}
        found = Counter(task for codes in kept_codes(store) for task, vocabulary in tasks.items() if vocabulary.classes_of(codes))
        labelled = {task: found[task] for task in tasks}
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


def make_shard(task: ShardTask, advance: Callable[[], None] | None = None) -> ShardDone:
    """Make one shard, and write down what became of each recording; `advance` is told of each as it is done."""
    began, store, raw = time.monotonic(), Store(task.out), Raw(task.raw)
    with store.busy(), threadpool_limits(1):  # a core a worker, and products summed in one order
        np.empty(KEPT_BYTES, np.uint8)
        sources = read_sources(store, task.number)
        refused: list[Refused] = []
        records = make_records(task, raw, sources, refused, advance)
        first = next(records, None)
        shard, rows = None, list[dict[str, Any]]()
        if first is not None:
            with store.whole(task.name) as path:
                shard, rows = write_shard(path, itertools.chain((first,), records))
        seconds = time.monotonic() - began
        finish_shard(store, task.name, shard, rows, refused, seconds)
    return ShardDone(task.name, len(sources), len(rows), len(refused), shard.bytes if shard else 0, round(seconds, 3))


def make_records(
    task: ShardTask, raw: Raw, sources: list[Source], refused: list[Refused], advance: Callable[[], None] | None
) -> Iterator[Record]:
    """Yield the Record of each Source that has one; why others have none is added to `refused`."""
    for source in sources:
        try:
            yield from make_windows(task, raw, source)
        except RecordError as error:
            refused.append(Refused(source.key, source.path, error.reason, error.detail))
        if advance:
            advance()


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
