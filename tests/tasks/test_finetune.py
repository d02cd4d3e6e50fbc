"""Fine-tuning learns what can be learnt, leaves alone what is frozen, keeps the best epoch, and writes a checkpoint like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cmelt.config import load_recipe
from cmelt.config_tasks import FinetuneRecipe
from cmelt.errors import CheckpointError, CmeltError, OutputError, TaskError
from cmelt.labels import challenge_weights, load_vocabulary
from cmelt.metrics import auroc, challenge_score, macro
from cmelt.models.cmelt import CMELT
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import Cohort
from cmelt.tasks.finetune import finetune, load_classifier, logits
from cmelt.tasks.probe import probe
from cmelt.tasks.tune import classifier, tune_classifier
from tests.made import SAMPLES, MakeShards
from tests.pairs import small_model


def recipe(**tune: object) -> FinetuneRecipe:
    settings = {"epochs": 12, "batch": 32, "patience": 12, "head_rate": 2.0} | tune
    return FinetuneRecipe.model_validate({"tune": settings, "optim": {"lr": 1e-2, "schedule": "cosine"}})


def test_named_recipes_are_read() -> None:
    assert load_recipe("finetune", "full").tune.layers == -1
    assert load_recipe("finetune", "partial", ["tune.layers=1"]).tune.layers == 1


def test_a_finetuned_run_is_a_run(run: Path, tmp_path: Path, shards: Path) -> None:
    out = tmp_path / "runs" / "tuned"
    result = finetune(recipe(), run, None, "superclass", out, leads=("I", "II", "III", "aVR"), quiet=True)
    (entry,) = result["fractions"]
    assert (entry["n_train"], entry["n_val"], entry["n_test"]) == (192, 24, 24)
    assert entry["per_class"]["MI"]["auc"] > 0.9, "it lies in III and aVR"
    assert json.loads((out / "results/finetune-superclass.json").read_text())["fractions"] == [entry]
    assert entry["chosen"][0]["val_auc"] == pytest.approx(
        max(json.loads(line)["value"] for line in (out / "metrics.jsonl").read_text().splitlines() if '"val"' in line), abs=1e-6
    )
    tuned, classes, leads = load_classifier(out)
    assert (classes, leads) == (list(load_vocabulary("superclass").classes), ["I", "II", "III", "aVR"])
    cohort = Cohort([shards], "superclass")
    test = cohort.rows("test")
    again = logits(tuned, cohort.ecg_mv(test), leads)
    predictions = pq.read_table(out / "results/finetune-superclass.parquet")
    np.testing.assert_allclose(again.ravel(), predictions["score"].to_numpy(), atol=1e-5)
    assert macro(auroc(cohort.truth[test], again)) == pytest.approx(entry["macro_auc"], abs=1e-6)
    assert probe(out, fractions=(1.0,), baselines=(), quiet=True)["checkpoint"] == str(out)
    with pytest.raises(OutputError, match="not empty"):
        finetune(recipe(), run, None, "superclass", out, quiet=True)
    with pytest.raises(OutputError, match="cannot write /proc/nowhere"):  # before training, not after it
        finetune(recipe(epochs=1000, patience=1000), run, None, "superclass", Path("/proc/nowhere"), quiet=True)
    with pytest.raises(CheckpointError, match="no fine-tuned head; make one with cmelt finetune"):
        load_classifier(run)


@pytest.mark.parametrize("layers", [-1, 0, 1])
def test_only_what_is_named_is_trained(shards: Path, layers: int) -> None:
    cohort, model = Cohort([shards], "superclass"), small_model(samples=SAMPLES, ecg_layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned = classifier(model, 5, layers)
    tune_classifier(tuned, cohort, cohort.rows("train")[:64], cohort.rows("val"), np.ones(5, bool), recipe(epochs=1), quiet=True)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    if layers == 0:
        assert not moved
    elif layers == 1:
        assert moved
        assert all(name.startswith("ecg_encoder.layers.1.") for name in moved)
    else:
        assert {"ecg_encoder.convs.0.weight", "ecg_encoder.cls"} <= moved
    assert not [name for name in moved if name.startswith(("text_", "fusion", "ecg_project"))]


def test_the_best_epoch_is_kept_and_patience_ends_it(shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    train, val = cohort.rows("train")[:40], cohort.rows("val")
    rows: list[dict[str, float]] = []
    tuned = classifier(small_model(samples=SAMPLES), 5)
    settings = recipe(epochs=40, patience=2, lead_prob=0.5)
    course = tune_classifier(tuned, cohort, train, val, np.ones(5, bool), settings, rows.append, quiet=True)
    values = [row["value"] for row in rows if row["split"] == "val"]
    assert course.value == max(values)
    assert course.best_epoch == int(np.argmax(values)) + 1
    assert course.epochs == len(values) == course.best_epoch + 2
    kept = macro(auroc(cohort.truth[val], logits(tuned, cohort.ecg_mv(val))))
    assert kept == pytest.approx(course.value, abs=1e-6), "not the weights of the best epoch"


def test_the_same_seed_gives_the_same_weights(shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    heads = []
    for seed in (3, 3, 4):
        tuned = classifier(small_model(samples=SAMPLES), 5, seed=seed)
        tune_classifier(tuned, cohort, np.arange(40), cohort.rows("val"), np.ones(5, bool), recipe(epochs=1, seed=seed), quiet=True)
        heads.append(tuned.head.state_dict()["weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_loss_that_is_not_finite_ends_it(shards: Path) -> None:
    cohort, model = Cohort([shards], "superclass"), small_model(samples=SAMPLES)
    model.ecg_encoder.cls.data.fill_(float("nan"))
    with pytest.raises(CmeltError, match=r"epoch 1: the loss is nan; lower optim\.lr"):
        tune_classifier(classifier(model, 5), cohort, np.arange(8), np.arange(8), np.ones(5, bool), recipe(), quiet=True)


def test_cinc2021_is_scored_as_the_challenge_does(
    run: Path, tmp_path: Path, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made-up recordings under SNOMED codes of five scored classes."""
    codes = dict(zip(("NORM", "IMI", "NDT", "1AVB", "LVH"), ("426783006", "164889003", "164934002", "270492004", "39732003"), strict=True))
    plain = ShardFolder.column
    monkeypatch.setattr(
        ShardFolder,
        "column",
        lambda self, name: [[codes[c] for c in some] for some in plain(self, name)] if name == "codes" else plain(self, name),
    )
    shards = make_shards(tmp_path / "cinc", dataset="cinc2021")
    out = tmp_path / "runs" / "cinc"
    (entry,) = finetune(recipe(epochs=6), run, [shards], "cinc2021", out, quiet=True)["fractions"]
    assert len(entry["left_out"]) == 21
    assert entry["challenge_score"] > 0.2
    table = pq.read_table(out / "results/finetune-cinc2021.parquet").to_pandas()
    classes = list(load_vocabulary("cinc2021").classes)
    truth = table["truth"].to_numpy().reshape(-1, 26)
    always = np.zeros_like(truth)
    always[:, classes.index("NSR")] = 1
    assert challenge_score(truth, truth, challenge_weights(), classes.index("NSR")) == pytest.approx(1)
    assert challenge_score(truth, always, challenge_weights(), classes.index("NSR")) == 0
    assert challenge_weights()[classes.index("PAC|SVPB"), classes.index("PAC|SVPB")] == 1


def test_what_cannot_be_tuned_leaves_nothing(run: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    out = tmp_path / "runs" / "none"
    with pytest.raises(TaskError, match="did you mean 'superclass'"):
        finetune(recipe(), run, None, "superclas", out, quiet=True)
    with pytest.raises(TaskError, match="no recording in the val split"):
        finetune(recipe(), run, [make_shards(tmp_path / "few", n=8)], "superclass", out, quiet=True)
    assert not out.exists()
    assert isinstance(CMELT.from_pretrained(run), CMELT)
