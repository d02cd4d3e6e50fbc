"""A task finds its run and its recordings, and says clearly where they do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.errors import CheckpointError, ShardError, TaskError
from cmelt.models.cmelt import CMELT
from cmelt.models.store import write
from cmelt.record import LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import Cohort, encoder_features, load_model, newest_run, open_run
from cmelt.tasks.zeroshot import zeroshot
from tests.made import SAMPLES, MakeShards, make_run
from tests.pairs import small_model


def test_the_newest_run_is_the_one_written_last(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, age in (("b", 30), ("a", 10), ("c", 20)):
        (runs / name).mkdir(parents=True)
        (runs / name / "model.safetensors").touch()
        os.utime(runs / name / "model.safetensors", (1e9 - age, 1e9 - age))
    (runs / "unfinished").mkdir()
    assert newest_run(runs) == runs / "a"


def test_runs_that_are_not_there(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="does not exist; did you mean 'small'"):
        open_run(run.parent / "smal", None)
    (run.parent / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no checkpoint yet; runs there: small"):
        open_run(run.parent / "empty", None)
    (run / "recipe.json").write_text("{}")
    with pytest.raises(CheckpointError, match="--shards"):
        open_run(run, None)
    assert open_run(run, [tmp_path]).shards == (tmp_path,)
    monkeypatch.chdir(run.parent.parent)
    assert open_run(None, [tmp_path]).folder == Path("runs/small")
    monkeypatch.chdir(tmp_path / "runs" / "empty")
    monkeypatch.setattr("cmelt.tasks.base.SHIPPED", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no run under runs/"):
        open_run(None, None)


def test_a_cohort_holds_the_labelled_recordings_of_all_folders(tmp_path: Path, make_shards: MakeShards) -> None:
    first = make_shards(tmp_path / "first", n=30)
    second = make_shards(tmp_path / "second", n=20, seed=1, dataset="other")
    cohort = Cohort([first, second], "superclass")
    assert len(cohort) == 50
    assert cohort.classes == ("NORM", "MI", "STTC", "CD", "HYP")
    assert len(set(cohort.keys)) == 50
    assert (cohort.keys[1], cohort.keys[31]) == ("ptbxl-simulated/00001", "other/00001")
    assert cohort.patients[2] == cohort.patients[3] == "ptbxl-simulated/1"
    assert cohort.patients[32] == "other/1", "patient 1 of two data sets is two patients"
    assert (cohort.patients[7], cohort.patients[6]) == ("ptbxl-simulated/recording/00007", "ptbxl-simulated/3")
    folder = ShardFolder(second)
    rows = np.array([45, 3, 30])
    expected = [folder.ecg_mv([15])[0], ShardFolder(first).ecg_mv([3])[0], folder.ecg_mv([0])[0]]
    np.testing.assert_array_equal(cohort.ecg_mv(rows), expected)
    vocabulary = cohort.vocabulary
    assert [set(np.array(cohort.classes)[row > 0]) for row in cohort.truth[30:]] == [
        vocabulary.classes_of(c) for c in folder.column("codes")
    ]
    assert len(Cohort([first], "form")) == sum("NDT" in codes for codes in ShardFolder(first).column("codes"))


def test_tasks_and_shards_that_do_not_fit(tmp_path: Path, shards: Path, make_shards: MakeShards) -> None:
    with pytest.raises(TaskError, match=r"no recording of .* has a label of task 'rhythm'"):
        Cohort([shards], "rhythm")
    with pytest.raises(TaskError, match="PTB-XL's statements, not with codes of task 'cpsc2018'"):
        Cohort([shards], "cpsc2018")
    with pytest.raises(ShardError, match="is not a folder"):
        Cohort([tmp_path / "nowhere"], "superclass")
    with pytest.raises(ShardError, match=r"320 samples at 100 Hz.*same recipe"):
        Cohort([make_shards(tmp_path / "slow", n=10, fs_hz=50.0), shards], "superclass")
    with pytest.raises(ShardError, match="holds leads"):
        Cohort([make_shards(tmp_path / "leads", n=10, leads=LEADS[::-1])], "superclass")
    few = Cohort([make_shards(tmp_path / "few", n=8)], "superclass")
    with pytest.raises(TaskError, match="no recording in the test split"):
        few.rows("test")


def test_a_checkpoint_for_other_ecgs_is_refused(tmp_path: Path, shards: Path) -> None:
    small_model(samples=160).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"reads 160 samples at 100 Hz, but .* holds 320 at 100 Hz; ingest with"):
        load_model(open_run(tmp_path / "other", [shards]), Cohort([shards], "superclass"))


def test_features_are_the_models_whatever_the_batch(run: Path, shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    model = load_model(open_run(run, None), cohort)
    features = encoder_features(model, cohort, quiet=True, batch=7)
    embedding, mean = model.ecg_features(cohort.ecg_mv(np.arange(40, 50)))
    np.testing.assert_allclose(features["embedding"][40:50], embedding, atol=1e-5)
    np.testing.assert_allclose(features["mean"][40:50], mean, atol=1e-5)
    assert len(features["mean"]) == len(cohort)
    some = encoder_features(model, cohort, quiet=True, rows=np.array([44, 2]))
    np.testing.assert_allclose(some["embedding"], features["embedding"][[44, 2]], atol=1e-5)


def test_a_checkpoint_that_gives_nan_is_refused(run: Path, shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    model = load_model(open_run(run, None), cohort)
    model.ecg_project.weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        encoder_features(model, cohort, quiet=True)


def test_the_shipped_model_serves_where_there_is_no_run(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "package" / "cmelt-sim-small"
    make_run(folder, shards)
    (folder / "recipe.json").write_text("{}")
    monkeypatch.setattr("cmelt.tasks.base.SHIPPED", folder)
    monkeypatch.setattr("cmelt.models.store.SHIPPED", folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    with pytest.raises(CheckpointError, match="cmelt-sim-small comes without shards"):
        open_run(None, None)
    assert open_run(Path("cmelt-sim-small"), [shards]).folder == folder  # by its name, too
    assert CMELT.from_pretrained("cmelt-sim-small").config.samples == SAMPLES
    capsys.readouterr()
    before = sorted(folder.rglob("*"))
    for _ in range(2):  # what it leaves behind is not taken for a run
        result = zeroshot(None, [shards], quiet=True)
        assert capsys.readouterr().err.count("no run under runs/: taking cmelt-sim-small") == 1
    assert result["checkpoint"] == "cmelt-sim-small"
    assert Path("runs/cmelt-sim-small/results/zeroshot-superclass.json").is_file()
    assert Path("runs/cmelt-sim-small/results/features").is_dir()
    assert sorted(folder.rglob("*")) == before

    own = make_run(Path("runs/own"), shards)
    assert open_run(None, None).folder == own
    assert not capsys.readouterr().err


def test_half_precision_on_disk_is_single_precision_in_use(tmp_path: Path, run: Path) -> None:
    whole = CMELT.from_pretrained(run)
    (tmp_path / "half").mkdir()
    write(whole, tmp_path / "half", half=True)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    half = CMELT.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    for name, value in half.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name].half().float()), name
