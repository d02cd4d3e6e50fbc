"""What is shipped is small, holds no path, says its figures; the scripts that make it and the evidence go on where they stopped."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from cmelt.errors import CheckpointError
from cmelt.models.cmelt import CMELT
from pipelines import ship
from tests.conftest import REPOSITORY
from tests.made import make_run

ENTRY = {"macro_auc": 0.8123, "ci95": [0.75, 0.86], "n_train": 36, "n_test": 197, "baselines": {}}
RANDOM = {"macro_auc": 0.7, "difference": 0.11, "difference_ci95": [0.09, 0.13]}


@pytest.fixture
def trained(tmp_path: Path, shards: Path) -> Path:
    """Return a run as pre-training leaves it, trained in a folder whose name nobody else should read."""
    run = make_run(tmp_path / "at-home" / "run", shards)
    told = {"version": "0.1.0", "recipe": {"train": {"steps": 30, "batch": 8}}, "counts": {"train": 192, "val": 24}, "parameters": 12_345}
    (run / "recipe.json").write_text(json.dumps(told | {"shards": [str(shards)], "history": [{"step": 0}]}))
    return run


def test_what_is_shipped(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    told = {"checkpoint_sha256": "0", "rule": {}, "retrieval": {"ecg_to_text@10": 0.25}, "fold": "val"}
    zero = told | {"fractions": [ENTRY | {"fraction": 0, "per_class": {"NORM": {"auc": 0.9}, "HYP": {"auc": None}}}]}
    few = {"fraction": 0.01, "n_train": 4, "not_computed": "too few"}
    probe = told | {"fractions": [few, ENTRY | {"fraction": 0.1, "baselines": {"random_init": RANDOM}}]}
    (figures / "zeroshot-real.json").write_text(json.dumps(zero))
    asked = told | {"fractions": [ENTRY | {"fraction": 0, "macro_auc": 0.8312}]}
    (figures / "queries-real.json").write_text(json.dumps(asked))
    (figures / "probe-real.json").write_text(json.dumps(probe))

    out = tmp_path / "cmelt-sim-small"
    ship.ship(trained, out, ship.read_figures(figures))
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    ship.ship(trained, out, ship.read_figures(figures))
    assert first == {file.name: file.read_bytes() for file in out.iterdir()}, "the same run, the same bytes"
    assert not any(b"at-home" in content or str(tmp_path).encode() in content for content in first.values())
    card = first["README.md"].decode()
    for line in (
        "| none (zero-shot by entity queries) | 0 | 0.831 [0.750, 0.860] |",
        "| none (zero-shot) | 36 | 0.812 [0.750, 0.860] |",
        "| 1% | 4 | too few |",
        "| 10% | 36 | 0.812 [0.750, 0.860] | 0.700 |",
    ):
        assert line in card
    assert "val fold, 197 recordings" in card
    assert "NORM 0.900. Reports found by ECG, recall@10: 0.250" in card
    assert "Not for clinical use" in card
    model = CMELT.from_pretrained(out)
    ecg = torch.zeros(1, 12, model.config.samples)
    assert torch.allclose(model.encode_ecg(ecg), CMELT.from_pretrained(trained).encode_ecg(ecg), atol=0.01)

    monkeypatch.setattr(ship, "MOST_BYTES", 1000)
    with pytest.raises(CheckpointError, match="take a smaller model"):
        ship.ship(trained, out, {})
    assert "NORM" in (out / "README.md").read_text(), "what was there stays"


STAND_IN = """#!/bin/sh
echo "$(basename $0) $*" >> "$LOG"
case "$* " in *"$FAIL"*) [ -n "$FAIL" ] && exit 1;; esac
case $1 in simulate) mkdir -p "$2"; touch "$2/ptbxl_database.csv";; ingest) mkdir -p "$4"; touch "$4/manifest.json";; esac
case $1 in pretrain) mkdir -p "$(dirname "$LOG")/work/run"; touch "$(dirname "$LOG")/work/run/recipe.json";; esac
"""


def told(tmp_path: Path, script: str, *arguments: str, fail: str = "", **more: str) -> tuple[int, list[str]]:
    """Run a script with stand-ins of what it calls; return its exit status and the calls."""
    log = tmp_path / "log"
    log.write_text("")
    for name in ("cmelt", "python"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "FAIL": fail, **more}
    done = subprocess.run(["sh", str(REPOSITORY / "pipelines" / script), *arguments], env=environment, cwd=tmp_path, timeout=60)
    return done.returncode, log.read_text().splitlines()


def test_the_shipped_models_script_goes_on_where_it_stopped(tmp_path: Path) -> None:
    status, calls = told(tmp_path, "sim-small.sh", "work", "real", fail="pretrain ")
    assert status
    assert [call.split()[1] for call in calls] == ["simulate", "ingest", "pretrain"]
    (tmp_path / "work" / "run").mkdir()
    (tmp_path / "work" / "run" / "recipe.json").touch()
    status, calls = told(tmp_path, "sim-small.sh", "work", "real", STEPS="7")
    assert not status
    assert calls[0] == "cmelt pretrain --shards work/shards --recipe sim-small --out work/run --set train.steps=7 --resume"
    assert [call for call in calls if "--shards real" in call] == [
        "cmelt zeroshot --run work/cmelt-sim-small --shards real --fold val --json",
        "cmelt zeroshot --by entities --run work/cmelt-sim-small --shards real --fold val --json",
        "cmelt probe --run work/cmelt-sim-small --shards real --fold val --json",
    ]
    assert calls[-1] == "python -m pipelines.ship work/run work/cmelt-sim-small --figures work/figures"
    assert told(tmp_path, "sim-small.sh", "work", "real")[1] == calls[-1:]
    last = told(tmp_path, "sim-small.sh", "work", "real", "test", SHIP="there", KEEP="1")[1]
    assert [("--fold test" in call) for call in last] == [True, True, True, False]
    assert last[-1] == "python -m pipelines.ship work/run there --figures work/figures --keep"


@pytest.mark.parametrize(
    ("script", "arguments", "module"),
    [
        (
            "real-transfer.sh",
            ("raw", "sim", "work", "test", "--seeds", "0,1"),
            "transfer work/stages --sim sim --real work/real --fold test",
        ),
        ("evidence.sh", ("raw", "work", "--count", "2"), "bench work/bench --sim work/sim --real work/real"),
        ("scaling.sh", ("raw", "work", "--count", "2"), "scaling work/stages --sim work/sim --real work/real"),
    ],
)
def test_the_other_scripts_prepare_once_and_hand_options_on(tmp_path: Path, script: str, arguments: tuple[str, ...], module: str) -> None:
    status, calls = told(tmp_path, script, *arguments)
    assert not status
    assert any(call.startswith("cmelt ingest ptbxl raw work/real") for call in calls)
    assert calls[-1].startswith(f"python -m pipelines.evidence.{module}")
    assert calls[-1].endswith(" ".join(arguments[-2:]))
    assert told(tmp_path, script, *arguments)[1] == calls[-1:]
