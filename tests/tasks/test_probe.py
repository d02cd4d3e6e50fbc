"""The probe end to end on a small untrained model and ECGs whose classes can be seen: files, numbers, baselines, refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from cmelt import __version__
from cmelt.errors import TaskError
from cmelt.models.cmelt import CMELT
from cmelt.tasks import baselines
from cmelt.tasks.base import Cohort, on_device
from cmelt.tasks.probe import Probe, Problem, measure, on_features, probe, table, unusable
from cmelt.tasks.protocol import Folds
from cmelt.tasks.strict import Strict
from tests.made import MakeShards
from tests.paired import paired_bootstrap


def test_probe_writes_what_it_returns(run: Path, shards: Path) -> None:
    result = probe(run, quiet=True)
    assert json.loads((run / "results/probe-superclass.json").read_text()) == {"version": __version__, **result}
    assert {"task": "superclass", "protocol": "strict", "checkpoint": str(run), "shards": [str(shards)]}.items() <= result.items()
    none, ten, full = result["fractions"]
    assert none == {"fraction": 0.01, "n_train": 2, "not_computed": "2 training recordings are fewer than 10"}
    assert (ten["fraction"], ten["n_train"], ten["seeds"]) == (0.1, 19, [0, 1, 2, 3, 4])
    assert (full["fraction"], full["n_train"], full["n_test"], full["seeds"]) == (1.0, 192, 24, [0])
    assert full["macro_auc"] > 0.7
    assert full["ci95"][0] < full["macro_auc"] <= full["ci95"][1]
    assert set(full["per_class"]) == {"NORM", "MI", "STTC", "CD", "HYP"}
    base = full["baselines"]["random_init"]
    assert len(base["fits"]) == base["replicates"] == 3
    assert base["difference"] == pytest.approx(full["macro_auc"] - base["macro_auc"], abs=2e-6)
    assert base["difference_ci95"][0] <= base["difference"] <= base["difference_ci95"][1]
    assert len(ten["baselines"]["random_init"]["fits"]) == 15

    kept = pq.read_table(run / "results/baselines/probe-superclass-random_init.parquet").to_pylist()
    of_norm = [[row for row in kept if (row["class"], row["fraction"], row["seed"]) == ("NORM", 1.0, seed)] for seed in range(3)]
    assert len(kept) == 3 * 24 * 5
    aucs = [roc_auc_score([row["truth"] for row in rows], [row["score"] for row in rows]) for rows in of_norm]
    assert np.mean(aucs) == pytest.approx(base["per_class"]["NORM"], abs=1e-5)

    predictions = pq.read_table(run / "results/probe-superclass.parquet")
    assert predictions.column_names == ["key", "patient", "fraction", "seed", "class", "score", "truth"]
    frame = predictions.to_pydict()
    assert len(frame["key"]) == 24 * 5 * 6
    for entry in (ten, full):
        aucs = []
        for seed in entry["seeds"]:
            pick = [
                i
                for i in range(len(frame["key"]))
                if (frame["fraction"][i], frame["seed"][i], frame["class"][i]) == (entry["fraction"], seed, "MI")
            ]
            aucs.append(roc_auc_score([frame["truth"][i] for i in pick], [frame["score"][i] for i in pick]))
        assert entry["per_class"]["MI"]["auc"] == pytest.approx(np.mean(aucs), abs=1e-6)
        assert entry["per_class"]["MI"]["positives"] == sum(frame["truth"][i] for i in pick)
    assert not list((run / "results").glob("*.part"))

    pick = np.array(frame["fraction"]) == 1.0
    score, truth = (np.array(frame[name])[pick].reshape(-1, 5) for name in ("score", "truth"))
    for name, found in (
        ("micro_auc", roc_auc_score(truth, score, average="micro")),
        ("weighted_auc", roc_auc_score(truth, score, average="weighted")),
        ("macro_ap", average_precision_score(truth, score, average="macro")),
    ):
        assert full[name] == pytest.approx(found, abs=1e-6), name
    assert 0 < full["macro_ece"] < 1
    assert 0 < full["macro_f1"] <= 1
    assert full["without_threshold"] == []
    assert set(full["per_class"]["MI"]) == {"auc", "ci95", "positives", "ap", "f1", "ece"}

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(result))
    shown = console.export_text()
    assert "random init" in shown
    assert f"{full['per_class']['HYP']['auc']:.3f}" in shown


def test_the_same_run_gives_the_same_numbers(run: Path) -> None:
    first, second = probe(run, init_seeds=(0,), quiet=True), probe(run, init_seeds=(0,), quiet=True)
    assert first == second


def test_random_init_has_the_shape_but_not_the_weights(run: Path, shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    model = on_device(CMELT.from_pretrained(run))
    state = torch.get_rng_state()
    one, other, again = baselines.random_init(model, cohort, (0, 1, 0), True)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"
    assert one["embedding"].shape == (240, model.config.width)
    assert np.abs(one["embedding"] - other["embedding"]).max() > 1e-3
    np.testing.assert_array_equal(one["mean"], again["mean"])


def arrays(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, Folds]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < 0.4).astype(np.int8)
    good = truth @ rng.normal(size=(3, 8)) * 2 + rng.normal(size=(n, 8))
    rows = np.arange(n)
    return truth, good, rng.normal(size=(n, 8)), Folds(rows[rows % 4 < 2], rows[rows % 4 == 2], rows[rows % 4 == 3])


def strict(
    sets: dict[str, np.ndarray],
    baselines: dict[str, list[dict[str, np.ndarray]]] | None,
    truth: np.ndarray,
    folds: Folds,
    patients: np.ndarray,
    classes: list[str],
    left_out: dict[str, str],
    quiet: bool = True,
) -> Probe:
    """Run protocol strict on arrays."""
    problem = Problem(truth, folds, patients, np.arange(len(truth)).astype(str), classes, left_out)
    others = {name: [on_features(Strict(), one, problem) for one in replicates] for name, replicates in (baselines or {}).items()}
    return measure(Strict(), on_features(Strict(), sets, problem), others, problem, quiet=quiet)


def test_the_difference_is_paired_over_patients() -> None:
    truth, good, noise, folds = arrays()
    patients = np.arange(400) // 8
    found = strict({"x": good}, {"noise": [{"x": noise}]}, truth, folds, patients, ["a", "b", "c"], {}, quiet=True)
    entry = found.fractions[-1]
    alone = strict({"x": noise}, None, truth, folds, patients, ["a", "b", "c"], {}, quiet=True)
    paired = paired_bootstrap(truth[folds.test], found.scored[-1].score, alone.scored[-1].score, patients[folds.test])
    assert entry["baselines"]["noise"]["difference"] == pytest.approx(paired.value, abs=1e-6)
    assert entry["baselines"]["noise"]["difference_ci95"] == pytest.approx(list(paired.ci95), abs=1e-6)
    assert paired.ci95[0] > 0
    same = strict({"x": good}, {"same": [{"x": good}]}, truth, folds, patients, ["a", "b", "c"], {}, quiet=True).fractions[-1]
    assert same["baselines"]["same"]["difference_ci95"] == [0.0, 0.0]


def test_shuffled_labels_give_chance() -> None:
    truth, good, _, folds = arrays(1200)
    truth = np.random.default_rng(5).permutation(truth)
    entry = strict({"x": good}, None, truth, folds, np.arange(1200), ["a", "b", "c"], {}, quiet=True).fractions[-1]
    assert entry["ci95"][0] < 0.5 < entry["ci95"][1]


def test_classes_that_cannot_count_are_named_and_left_out() -> None:
    truth, good, _, folds = arrays()
    truth = np.hstack([truth, np.zeros((400, 2), np.int8)])
    truth[folds.train[:5], 3] = 1
    truth[folds.test[:5], 4] = 1
    names = ["a", "b", "c", "no test", "no training"]
    left_out = unusable(truth, folds, names)
    assert left_out == {"no test": "no positive recording in the test fold", "no training": "no positive recording in the training fold"}
    entry = strict({"x": good}, None, truth, folds, np.arange(400), names, left_out, quiet=True).fractions[-1]
    assert entry["per_class"]["no test"] == {"auc": None, "ci95": None, "positives": 0}
    assert entry["per_class"]["no training"] == {"auc": None, "ci95": None, "positives": 5}
    counted = [entry["per_class"][name]["auc"] for name in "abc"]
    assert entry["macro_auc"] == pytest.approx(np.mean(counted), abs=1e-5)
    assert entry["left_out"] == left_out
    truth[folds.test] = 1
    with pytest.raises(TaskError, match="no class has positive and negative recordings in both"):
        unusable(truth, folds, names)


def test_folds_without_a_choice_are_refused(tmp_path: Path, run: Path, make_shards: MakeShards) -> None:
    with pytest.raises(TaskError, match="no recording in the val split"):
        probe(run, [make_shards(tmp_path / "few", n=8)], quiet=True)
    truth, _, _, folds = arrays()
    truth[folds.val] = 0
    with pytest.raises(TaskError, match="validation fold"):
        unusable(truth, folds, ["a", "b", "c"])
    with pytest.raises(TaskError, match="did you mean 'superclass'"):
        probe(run, task="superclas", quiet=True)
    assert not (run / "results").exists(), "a refused probe leaves nothing"
