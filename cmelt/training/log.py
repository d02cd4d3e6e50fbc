"""What a run says while it works: metrics.jsonl always; trackers; a live panel on a terminal, a plain line per interval elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cmelt.files import telling, write_whole

T = TypeVar("T")

PANEL = ("loss", "mlm", "mem", "etm", "ets", "entities", "retrieval_ecg_to_text@10", "retrieval_text_to_ecg@10")
"""What the live panel shows, a row each."""


class Pace:
    """Measures a run's speed: samples a second, the share of the time spent waiting for data, memory; validation and saving apart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count anew from now."""
        self.samples, self.waited_s, self.apart_s = 0, 0.0, 0.0
        self.began = time.perf_counter()

    def batches(self, source: Iterator[T]) -> Iterator[T]:
        """Yield what `source` yields, and count how long it took."""
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Leave out the time that is spent within."""
        began = time.perf_counter()
        yield
        self.apart_s += time.perf_counter() - began

    def told(self) -> dict[str, float]:
        """Return the figures since the last call: samples of all ranks; waiting and memory of this one."""
        seconds = max(time.perf_counter() - self.began - self.apart_s, 1e-9)
        figures = {"samples_per_s": self.samples / seconds, "data_wait": self.waited_s / seconds, "memory_mb": peak_memory_mb()}
        self.restart()
        return figures


def peak_memory_mb() -> float:
    """Return the most memory that the GPU held since the start, or, without one, this process did (0 where the system does not tell)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class RunLog:
    """Writes one JSON object a line to ``metrics.jsonl`` and shows progress. Use as a context manager."""

    def __init__(
        self,
        folder: Path | None,
        steps: int,
        first_step: int = 0,
        quiet: bool = False,
        track: Callable[[dict[str, float], int], None] | None = None,
        interval_s: float = 10.0,
    ) -> None:
        """Open the file in `folder`; lines of steps after `first_step` (of a run that was cut off) are dropped, for they come again.

        `track` is called with every row and its step: TensorBoard and the like. Without a folder (a rank that is not the main
        one) nothing is written, and nothing said.
        """
        self.file = folder / "metrics.jsonl" if folder else Path(os.devnull)
        self.steps, self.track, self.interval_s = steps, track, interval_s
        if folder:
            keep = [line for line in whole_lines(self.file) if first_step and json.loads(line)["step"] <= first_step]
            write_whole(self.file, "".join(line + "\n" for line in keep).encode())
        self.stream = self.file.open("a", encoding="utf-8")
        quiet = quiet or folder is None
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False)
        self.rows: dict[str, dict[str, float]] = {}
        self.best: dict[str, float] = {}
        self.progress = Progress(
            *(TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        )
        self.bar = self.progress.add_task("", total=steps, completed=first_step)
        self.live = None
        if self.console.is_terminal and not quiet:
            self.live = Live(self.panel(), console=self.console, refresh_per_second=2)
        self.last_line = 0.0

    def __enter__(self) -> RunLog:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
        self.stream.close()

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write the metrics of `step` (number of steps done) and show them. Raises OutputError where they cannot be written."""
        row = {name: float(f"{value:.9g}") for name, value in values.items()}
        with telling(self.file):
            self.stream.write(json.dumps({"step": step, "split": split} | row) + "\n")
            self.stream.flush()
            if self.track:
                self.track({f"{split}/{name}": value for name, value in row.items()}, step)
        self.rows[split] = row
        if split == "train":
            self.progress.update(self.bar, completed=step)
        else:
            for name, value in row.items():
                self.best[name] = (max if "@" in name else min)(value, self.best.get(name, value))
        if self.live:
            self.live.update(self.panel())
        elif split != "train" or time.monotonic() - self.last_line > self.interval_s:
            self.say(f"{split:5s} step {step}/{self.steps}  {in_short(row)}")
            self.last_line = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line, above the panel where there is one."""
        self.console.print(line, markup=False)

    def sync(self) -> None:
        """Put the lines on disk, before a state that stands on them is saved."""
        with telling(self.file):
            os.fsync(self.stream.fileno())

    def panel(self) -> Panel:
        """Return the live panel: what is left to do, the losses of training and validation, the speed."""
        train, val = self.rows.get("train", {}), self.rows.get("val", {})
        table = Table("", "training", "validation", "best", box=None, padding=(0, 2))
        for column in table.columns[1:]:
            column.justify = "right"
        for name in PANEL:
            if name in train or name in val:
                cells = (f"{values[name]:.4f}" if name in values else "" for values in (train, val, self.best))
                table.add_row(name.removeprefix("retrieval_").replace("_", " "), *cells)
        foot = "waiting for the first step"
        if train:
            foot = f"rate {train['lr']:.2e}   {train['samples_per_s']:.0f} samples/s   data wait {100 * train['data_wait']:.1f} %   "
            foot += f"memory {train['memory_mb'] / 1000:.1f} GB"
        return Panel(Group(self.progress, table, foot), title=str(self.file.parent), title_align="left", expand=False)


def whole_lines(file: Path) -> list[str]:
    """Return the lines of a metrics.jsonl that have an end: the last one of a run that was cut off may have none."""
    if not file.exists():
        return []
    return [line for line in file.read_text(encoding="utf-8").split("\n")[:-1] if line]


def in_short(row: Mapping[str, float]) -> str:
    """Return a row of metrics as a few words."""
    words = [f"{name} {row[name]:.3f}" for name in PANEL[:6] if name in row]
    words += [f"{row['samples_per_s']:.0f}/s"] if "samples_per_s" in row else []
    return "  ".join(words + [f"{name} {value:.3f}" for name, value in row.items() if "@10" in name])
