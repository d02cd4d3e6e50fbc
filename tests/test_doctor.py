"""Doctor: finds what is there, names what is missing, says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.config import IngestRecipe
from cmelt.doctor import doctor
from cmelt.ingest import ingest
from tests.conftest import MakeRaw


def wrong(result: dict) -> list[str]:
    """Return what was found wrong, as lines."""
    return [f"{one['what']}: {one['found']} → {one['do']}" for one in result["findings"] if not one["ok"]]


def test_a_sound_set_up(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["numpy>=1", "h5py>=3.8; extra == 'hdf5'", "nobodys-thing>=1; extra == 'other'", "pytest>=8; extra == 'dev'"]
    monkeypatch.setattr("cmelt.doctor.metadata.requires", lambda name: listed)
    recipe = IngestRecipe.model_validate({"signal": {"fs_hz": 100, "duration_s": 4}, "shards": {"samples_per_shard": 10}})
    ingest("ptbxl", make_raw(20), tmp_path / "shards", recipe, workers=1)
    arguments = ["doctor", "--recipe", "tiny", "--shards", str(tmp_path / "shards"), "--out", str(tmp_path / "runs"), "--json"]
    done = CliRunner().invoke(app, arguments)
    result = json.loads(done.stdout)
    assert wrong(result) == []
    assert (result["ok"], done.exit_code) == (True, 0)
    found = {(one["area"], one["what"]): one["found"] for one in result["findings"]}
    assert "cores" in found["devices", "CPU"]
    assert "M parameters, for 400 samples at 100 Hz" in found["recipe", "model"]
    extras = {what: said for (area, what), said in found.items() if area == "extras"}
    assert extras == {"hdf5": "h5py: installed", "other": "without nobodys-thing: pip install 'cmelt[other]' brings it"}
    assert found["shards", str(tmp_path / "shards")].startswith("2 shards there in full size")
    # A shard that was cut off, and one that is gone.
    shard = sorted((tmp_path / "shards").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-512])
    broken = doctor(shards=[tmp_path / "shards", tmp_path / "nothing"])
    assert not broken["ok"]
    assert any("1 of 2 shards are bad" in line and "cmelt ingest" in line for line in wrong(broken))
    assert any("nothing is not a folder" in line for line in wrong(broken))
    assert CliRunner().invoke(app, ["doctor", "--shards", str(tmp_path / "nothing")]).exit_code == 1


def test_what_a_recipe_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmelt.text.tokenizer.hub_is_away", lambda: True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("cmelt.doctor._installed", lambda name: name != "wandb")
    changes = ["train.trackers=['wandb']", "model.text_encoder='nobody/nothing'", "model.fusion_heads=7", "train.precision='fp16'"]
    lines = wrong(doctor("base", changes))
    assert any("tracker wandb: not installed → pip install 'cmelt[wandb]'" in line for line in lines)
    assert any("tokenizer: not at hand" in line for line in lines)
    assert any("model: cannot be made" in line for line in lines)
    assert any("fp16 needs a GPU" in line for line in lines)
    assert any("did you mean" in line for line in wrong(doctor("bse")))
    monkeypatch.setattr("cmelt.doctor.free_bytes", lambda place: 10_000_000)
    assert any("GB free" in line and "make room" in line for line in wrong(doctor("tiny")))


def test_the_table_reads_well(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--recipe", "bse"])
    assert done.exit_code == 1
    assert "✗" in done.stdout
    assert "did you mean 'base'?" in " ".join(done.stdout.split())
