"""Protocol strict keeps its promises: fair draws, choices on validation, a test fold that is only scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmelt.metrics import auroc
from cmelt.tasks.protocol import Fit, Folds
from cmelt.tasks.strict import Strict


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 400), st.integers(1, 12), st.sampled_from([0.01, 0.05, 0.1, 0.5]), st.integers(0, 2**16))
def test_draws_are_exact_and_keep_every_class(n: int, classes: int, fraction: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, classes)) < rng.uniform(0.005, 0.6, classes)).astype(np.int8)
    truth[np.arange(n), rng.integers(0, classes, n)] = 1
    rows = draw(truth, fraction, seed)
    assert len(set(rows.tolist())) == len(rows)
    assert (rows == draw(truth, fraction, seed)).all()
    assert truth[rows].any(0).tolist() == truth.any(0).tolist()
    if len(rows) != Strict().draw_size(n, fraction):  # more only where every row is the last of some class
        assert len(rows) > Strict().draw_size(n, fraction)
        assert all((truth[rows].sum(0)[truth[row] > 0] == 1).any() for row in rows)


def test_draws_keep_the_shares_of_classes_and_differ_by_seed() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((5000, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(np.int8)
    rows = draw(truth, 0.1, 0)
    np.testing.assert_allclose(truth[rows].mean(0), truth.mean(0), atol=0.005)
    assert len(set(rows) & set(draw(truth, 0.1, 1))) < 100
    assert (draw(truth, 1.0, 3) == np.arange(5000)).all()


def draw(truth: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    return Strict().draw(truth, np.arange(len(truth)).astype(str), fraction, seed)


def fit_and_score(
    sets: dict[str, np.ndarray], truth: np.ndarray, folds: Folds, drawn: np.ndarray, usable: np.ndarray, loss: str = "logistic"
) -> Fit:
    return Strict(loss).fit(sets, truth, folds, drawn, usable, 0)


def task(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, Folds]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((600, 3)) < 0.3).astype(np.int8)
    noise = rng.normal(size=(600, 20))
    signal = np.hstack([truth @ rng.normal(size=(3, 4)) + rng.normal(size=(600, 4)), noise])
    order = np.arange(600)
    return {"noise": noise, "signal": signal * 1000 + 5}, truth, Folds(order[:400], order[400:500], order[500:])


def test_features_and_strength_are_chosen_on_validation_alone() -> None:
    sets, truth, folds = task()
    drawn, usable = folds.train[:200], np.ones(3, bool)
    fit = fit_and_score(sets, truth, folds, drawn, usable)
    assert fit.told["features"] == "signal"
    assert fit.score.shape == (100, 3)
    assert (auroc(truth[folds.test], fit.score) > 0.7).all()

    elsewhere = truth.copy()
    elsewhere[folds.test] = 1 - truth[folds.test]
    unseen = np.setdiff1d(folds.train, drawn)
    elsewhere[unseen] = 1 - truth[unseen]
    again = fit_and_score(sets, elsewhere, folds, drawn, usable)
    assert (again.score == fit.score).all(), "labels of the test fold, or of rows that were not drawn, were read"

    moved = {name: values.copy() for name, values in sets.items()}
    for values in moved.values():
        values[folds.test] += 1e6
        values[unseen] -= 1e6
    shifted = fit_and_score(moved, truth, folds, drawn, usable)
    assert shifted.told == fit.told
    truth[folds.val] = 1 - truth[folds.val]
    assert fit_and_score(sets, truth, folds, drawn, usable).told["val_auc"] < fit.told["val_auc"]


def test_units_of_features_do_not_matter() -> None:
    sets, truth, folds = task(1)
    one = fit_and_score({"x": sets["signal"]}, truth, folds, folds.train, np.ones(3, bool))
    other = fit_and_score({"x": sets["signal"] * 1e-3 - 7}, truth, folds, folds.train, np.ones(3, bool))
    np.testing.assert_allclose(one.score, other.score, atol=1e-4)


@pytest.mark.parametrize("loss", ["logistic", "ridge"])
def test_a_draw_without_one_class_still_scores(loss: str) -> None:
    sets, truth, folds = task()
    without = folds.train[truth[folds.train, 1] == 0]
    fit = fit_and_score(sets, truth, folds, without, np.ones(3, bool), loss)
    assert np.unique(fit.score[:, 1]).size == 1
    assert auroc(truth[folds.test], fit.score)[1] == 0.5
