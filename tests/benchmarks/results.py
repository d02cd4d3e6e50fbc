"""Figures that the docs show, with what they were measured by: docs/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "results"


def options(about: str | None) -> argparse.ArgumentParser:
    """Return a parser for the benchmark that `about`, its docstring, describes, with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--keep", action="store_true", help="write the figures to docs/results")
    return parser


def tell(name: str, figures: dict[str, Any], given: argparse.Namespace) -> None:
    """Print `figures`, and with --keep write them to docs/results/NAME.json."""
    print(json.dumps(figures) if given.json else "\n".join(f"{key:28s} {value}" for key, value in figures.items()))
    if given.keep:
        write_result(name, figures)


def write_result(name: str, figures: dict[str, Any], **facts: str) -> Path:
    """Write `figures` to docs/results/NAME.json, with command, commit, machine, date and further `facts` (data …); return the file.

    `facts` replace what is found out here: a run may have been made by another command and an earlier state of the code.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    module = getattr(sys.modules["__main__"].__spec__, "name", "")
    found = {
        "command": " ".join(["python -m", module, *(Path(a).name if "/" in a else a for a in sys.argv[1:])]),
        "commit": commit.stdout.strip(),
        "machine": f"{processor()}, {os.cpu_count()} CPUs",
        "date": datetime.now(UTC).date().isoformat(),
    }
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(found | facts | {"figures": figures}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def peak_mb() -> float:
    """Return the most memory that this process held, in MB; getrusage would tell its parent's where that held more."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))


def processor() -> str:
    """Return the processor's name."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
