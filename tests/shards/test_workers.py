"""Work over processes: every task is done once and told, a lost worker's task is done again, errors come through."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from cmelt.errors import CmeltError, RecordError
from cmelt.shards.workers import run_tasks


def leave_a_mark(file: Path) -> str:
    """Count a call in `file`; the task called 'dies' loses its worker the first time."""
    calls = len(file.read_text()) if file.exists() else 0
    file.write_text("x" * (calls + 1))
    if file.name == "dies" and calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if file.name == "always dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if file.name == "slow":
        while not file.with_name("refuses").exists():
            time.sleep(0.01)
        time.sleep(0.3)
        file.with_name("slow done").touch()
    if file.name == "refuses":
        raise RecordError("truncated", "half a file")
    return file.name


def test_a_lost_workers_task_is_done_again(tmp_path: Path) -> None:
    names = ["a", "dies", "b", "c", "d"]
    assert sorted(run_tasks(leave_a_mark, [tmp_path / name for name in names], 2)) == sorted(names)
    assert len((tmp_path / "dies").read_text()) == 2


def test_a_task_that_kills_every_worker_ends_in_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CmeltError, match="died 3 times"):
        list(run_tasks(leave_a_mark, [tmp_path / "always dies"], 1))


def test_what_runs_is_done_before_an_error_is_told(tmp_path: Path) -> None:
    names = ["slow", "refuses", *map(str, range(3000))]  # so many that they are not all done before the refusal is heard of
    with pytest.raises(RecordError):
        list(run_tasks(leave_a_mark, [tmp_path / name for name in names], 2))
    assert (tmp_path / "slow done").exists()
    assert len(list(tmp_path.iterdir())) < len(names), "what had not begun was not begun"


def test_an_expected_error_comes_through_whole(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as error:
        list(run_tasks(leave_a_mark, [tmp_path / "refuses"], 1))
    assert (error.value.reason, error.value.detail) == ("truncated", "half a file")
