"""The model that comes with cmelt: small, whole, free of paths; it knows simulated ECGs that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.models.store import SHIPPED
from cmelt.predict import predict
from cmelt.simulate import simulate
from cmelt.tasks.zeroshot import zeroshot
from pipelines.ship import MOST_BYTES


def test_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file.name: file for file in SHIPPED.iterdir()}
    assert set(files) >= {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "README.md"}
    assert sum(file.stat().st_size for file in files.values()) <= MOST_BYTES
    assert "shards" not in json.loads(files["recipe.json"].read_text())
    card = files["README.md"].read_text()
    assert "Not for clinical use" in card
    assert "Not measured yet" not in card

    monkeypatch.chdir(tmp_path)
    simulate(Path("raw"), records=240, seed=77, workers=1)
    ingest("ptbxl", Path("raw"), Path("shards"), load_recipe("ingest", "clinical"), workers=1)
    found = zeroshot(None, [Path("shards")], quiet=True)
    assert found["checkpoint"] == "cmelt-sim-small"
    assert found["fractions"][0]["macro_auc"] > 0.7  # of some 24 recordings; measured on thousands: docs/results.md

    header = next(Path("raw").rglob("*_hr.hea"))
    said = predict(header, quiet=True)
    assert {row["class"] for row in said["classes"]} == {"NORM", "MI", "STTC", "CD", "HYP"}
    assert said["run"] == "cmelt-sim-small"
    assert said["use"] == "not for clinical use"
