"""The batched solver gives scikit-learn's classifiers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from cmelt.tasks.linear import fit


def problem(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated standardised features and three classes, one of them rare."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 12))
    x = hidden @ (rng.normal(size=(12, width)) * 0.7 ** np.arange(12)[:, None]) + 0.1 * rng.normal(size=(n, width))
    logit = hidden @ rng.normal(size=(12, 3)) + rng.logistic(size=(n, 3))
    truth = logit > np.array([np.quantile(logit[:, c], share) for c, share in enumerate((0.5, 0.8, 0.97))])
    return (x - x.mean(0)) / x.std(0), truth


@pytest.mark.parametrize(("n", "width"), [(400, 30), (60, 200), (150, 150)])
def test_logistic_is_sklearns(n: int, width: int) -> None:
    x, truth = problem(n, width)
    strengths = (1e-4, 1e-2, 1.0)
    weights, bias = fit(x, truth, strengths)
    assert (weights.shape, bias.shape) == ((3, width, 3), (3, 3))
    for g, strength in enumerate(strengths):
        for c in range(3):
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(x, truth[:, c])
            np.testing.assert_allclose(x @ weights[g, :, c] + bias[g, c], model.decision_function(x), atol=5e-3)


@pytest.mark.parametrize(("n", "width"), [(400, 30), (60, 200)])
def test_ridge_is_sklearns(n: int, width: int) -> None:
    x, truth = problem(n, width)
    weights, bias = fit(x, truth, (10.0, 1000.0), "ridge")
    for g, alpha in enumerate((10.0, 1000.0)):
        model = Ridge(alpha=alpha).fit(x, 2.0 * truth - 1)
        np.testing.assert_allclose(x @ weights[g] + bias[g], model.predict(x), atol=1e-8)


def test_a_class_that_cannot_be_learnt_scores_equal_and_spoils_nothing() -> None:
    x, truth = problem(80, 20)
    together = truth.copy()
    together[:, 0], together[:, 1] = True, False
    for loss in ("logistic", "ridge"):
        weights, bias = fit(x, together, (0.1, 1.0), loss)
        assert not weights[:, :, :2].any()
        assert not bias[:, :2].any()
        alone, _ = fit(x, truth[:, 2:], (0.1, 1.0), loss)
        np.testing.assert_allclose(weights[:, :, 2:], alone, atol=1e-6)
    constant, _ = fit(np.zeros((10, 3)), np.arange(10)[:, None] % 2 == 0, (1.0,))
    assert not constant.any()


def test_separable_classes_stay_finite() -> None:
    x = np.linspace(-1, 1, 40)[:, None] * np.ones((1, 5))
    weights, bias = fit(x, x[:, :1] > 0.5, (1e-5, 1.0, 1e4))
    assert np.isfinite(weights).all()
    assert np.isfinite(bias).all()
    assert (((x @ weights[2] + bias[2]) > 0) == (x[:, :1] > 0.5)).all()
