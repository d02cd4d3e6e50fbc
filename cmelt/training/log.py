"""What a run says while it works: metrics.jsonl always, a live bar on a terminal, a plain line per interval elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunLog:
    """Writes one JSON object a line to ``metrics.jsonl`` and shows progress. Use as a context manager."""

    def __init__(self, file: Path, steps: int, first_step: int = 0, quiet: bool = False, interval_s: float = 10.0) -> None:
        """Open `file`; lines of steps after `first_step` (of a run that was cut off) are dropped, for they come again."""
        self.file = file
        keep = [line for line in self._lines() if json.loads(line)["step"] <= first_step]
        self.file.write_text("".join(line + "\n" for line in keep), encoding="utf-8")
        self.stream = self.file.open("a", encoding="utf-8")
        self.interval_s = interval_s
        self.console = Console(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not quiet
        columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
        self.progress = Progress(*columns, console=self.console, disable=not self.live)
        self.bar = self.progress.add_task("", total=steps, completed=first_step)
        self.steps = steps
        self.last_line = 0.0

    def _lines(self) -> list[str]:
        """Return the whole lines of an earlier part of this run."""
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").split("\n")
        return [line for line in lines[:-1] if line]  # the last piece has no line end: it was cut off

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        self.stream.close()

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Write the metrics of `step` (number of steps done) and show them."""
        row = {"step": step, "split": split} | {name: float(f"{value:.6g}") for name, value in values.items()}
        self.stream.write(json.dumps(row) + "\n")
        self.stream.flush()
        shown = [name for name in ("loss", "mlm", "mem", "etm", "ets", "samples_per_s") if name in row]
        text = "  ".join(f"{name} {row[name]:.3f}" if name != "samples_per_s" else f"{row[name]:.0f}/s" for name in shown)
        if split == "train":
            self.progress.update(self.bar, completed=step, description=text)
        now = time.monotonic()
        if split != "train" or (not self.live and now - self.last_line > self.interval_s):
            extra = "".join(f"  {name} {value:.3f}" for name, value in row.items() if isinstance(value, float) and "@10" in name)
            self.console.print(f"{split:5s} step {step}/{self.steps}  {text}{extra}", markup=False, soft_wrap=True)
            self.last_line = now
        sys.stderr.flush()
