"""The verb: trains, goes on bit for bit, writes reports that say what the ECG shows, scores them; through the command line too."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.config import load_recipe
from cmelt.errors import CheckpointError, InputError, OutputError, ShardError
from cmelt.generate import report, train
from cmelt.ingest import ingest
from cmelt.shards.format import INDEX, MANIFEST
from cmelt.shards.manifest import file_sha256
from cmelt.shards.read import ShardFolder
from cmelt.tasks.writing import score
from cmelt.tokenizer import train as train_tokenizer
from tests.conftest import MakeShards
from tests.training.test_pairs import little

SAYS = {
    "NORM": "normal ecg",
    "IMI": "inferior infarct",
    "NDT": "low t waves",
    "1AVB": "first degree av block",
    "LVH": "left ventricular hypertrophy",
}
LEADS = ("I", "III", "aVL", "V1", "V3")
"""One of those into which each code of the made-up recordings puts its wave."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, make_shards: MakeShards) -> Path:
    """Return made-up shards whose reports say in words what can be seen in the signal."""
    folder = make_shards(tmp_path_factory.mktemp("told") / "shards", 240)
    index = pq.read_table(folder / INDEX)
    texts = pa.array([". ".join(SAYS[code] for code in codes) + "." for codes in index["codes"].to_pylist()])
    pq.write_table(index.set_column(index.schema.get_field_index("report"), "report", texts), folder / INDEX)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"index_sha256": file_sha256(folder / INDEX)}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(told: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tokenizer folder for them."""
    out = tmp_path_factory.mktemp("tokenizer") / "T"
    train_tokenizer([told], out, symbols=8, merges=60, records=100, leads=LEADS, fs_hz=25.0, quiet=True)
    return out


def weights(run: Path) -> dict[str, np.ndarray]:
    """Return the weights of a run's newest training state."""
    state = sorted((run / "writer" / "state").iterdir())[-1]
    return load_file(state / "model.safetensors")


def test_going_on_gives_the_numbers_of_a_run_undisturbed(
    told: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = little("train.steps=8", "train.validate_every=4", "train.save_every=4", "train.log_every=1")
    train([told], tokenizer, recipe, tmp_path / "whole", quiet=True)
    from cmelt.training.pairs import Pairs

    batch = Pairs.batch

    def interrupting(self: Pairs, step: int, rank: int = 0, world: int = 1) -> object:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step, rank, world)

    with monkeypatch.context() as patch:
        patch.setattr(Pairs, "batch", interrupting)
        cut = train([told], tokenizer, recipe, tmp_path / "cut", quiet=True)
    assert (cut["stopped"], cut["steps"]) == (True, 6)
    again = train([told], tokenizer, recipe, tmp_path / "cut", resume=True, quiet=True)
    assert (again["first_step"], again["steps"]) == (6, 8)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    lines = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in ("whole", "cut")]
    assert [(row["step"], row["loss"]) for row in lines[0]] == [(row["step"], row["loss"]) for row in lines[1]]
    with pytest.raises(CheckpointError, match=r"optim\.lr"):
        train([told], tokenizer, little("train.steps=8", "optim.lr=0.1"), tmp_path / "cut", resume=True, quiet=True)
    with pytest.raises(OutputError, match="not empty"):
        train([told], tokenizer, recipe, tmp_path / "cut", quiet=True)


def test_reports_say_what_the_ecg_shows(told: Path, tokenizer: Path, tmp_path: Path) -> None:
    sizes = [f"model.config.{name}" for name in ("hidden_size=48", "intermediate_size=64", "num_hidden_layers=2")]
    recipe = load_recipe(
        "generate", "tiny", [*sizes, "data.leaks=keep", "train.steps=160", "train.batch=16", "optim.lr=0.003", "train.validate_every=40"]
    )
    summary = train([told], tokenizer, recipe, tmp_path / "run", quiet=True)
    assert summary["best"]["loss"] < 1.0
    found = score(tmp_path / "run", fold="test", quiet=True)
    usual = found["baselines"]["most_frequent_report"]["entity_micro_f1"]
    assert found["measures"]["entity_micro_f1"]["value"] > 0.7
    assert usual["difference_ci95"][0] > 0.1, "better than the most frequent report, on other patients"
    table = pq.read_table(tmp_path / "run" / "results" / "generate.parquet")
    opened = ShardFolder(told)
    assert table["key"].to_pylist() == [opened.column("key")[row] for row in opened.rows("test")]
    assert json.loads((tmp_path / "run" / "results" / "generate.json").read_text())["measures"] == found["measures"]
    key = table["key"].to_pylist()[0]
    one = report(run=tmp_path / "run", shards=told, key=key, beams=3)
    assert (len(one["reports"]), one["true"]) == (3, table["report"].to_pylist()[0])
    with pytest.raises(ShardError, match="did you mean"):
        report(run=tmp_path / "run", shards=told, key=key[:-1])
    with pytest.raises(InputError, match="name one recording"):
        report(run=tmp_path / "run")


def test_real_recordings_through_the_command_line(realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ingest("ptbxl", realdata / "ptbxl", tmp_path / "S", load_recipe("ingest", "clinical", ["signal.fs_hz=100"]), workers=1, records100=True)
    record = next((realdata / "ptbxl").rglob("*_lr.hea"))
    small = [f"--set={change}" for change in ("train.steps=3", "train.batch=4", "train.validate_batches=1", "model.config.hidden_size=16")]
    for words in (
        ["tokenizer", "train", "S", "--out", "T", "--merges", "100", "--records", "50", "--leads", "II,V1", "--rate", "50"],
        ["generate", "train", "--shards", "S", "--tokenizer", "T", *small],
        ["generate", "report", str(record), "--beams", "2"],
        ["generate", "score", "--fold", "val", "--limit", "10", "--json"],
    ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        if words[:2] == ["generate", "report"]:
            assert "not for clinical use" in done.output
    found = json.loads(done.stdout)
    assert (found["run"], found["recordings"], found["fold"]) == ("runs/generate-tiny-1", 10, "val")
    assert found["most_frequent_report"] == "sinus rhythm. normal ecg."
    assert (tmp_path / "runs/generate-tiny-1/results/generate-val.json").is_file()
    none = CliRunner().invoke(app, ["generate", "report", "nothing.hea"])
    assert isinstance(none.exception, InputError)
