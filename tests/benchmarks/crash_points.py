"""Kill an ingest before each single change that it makes to its folder: python -m tests.benchmarks.crash_points [--every N] [--keep].

A process is forked, counts what it opens to write, renames and removes below OUT (by Python's audit events), and kills itself with SIGKILL
before the k-th; for every k, of a new folder, of one that grows, and of one that is overwritten. The same command, run again, must end in
the bytes of an undisturbed run. What kill_ingest hits by chance is here hit for certain, on one process.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from tests.benchmarks.kill_ingest import files_of
from tests.benchmarks.results import options, tell
from tests.conftest import write_raw

SMALL = ["signal.duration_s=4", "shards.samples_per_shard=5"]
WRITES = os.O_WRONLY | os.O_RDWR
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "new": ({}, {}),
    "grows": ({"limit": 7}, {"extend": True}),
    "overwritten": ({"limit": 7}, {"overwrite": True}),
}
"""What is done before, undisturbed (nothing where the folder is new), and what is killed."""


def run(raw: Path, out: Path, options: dict[str, Any], dies_at: int = 0) -> bool:
    """Ingest in a process of its own, which is killed before its change number `dies_at`; returns whether it finished."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forked beside threads; none holds what the child needs
        child = os.fork()
    if child:
        code = os.waitpid(child, 0)[1]
        assert code in (0, signal.SIGKILL), f"{out}: exit status {code}"
        return code == 0
    try:
        sys.addaudithook(killer(str(out), dies_at))
        ingest("ptbxl", raw, out, load_recipe("ingest", "clinical", SMALL), workers=1, **options)
        os._exit(0)
    finally:
        os._exit(1)


def killer(below: str, dies_at: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that kills this process before the change number `dies_at` to what lies at or below a path."""
    count = itertools.count(1)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES)
        if changes and str(args[0]).startswith(below) and next(count) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def measure(folder: Path, ways: tuple[str, ...], every: int) -> dict[str, int]:
    """Return how many moments were tried of each way, each `every`-th; raises AssertionError where a byte differs."""
    raw, found = write_raw(folder / "raw", 12), {}
    for way in ways:
        before, options = WAYS[way]
        start, whole, out = folder / f"{way}-start", folder / f"{way}-whole", folder / way
        if before:
            assert run(raw, start, before)
            shutil.copytree(start, whole)
        assert run(raw, whole, options)
        finished, moment = False, every
        while not finished:
            shutil.rmtree(out, ignore_errors=True)
            if before:
                shutil.copytree(start, out)
            finished = run(raw, out, options, moment)
            assert run(raw, out, options)
            assert files_of(out) == files_of(whole), f"killed before change {moment} of a {way} folder, it differs from an undisturbed run"
            moment += every
        found[way] = moment // every - 2
        assert found[way] * every > 20, "the hook saw next to nothing"
    return found


def main() -> None:
    """Kill, compare, and print how often."""
    parser = options(__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=tuple(WAYS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), tuple(given.ways), given.every)
    tell("crash-points", found, given)


if __name__ == "__main__":
    main()
