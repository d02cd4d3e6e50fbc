"""What a run says: lines that survive a cut, speed without the pauses, the live panel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from cmelt.training import log as module
from cmelt.training.log import Pace, RunLog


class Clock:
    """A clock that goes when told."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_waiting_is_told_apart_from_work_and_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    pace = Pace()

    def slow():
        for batch in range(4):
            clock.now += 1.0
            yield batch

    for _ in pace.batches(slow()):
        clock.now += 3.0
        pace.samples += 10
    with pace.apart():
        clock.now += 100.0
    told = pace.told()
    assert told["data_wait"] == pytest.approx(4 / 16)
    assert told["samples_per_s"] == pytest.approx(40 / 16)
    assert told["memory_mb"] > 10
    clock.now += 1.0
    assert pace.told()["samples_per_s"] == 0  # counted anew


def test_lines_of_steps_that_come_again_are_dropped(tmp_path: Path) -> None:
    with RunLog(tmp_path, 10, quiet=True) as log:
        for step in (1, 2, 3):
            log.metrics(step, "train", {"loss": 1 / 3})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')  # cut off
    with RunLog(tmp_path, 10, first_step=2, quiet=True) as log:
        log.metrics(3, "train", {"loss": 0.5})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.333333333), (2, 0.333333333), (3, 0.5)]
    with RunLog(None, 10, quiet=False) as log:  # another rank
        log.metrics(1, "train", {"loss": 1.0})


def test_the_panel(tmp_path: Path) -> None:
    tracked = []
    with RunLog(tmp_path / "run", 10, quiet=True, track=lambda row, step: tracked.append((step, row))) as log:
        log.metrics(0, "negatives", {"text_only": 0.5})
        speed = {"lr": 1e-3, "samples_per_s": 64.0, "data_wait": 0.013, "memory_mb": 1234.0}
        for step, loss in ((1, 3.0), (2, 4.0)):
            log.metrics(step, "train", {"loss": loss, **speed})
            log.metrics(step, "val", {"loss": loss + 1, "retrieval_ecg_to_text@10": 0.1 * step})
        console = Console(width=100, record=True, quiet=False, file=(tmp_path / "screen").open("w"))
        console.print(log.panel())
        console.file.close()
    said = " ".join(console.export_text().split())
    assert "2/10" in said
    assert "loss 4.0000 5.0000 4.0000" in said  # training, validation, the best of it
    assert "ecg to text@10 0.2000 0.2000" in said
    assert "data wait 1.3 % memory 1.2 GB" in said
    assert tracked[1] == (1, {"train/loss": 3.0, **{f"train/{name}": value for name, value in speed.items()}})
