"""Kill an ingest at random moments, leader or worker, compare the bytes: python -m tests.benchmarks.kill_ingest [--kills N] [--keep].

For each way of working (one process, two workers, a Dask cluster of two) an ingest is begun again and again, each time killed with
SIGKILL at a random moment, until that was done N times; then it is let go on. Every file must be as in a run that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.results import options, tell
from tests.conftest import write_raw

WAYS = ("one", "two", "dask")
CODE = """
import sys
from cmelt.config import load_recipe
from cmelt.ingest import ingest
raw, out, workers, cluster = sys.argv[1:]
if __name__ == "__main__":
    recipe = load_recipe("ingest", "clinical", ["signal.duration_s=4", "shards.samples_per_shard=5"])
    print("begins", flush=True)
    ingest("ptbxl", raw, out, recipe, workers=int(workers), cluster=cluster)
"""

CLUSTER = """
import subprocess, sys, threading
from distributed import LocalCluster

def keep(worker, address, folder):
    while not closing.wait(0.1):  # a worker that is lost comes back, as under a batch system
        running[worker] = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard",
                                            "--nthreads", "1", "--local-directory", folder], stderr=subprocess.DEVNULL)
        running[worker].wait()

if __name__ == "__main__":
    closing, running = threading.Event(), {}
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        for worker in range(2):
            threading.Thread(target=keep, args=(worker, cluster.scheduler_address, sys.argv[1]), daemon=True).start()
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
        closing.set()
        for worker in running.values():
            worker.kill()
"""
WORKER = {"two": "spawn_main", "dask": "dask_worker"}
"""What stands in the command line of a worker."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def begin(script: Path, raw: Path, out: Path, workers: int, address: str) -> subprocess.Popen[str]:
    """Return an ingest in a process of its own, once it has begun."""
    command = [sys.executable, str(script), str(raw), str(out), str(workers), address]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout
    child.stdout.readline()
    return child


def spawned(pid: int, mark: str) -> list[int]:
    """Return the processes below `pid` whose command line has `mark`."""
    found, open_ = [], [pid]
    while open_:
        below = []
        with contextlib.suppress(OSError):
            below = [
                int(child) for task in Path(f"/proc/{open_.pop()}/task").iterdir() for child in (task / "children").read_text().split()
            ]
        for child in below:
            open_.append(child)
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(child)
    return found


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, int]]:
    """Give the address of a Dask scheduler with two workers, each begun anew when it is lost, and the process they lie below."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "cluster.py")
        script.write_text(CLUSTER)
        child = subprocess.Popen(
            [sys.executable, str(script), folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert child.stdout
        try:
            yield child.stdout.readline().strip(), child.pid
        finally:
            child.communicate("")


def finish(child: subprocess.Popen[str]) -> str:
    """Wait for an ingest; returns whether it finished or gave up, which it says."""
    _, said = child.communicate()
    assert child.returncode == 0 or "died 3 times" in said, f"{child.returncode}: {said}"
    return "gave_up" if child.returncode else "finished"


def disturb(way: str, raw: Path, out: Path, kills: int, rng: random.Random, spread_s: float) -> dict[str, int]:
    """Ingest `raw` into `out` in spite of `kills`; returns how often the leader and a worker were killed, how often it finished before its
    time, and how often it gave up because workers died three times in a row."""
    told = {"leader": 0, "worker": 0, "finished": 0, "gave_up": 0}
    with contextlib.ExitStack() as stack:
        address, below = stack.enter_context(cluster()) if way == "dask" else ("", 0)
        script = Path(stack.enter_context(tempfile.TemporaryDirectory()), "run.py")
        script.write_text(CODE)
        workers = 1 if way == "one" else 2
        child = begin(script, raw, out, workers, address)
        while told["leader"] + told["worker"] < kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(rng.uniform(0, spread_s))
            if child.poll() is not None:
                told[finish(child)] += 1
                if (out / "manifest.json").exists():  # done: it begins anew, elsewhere
                    out.rename(out.with_name(f"{out.name}-{told['finished']}"))
            else:
                victims = spawned(below or child.pid, WORKER[way]) if way in WORKER and rng.random() < 0.5 else []
                if victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(victims), signal.SIGKILL)
                        told["worker"] += 1
                    continue
                child.kill()
                told["leader"] += 1
                child.communicate()
            child = begin(script, raw, out, workers, address)
        while finish(child) == "gave_up":
            told["gave_up"] += 1
            child = begin(script, raw, out, workers, address)
    return told


def measure(records: int, kills: int, ways: tuple[str, ...], seed: int, folder: Path, spread_s: float) -> dict[str, dict[str, int | float]]:
    """Return what befell each way of working; raises AssertionError where a byte differs."""
    raw = write_raw(folder / "raw", records)
    with tempfile.TemporaryDirectory() as place:
        script = Path(place, "run.py")
        script.write_text(CODE)
        finish(begin(script, raw, folder / "calm", 1, ""))
    whole, found = files_of(folder / "calm"), {}
    for way in ways:
        began, out = time.monotonic(), folder / way
        told = disturb(way, raw, out, kills, random.Random(f"{seed} {way}"), spread_s)
        for place in folder.glob(f"{way}*"):
            assert files_of(place) == whole, f"{place} differs from an undisturbed run"
        found[way] = {**told, "files": len(whole), "seconds": round(time.monotonic() - began, 1)}
    return found


def main() -> None:
    """Kill, compare, and print what befell."""
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", type=float, default=4.0, help="Seconds between two kills, at most.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.records, given.kills, tuple(given.ways), given.seed, Path(folder), given.spread)
    tell("kill-ingest", found, given)


if __name__ == "__main__":
    main()
