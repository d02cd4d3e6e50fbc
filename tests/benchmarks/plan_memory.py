"""What an ingest of a million recordings holds in memory: python -m tests.benchmarks.plan_memory [--rows N] [--keep].

A synthetic data set of N recordings with reports is planned, begun by two workers (which stop after two shards), and, once every shard is
written down as done, committed. The sum of the proportional set sizes of all processes is read ten times a second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import cmelt.datasets
from cmelt.config import IngestRecipe, load_recipe
from cmelt.datasets.base import Dataset
from cmelt.ingest import draw_plan, kept_codes, make_shard, make_tasks
from cmelt.inspect import count_classes
from cmelt.raw import Raw
from cmelt.record import Record, Refused, Source
from cmelt.shards.commit import claim, commit, finish_shard
from cmelt.shards.format import record_row
from cmelt.shards.plan import Plan, read_sources
from cmelt.shards.store import Store
from cmelt.shards.workers import run_tasks
from cmelt.shards.write import Shard
from cmelt.signal.condition import window_samples
from cmelt.signal.decode import Decoded
from tests.benchmarks.results import options, tell

SECONDS = 300.0
REPORT = "sinus rhythm. left axis deviation. poor r-wave progression - probable normal variant. borderline ecg, study {}"


class Million(Dataset):
    """Made-up recordings: as many as are asked for."""

    name = "million"
    title = licence = access = "made up"
    mains_hz = 60.0
    decoder = "tests.benchmarks.plan_memory:decode"

    def __init__(self, raw: Raw, rows: int) -> None:
        super().__init__(raw, rows=rows)

    @property
    def version(self) -> str:
        """Return made up."""
        return "made up"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield recordings that lie nowhere; each hundredth is refused."""
        for number in range(self.options["rows"]):
            path = f"files/p{number // 1000:04d}/p{number:08d}/s{number:08d}/{number:08d}.hea"
            if number % 100 == 99:
                yield Refused(f"{number:08d}", path, "missing_file", path)
            else:
                yield Source(f"{number:08d}", path, f"{number:08d}", 1, report_raw=REPORT.format(number), codes=("NORM", "SR"))


def decode(raw: Raw, path: str) -> Decoded:
    """Return ten seconds of noise as a decoded recording."""
    signal = np.random.default_rng(1).normal(0, 0.3, (12, 5000)).astype(np.float32)
    return Decoded(signal=signal, fs_hz=500.0, present=set(range(12)), signal_sha1="0" * 40)


def family(root: int) -> set[int]:
    """Return a process and all that it started, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_mb() -> float:
    """Return the sum of the proportional set sizes of this process and all that it started, in MB."""
    total = 0
    for pid in family(os.getpid()):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


class Watch:
    """The largest sum of set sizes while it is open, by phase."""

    def __init__(self) -> None:
        self.phase, self.most, self.seconds, self.open = "start", dict[str, float](), dict[str, float](), True

    def __enter__(self) -> Watch:
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.thread.join()

    def run(self) -> None:
        """Look ten times a second."""
        last = time.monotonic()
        while self.open:
            phase, now = self.phase, time.monotonic()
            self.most[phase] = max(self.most.get(phase, 0), pss_mb())
            self.seconds[phase] = self.seconds.get(phase, 0) + now - last
            last = now
            time.sleep(0.1)


def fill(store: Store, plan: Plan) -> None:
    """Write every shard down as done, as if it had been made."""
    for number, name in enumerate(plan.shards):
        rows = [
            {
                "key": source.key,
                "shard": name,
                "ecg_offset": 0,
                "ecg_bytes": 0,
                **record_row(Record(np.empty((12, 0)), 250.0, source, 500.0, 10.0)),
            }
            for source in read_sources(store, number)
        ]
        for row in rows:
            row["report"], row["signal_sha1"] = row["report_raw"], "0" * 40
        finish_shard(store, name, Shard(name, len(rows), 0, "0" * 64), rows, [])


def measure(rows: int, folder: Path) -> dict[str, object]:
    """Return the largest sums of set sizes, in MB, and the seconds of each phase."""
    cmelt.datasets.DATASETS["million"] = "tests.benchmarks.plan_memory:Million"
    settings: IngestRecipe = load_recipe("ingest", "clinical", ["signal.fs_hz=250"])
    (folder / "raw").mkdir()
    store = Store(folder / "out")
    with Watch() as watch:
        watch.phase = "plan"
        data, plan, _ = draw_plan("million", folder / "raw", store, settings, None, None, False, False, {"rows": rows})
        store.make()
        with store.alone():
            claim(store, plan)
            watch.phase = "two workers"
            tasks = make_tasks(data, "million", folder / "raw", store, plan, settings, range(len(plan.shards)))
            until = time.monotonic() + SECONDS

            def look() -> None:
                if sum(name.endswith(".tar") for name in store.names()) > 1 or time.monotonic() > until:
                    for child in multiprocessing.active_children():
                        child.kill()  # a shard takes longer than there is to see
                    raise TimeoutError

            with contextlib.suppress(TimeoutError):
                for _ in run_tasks(make_shard, tasks, 2, tick=look):
                    pass
            made = len(list(store.path.glob("*.tar"))) if store.path else 0
            watch.phase = "(writing down the rest)"
            fill(store, plan)
            watch.phase = "commit"
            commit(store, plan, 250.0, window_samples(settings.signal), lambda manifest: {})
            count_classes("ptbxl", kept_codes(store))
    most = {phase: round(value) for phase, value in watch.most.items() if not phase.startswith("(")}
    seconds = {phase: round(value, 1) for phase, value in watch.seconds.items()}
    return {
        "rows": rows,
        "shards": len(plan.shards),
        "made_by_workers": made,
        "pss_mb": most,
        "most_mb": max(most.values()),
        "seconds": seconds,
    }


def main() -> None:
    """Measure, and print what was found."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.rows, Path(folder))
    tell("plan-memory", found, given)


if __name__ == "__main__":
    main()
