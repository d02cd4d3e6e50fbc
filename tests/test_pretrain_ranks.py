"""Several processes (torchrun on gloo): the same numbers as one with the joined batch, resumed with another number, stopped together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmelt.config import PretrainRecipe, load_recipe
from cmelt.pretrain import pretrain
from tests.test_pretrain import SMALL, metrics, shards  # noqa: F401 - the fixture

SETTINGS = [*SMALL, "train.batch=15", "optim.warmup=0", "train.accumulate=2", "train.precision='fp32'"]
SETTINGS += ["model.text_config={d_model=16,d_kv=8,d_ff=16,num_layers=1,num_heads=2,feed_forward_proj='gated-gelu',dropout_rate=0.0}"]
"""A batch that does not divide by two; no dropout, for its noise is each rank's own."""

pytestmark = pytest.mark.slow


def start(ranks: int, folder: Path, run: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run in `ranks` processes."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "0", "--standalone"]
    sets = [part for change in SETTINGS for part in ("--set", change)]
    command = [sys.executable, *launch, "-m", "cmelt.cli", "pretrain", "--shards", str(folder), "--out", str(run), *sets, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(child: subprocess.Popen[str]) -> str:
    """Wait for a run; returns what it printed."""
    said, error = child.communicate(timeout=300)
    assert child.returncode == 0, error[-3000:]
    return said


def assert_close(run: Path, other: Path, relative: float) -> None:
    """Hold the losses of two runs equal within `relative`."""
    one, two = metrics(run), metrics(other)
    assert [(row["step"], row["split"]) for row in one] == [(row["step"], row["split"]) for row in two]
    for a, b in zip(one, two, strict=True):
        names = [name for name in ("loss", "mlm", "mem", "etm", "ets", "left_out") if name in a]
        assert [b[name] for name in names] == pytest.approx([a[name] for name in names], rel=relative), (a, b)


def test_two_processes_equal_one_with_the_joined_batch(shards: Path, tmp_path: Path) -> None:  # noqa: F811
    one, two, resumed = tmp_path / "one", tmp_path / "two", tmp_path / "resumed"
    alone: PretrainRecipe = load_recipe("pretrain", "tiny", SETTINGS)
    pretrain([shards], alone, one, quiet=True)
    said = finish(start(2, shards, two, "--json"))
    assert json.loads(said)["steps"] == 6  # one summary, not one a rank
    assert_close(one, two, 1e-5)
    a, b = (load_file(run / "model.safetensors") for run in (one, two))
    worst = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert worst < 1e-3, worst  # a step is 1e-3: Adam turns noise about a gradient of zero into steps, of which the loss knows nothing
    # Resumed with another number of ranks: the same samples, so the same losses.
    child = start(2, shards, resumed)
    while not (resumed / "state/step-000000003").exists() and child.poll() is None:
        time.sleep(0.05)
    child.terminate()
    child.communicate(timeout=300)
    pretrain([shards], alone, resumed, resume=True, quiet=True)
    assert_close(one, resumed, 1e-5)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(shards: Path, tmp_path: Path) -> None:  # noqa: F811
    run = tmp_path / "run"
    child = start(2, shards, run, "--set", "train.steps=5000", "--set", "train.save_every=5000", "--set", "train.validate_every=5000")
    try:
        while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 3:
            assert child.poll() is None, child.communicate()[1][-3000:]
            time.sleep(0.05)
        ranks = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.kill(int(ranks[1]), signal.SIGUSR1)
        finish(child)
    finally:
        child.kill()
    (state,) = (run / "state").iterdir()
    assert json.loads((state / "state.json").read_text())["step"] == metrics(run)[-1]["step"] < 5000
    assert all(torch.isfinite(value).all() for value in load_file(state / "training.safetensors").values())
