"""A pre-training that is killed again and again ends as one that was not; tests/benchmarks/kill_pretrain.py does so a dozen times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.kill_pretrain import measure


@pytest.mark.slow
def test_killed_three_times(tmp_path: Path) -> None:
    told = measure(tmp_path, steps=24, kills=3, seed=1)
    assert told["kills"] == 3
    assert told["batches"] == 24
