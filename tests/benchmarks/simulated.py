"""Time simulate, ingest, verify and inspect on many simulated recordings: python -m tests.benchmarks.simulated [--records N] [--keep].

Each command runs as a user runs it, on two workers where it has them. Of each: wall and processor seconds (children included), and the
largest sum of the proportional set sizes of its processes. Nothing is kept but the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.plan_memory import family
from tests.benchmarks.results import options, tell


def pss_mb(root: int) -> float:
    """Return the sum of the proportional set sizes of process `root` and all that it started, in MB."""
    total = 0
    for pid in family(root):
        with contextlib.suppress(OSError, StopIteration):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


def watch(*arguments: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a cmelt command; returns its JSON summary, and its seconds and memory."""
    began, before = time.monotonic(), os.times()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([sys.executable, "-m", "cmelt.cli", *arguments, "--json"], stdout=out, stderr=subprocess.DEVNULL)
        most = 0.0
        while child.poll() is None:
            most = max(most, pss_mb(child.pid))
            time.sleep(0.2)
        wall, after = time.monotonic() - began, os.times()
        assert child.returncode == 0, arguments
        out.seek(0)
        summary: dict[str, Any] = json.load(out)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return summary, {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1), "most_pss_mb": round(most)}


def measure(records: int, folder: Path) -> dict[str, Any]:
    """Return the figures of each command on `records` simulated recordings."""
    raw, out, found = str(folder / "raw"), str(folder / "out"), dict[str, Any]()
    _, found["simulate"] = watch("simulate", raw, "--records", str(records), "--workers", "2")
    made, found["ingest"] = watch("ingest", "ptbxl", raw, out, "--workers", "2")
    _, found["verify"] = watch("verify", out)
    _, found["inspect"] = watch("inspect", out)
    gigabytes = sum(file.stat().st_size for file in Path(out).rglob("*")) / 1e9
    return {"records": records, "kept": made["kept"], "refused": made["refused"], "gigabytes": round(gigabytes, 2), **found}


def main() -> None:
    """Measure, and print what was found."""
    parser = options(__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.records, Path(folder))
    tell("simulated-20000", found, given)


if __name__ == "__main__":
    main()
