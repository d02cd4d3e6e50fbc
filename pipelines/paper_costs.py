"""What the steps of `pipelines/paper.sh` would take here: a few recordings of each data set and a few training steps are made to see."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmelt.cli_options import console
from cmelt.errors import CmeltError
from cmelt.estimate import estimate
from cmelt.ingest import ingest
from cmelt.labels import load_vocabulary
from cmelt.remote import free_bytes
from cmelt.shards.manifest import read_manifest
from cmelt.shards.workers import available_cores
from cmelt.verify import verify

if TYPE_CHECKING:
    from pipelines.paper import Paper, Step

TRIED = 16
"""Recordings that are ingested for good, into a temporary folder, to see how fast they are verified."""
TRAINED, HELD_OUT = 0.8, 0.2
FITS = 6.05
"""Fits of a probe in whole training folds: five draws of 1 %, five of 10 %, one of 100 %; and RANDOM times the same on random encoders."""
RANDOM = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """About how long, how large on disk, and how much memory, in seconds and bytes."""

    seconds: float = 0.0
    disk: float = 0.0
    memory: float = 0.0

    def line(self) -> str:
        """Return the cost in words."""
        return f"about {duration(self.seconds)}, {size(self.disk)} of disk, {size(self.memory)} of memory"


class Costs:
    """The rates of this machine, measured as they are asked for."""

    def __init__(self, paper: Paper) -> None:
        from cmelt.rates import fit_seconds, measure

        self.paper, self.notes = paper, list[str]()
        self.workers = paper.asked.workers or available_cores()
        self.recordings: dict[str, int] = {}
        self.bytes: dict[str, float] = {}
        self.left: dict[str, Cost] = {}
        for name in paper.raw:
            self.plan(name)
        self.worker = min(cost.memory for cost in self.left.values())
        self.verify_seconds = self.try_verify()
        signal = paper.ingest_recipe.signal
        samples = round(signal.fs_hz * signal.duration_s)
        self.rates, self.fits = None, dict[str, float]()
        try:
            self.rates = measure(paper.pretrain_recipe, signal.fs_hz, samples, paper.asked.gpus)
        except CmeltError as error:
            self.notes.append(f"pre-training and tables could not be tried here: {error}")
            return
        width = self.rates.feature_bytes // 8
        self.fits = {protocol: fit_seconds(protocol, (width, width)) for protocol in paper.asked.protocols.split(",")}
        self.notes.append(
            f"pre-training and tables: steps of {self.rates.tried} made-up pairs of {samples} samples, ECGs and fits on {self.rates.device}"
        )

    def plan(self, name: str) -> None:
        """See what an ingest has to do, and make a few recordings."""
        paper = self.paper
        out = paper.shards(name)
        if (out / "manifest.json").exists():
            manifest = read_manifest(out)
            self.recordings[name] = manifest["counts"]["windows"]
            self.bytes[name] = sum(shard["bytes"] for shard in manifest["shards"])
            self.left[name] = Cost(memory=peak())
            return
        found = estimate(name, paper.raw[name], out, paper.ingest_recipe, workers=self.workers, limit=paper.asked.limit)
        self.recordings[name], self.bytes[name] = found.recordings - found.tried_refused, float(found.bytes)
        self.left[name] = Cost(found.seconds, found.bytes, peak())
        if found.obstacle:
            self.notes.append(f"{out} would be refused: {found.obstacle}")
        self.notes.append(f"{name}: {found.recordings} recordings found of {found.rows}, {found.tried} made")

    def try_verify(self) -> float:
        """Return the seconds that a recording's verification takes."""
        paper = self.paper
        name = min(self.recordings, key=lambda one: self.recordings[one] or 1e9)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "shards")
            ingest(name, paper.raw[name], out, paper.ingest_recipe, workers=1, limit=TRIED)
            began = time.perf_counter()
            read = verify(out)["samples"]
        return (time.perf_counter() - began) / max(read, 1)

    def of(self, step: Step) -> Cost | None:
        """Return what a step would take; None where that is not known here."""
        if step.is_done():
            return Cost()
        if step.stage == "ingest":
            one = self.left[step.data]
            return Cost(one.seconds, one.disk, one.memory + self.workers * self.worker)
        if step.stage == "leaks":
            return Cost(sum(self.recordings.values()) * self.verify_seconds, 1e5, peak())
        if self.rates is None or step.stage == "report":
            return None
        rates, paper, count = self.rates, self.paper, self.recordings.get(step.data, 0)
        if step.stage == "pretrain":
            return Cost(rates.seconds, rates.disk_bytes, rates.memory_bytes)
        if step.stage == "reports":
            from cmelt.rates import report_seconds

            most = sum(self.recordings[name] for name in paper.trained_on)
            try:
                each, width = report_seconds(paper.pretrain_recipe.negatives.embeddings)
            except CmeltError as error:
                self.notes.append(f"report embeddings could not be tried here: {error}")
                return None
            return Cost(most * each, most * width * 4, 2 * most * width * 4 + 4 * rates.parameters)
        held = 4 * rates.parameters + 2 * count * rates.feature_bytes + self.worker
        return Cost(self.table_seconds(step, count), self.table_bytes(step, count), held)

    def table_seconds(self, step: Step, count: int) -> float:
        """Return how long a table takes: ECGs through the encoder, and what is fitted to them."""
        assert self.rates is not None
        verb, command, rates = step.command[1], step.command, self.rates
        if verb == "zeroshot":
            return count * HELD_OUT * rates.encode_seconds
        if verb == "probe":
            classes = len(load_vocabulary(command[command.index("--task") + 1]).classes)
            fits = FITS * (1 + RANDOM) * count * TRAINED * classes * self.fits[command[command.index("--protocol") + 1]]
            return count * (1 + RANDOM) * rates.encode_seconds + fits
        epoch = count * (TRAINED * rates.tune_seconds + HELD_OUT / 2 * rates.encode_seconds)
        return self.paper.finetune_recipe.tune.epochs * epoch

    def table_bytes(self, step: Step, count: int) -> float:
        """Return what a table leaves: features that are kept, or a checkpoint."""
        assert self.rates is not None
        if step.command[1] == "finetune":
            return 4.0 * self.rates.parameters
        is_first = step.command[1] == "probe" and "strict" in step.command
        return count * self.rates.feature_bytes if is_first else 1e6


def tell(paper: Paper, steps: Sequence[Step]) -> None:
    """Print every step with what it would take, and the sum."""
    costs = Costs(paper)
    told = [(step, costs.of(step)) for step in steps]
    out = console()
    for number, (step, cost) in enumerate(told, 1):
        out.print(f"[{number}/{len(steps)}] {step.line()}", markup=False)
        line = "done" if step.is_done() else cost.line() if cost else "not measured"
        out.print(f"    {step.stage}: {line}{', at most' if step.command[1] in ('finetune', 'identify') else ''}", markup=False)
    known = [cost for _, cost in told if cost]
    total = Cost(sum(c.seconds for c in known), sum(c.disk for c in known), max((c.memory for c in known), default=0.0))
    unknown = len(told) - len(known)
    free = free_bytes(paper.asked.shards.absolute())
    out.print(
        f"In all {total.line()}; {size(free)} are free for {paper.asked.shards}" + (f"; {unknown} steps not measured" if unknown else ""),
        markup=False,
    )
    out.print("Measured just now on this machine, and multiplied; nothing was written:", markup=False)
    out.print("\n".join(f"  {note}" for note in costs.notes), markup=False)


def duration(seconds: float) -> str:
    """Return a time in words."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def peak() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
