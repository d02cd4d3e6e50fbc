"""What predictions show: the drawn curves have the area that is told, the bins the error that is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt import predictions
from cmelt.errors import CheckpointError
from cmelt.metrics import auroc, calibration_error
from cmelt.predictions import BINS, Predictions, drawn, plane, reliability, roc, similarity
from cmelt.tasks.results import Scored, write_results

CLASSES = ("A", "B<b>", "C")


def made(n: int = 300) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return truth (n, 3), whose last class is empty, and two score sets with ties."""
    rng = np.random.default_rng(0)
    truth = (rng.random((n, 3)) < (0.4, 0.1, 0)).astype(np.int8)
    return truth, [np.round(truth + rng.normal(0, 1, truth.shape), 1) for _ in range(2)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of predictions at two shares of the labels."""
    truth, scores = made()
    folder = tmp_path_factory.mktemp("results")
    keys = np.array([f"r{i}" for i in range(len(truth))])
    scored = [Scored(0.1, 0, scores[0]), *(Scored(1.0, seed, score) for seed, score in enumerate(scores))]
    write_results(folder, "probe", {}, keys, truth, CLASSES, scored)
    return folder / "probe.parquet"


def test_reading_gives_back_what_was_written(file: Path, tmp_path: Path) -> None:
    truth, scores = made()
    found = Predictions.read(file, 1.0)
    assert found is not None
    assert (found.truth == truth).all()
    assert (found.score == np.stack(scores)).all()
    assert found.classes == list(CLASSES)
    assert found.shown() == [0, 1], "a class without positives has no curve"
    assert Predictions.read(file, 0.5) is None
    assert Predictions.read(tmp_path / "none.parquet", 1.0) is None
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(CheckpointError, match="make it anew"):
        Predictions.read(tmp_path / "bad.parquet", 1.0)


@pytest.mark.parametrize("corners", [10_000, 60])
def test_a_roc_curve_has_the_area_that_is_told(monkeypatch: pytest.MonkeyPatch, corners: int) -> None:
    monkeypatch.setattr(predictions, "CORNERS", corners)
    truth, (score, _) = made()
    x, y = roc(truth[:, 0], score[:, 0])
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert len(x) <= corners
    told = auroc(truth[:, :1], score[:, :1])[0]
    assert np.trapezoid(y, x) == pytest.approx(told, abs=1e-12 if corners > 60 else 0.01)
    flat = roc(np.array([0, 1, 1]), np.zeros(3))
    assert [list(ends) for ends in flat] == [[0, 1], [0, 1]]


def test_bins_have_the_error_that_is_told() -> None:
    rng = np.random.default_rng(1)
    probability = np.append(rng.random(500), [0.0, 1.0])
    truth = (rng.random(502) < probability**2).astype(np.int8)
    mean, share, count = reliability(truth, probability[None])
    told = calibration_error(truth[:, None], probability[:, None], BINS)[0]
    assert (count * np.abs(mean - share)).sum() / count.sum() == pytest.approx(told)
    assert told > 0.05


def test_drawn(file: Path) -> None:
    truth, scores = made()
    found = drawn(file, {"task": "superclass", "protocol": "strict"}, 1.0)
    told = np.mean([calibration_error(truth, 1 / (1 + np.exp(-score))) for score in scores], axis=0)
    assert found["ece"] == pytest.approx(told[:2].mean())
    assert (found["fits"], found["hidden"]) == (2, 1)
    auc = np.mean([auroc(truth, score) for score in scores], axis=0)
    assert f"B&lt;b&gt; {auc[1]:.3f}" in found["roc"]
    assert f"B&lt;b&gt; {100 * told[1]:.1f} %" in found["reliability"]
    similar = drawn(file, {"task": "superclass", "protocol": "zeroshot"}, 1.0)
    assert similar["roc"]
    assert similar["reliability"] is None
    assert "not a probability" in similar["why"]
    assert "no ROC curves" in drawn(file.with_name("gone.parquet"), {"task": "superclass", "protocol": "strict"}, 1.0)["why"]


def test_similarity_of_texts_and_true_classes(tmp_path: Path) -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], np.int8)
    score = np.array([[0.9, 0.1], [0.5, 0.3], [0.2, 0.8], [0.0, 0.0]])
    write_results(tmp_path, "zeroshot", {}, np.array(list("abcd")), truth, CLASSES[:2], [Scored(0.0, 0, score)])
    found = similarity(tmp_path / "zeroshot.parquet", {"texts": {"A": ["one", "two"]}})
    assert found is not None
    (name, text, cells), (_, no_text, others) = found["rows"]
    assert (name, text, no_text) == ("A", "one; two", "")
    assert [mean for mean, _ in cells + others] == pytest.approx([0.7, 0.35, 0.2, 0.55])
    assert [warm for _, warm in cells + others] == pytest.approx([1, 0.3, 0, 0.7])
    assert similarity(tmp_path / "gone.parquet", {}) is None


def test_plane_keeps_what_varies_most() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(200, 2)) * (5, 2)
    turned, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    points, kept = plane((flat @ turned[:2] + 7).astype(np.float32))
    assert kept == pytest.approx(1)
    distances = [np.linalg.norm(xy[:, None] - xy[None], axis=2) for xy in (points, flat)]
    assert distances[0] == pytest.approx(distances[1], abs=1e-4)
    assert points.std(0)[0] > points.std(0)[1]
