"""What a pre-training would take: a try tells time, memory and disk of the recipe's own model, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cmelt.rates
from cmelt.cli import app
from cmelt.config import load_recipe
from cmelt.errors import CmeltError
from cmelt.rates import fit_seconds, measure, report_seconds
from tests.pairs import SMALL

CHANGES = [f"model.{key}={value}" for key, value in SMALL.items() if key not in ("text_config", "text_encoder")]


def test_a_try_tells_what_a_run_would_take(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    every = ("model.entity_heads=2", "objectives.entities=1")  # each loss that there is
    sets = [part for change in (*CHANGES, *every, "train.steps=1000", "train.batch=8") for part in ("--set", change)]
    done = CliRunner().invoke(app, ["pretrain", "--shards", str(shards), *sets, "--dry-run", "--json"])
    told = json.loads(done.stdout)
    assert (told["steps"], told["batch"]) == (1000, 8)
    assert told["tried"] in (2, 4, 8)
    assert told["seconds"] == pytest.approx(1000 * told["step_seconds"])
    assert told["encode_seconds"] > 0  # which of the two is longer is up to what else the machine does
    assert told["tune_seconds"] > 0
    held = told["parameters"] * 4
    assert told["disk_bytes"] == held * (3 * 4 + 1)  # two states of weights, moments and average, a third being written, and the model
    assert told["memory_bytes"] > 5 * held
    assert list(tmp_path.iterdir()) == []


def test_steps_are_multiplied_by_what_a_batch_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pair takes a second here, whatever the machine: so a batch of 128 takes 128, over two ranks 64, twice that if accumulated."""
    monkeypatch.setattr(cmelt.rates, "try_steps", lambda model, recipe, most: (2, 2.0, 0.5))
    recipe = load_recipe("pretrain", "tiny", [*CHANGES, "train.batch=128", "train.steps=10"])
    assert measure(recipe, 100, 320).seconds == pytest.approx(10 * 128.5)
    assert measure(recipe, 100, 320, ranks=2).seconds == pytest.approx(10 * 64.5)
    again = recipe.model_copy(update={"train": recipe.train.model_copy(update={"accumulate": 2})})
    assert measure(again, 100, 320).seconds == pytest.approx(10 * 256.5)


def test_a_model_larger_than_the_machine_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmelt.rates, "memory_bytes", lambda: 10**9)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CmeltError, match="takes 5 GB before the first ECG, this machine has 1"):
        measure(load_recipe("pretrain", "base"))


def test_fits_and_reports_are_tried() -> None:
    assert fit_seconds("strict", (16, 8)) > 0
    assert report_seconds("tfidf")[1] > 1
