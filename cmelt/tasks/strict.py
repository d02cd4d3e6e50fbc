"""Protocol ``strict`` (protocols.md) on arrays: draw labels, fit on the draw, choose on validation, score the test fold once.

N recordings, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit
from numpy.typing import NDArray

from cmelt.metrics import auroc, macro
from cmelt.tasks.linear import STRENGTHS, fit

FRACTIONS = (0.01, 0.1, 1.0)
SEEDS = (0, 1, 2, 3, 4)
FEWEST = 10
"""A draw of fewer recordings is not fitted."""

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Folds:
    """Row numbers of the training, validation and test folds."""

    train: Rows
    val: Rows
    test: Rows


@dataclass(frozen=True)
class Fit:
    """A chosen classifier's scores on the test fold, (N_test, C) logits, and what validation chose."""

    score: NDArray[np.float64]
    features: str
    strength: float
    val_auc: float


def draw_size(n: int, fraction: float) -> int:
    """Return how many of `n` training recordings a fraction is."""
    return max(1, round(fraction * n))


def draw(truth: NDArray[np.int8], fraction: float, seed: int) -> Rows:
    """Draw a fraction of the training rows, `truth` (N, C), by iterative multi-label stratification; return them ascending.

    Every class that has a row keeps at least one. The draw is exactly `draw_size` rows, unless its classes alone need more.
    """
    n = len(truth)
    size = draw_size(n, fraction)
    if size >= n:
        return np.arange(n)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, train_size=size, test_size=n - size, random_state=seed)
    strata = truth if truth.shape[1] > 1 else np.hstack([truth, 1 - truth])  # the library wants more than one column
    rows, _ = next(splitter.split(strata, strata))
    drawn = np.zeros(n, bool)
    drawn[rows] = True
    rng = np.random.default_rng(seed)
    for c in np.flatnonzero(truth.any(0) & ~truth[drawn].any(0)):  # the stratifier may leave a rare class without a row
        if not truth[drawn, c].any():
            drawn[rng.choice(np.flatnonzero(truth[:, c]))] = True
    for row in rng.permutation(np.flatnonzero(drawn)):
        if drawn.sum() <= size:
            break
        drawn[row] = (truth[drawn].sum(0)[truth[row] > 0] == 1).any()  # kept where it is the last of a class
    missing = size - int(drawn.sum())
    if missing > 0:
        drawn[rng.choice(np.flatnonzero(~drawn), missing, replace=False)] = True
    return np.flatnonzero(drawn)


def fit_and_score(
    sets: Mapping[str, NDArray[np.floating]],
    truth: NDArray[np.int8],
    folds: Folds,
    drawn: Rows,
    usable: NDArray[np.bool_],
    loss: str = "logistic",
) -> Fit:
    """Fit on rows `drawn`, choose features and regularisation by macro AUROC on validation, score the test fold with the choice.

    `sets` are alternative features, each (N, F); `usable` (C,) says which classes count. Features are standardised by the draw.
    """
    best: tuple[float, str, int] | None = None
    for name, features in sets.items():
        x = features[drawn].astype(np.float64)
        centre, spread = x.mean(0), x.std(0)
        spread[spread < 1e-12] = 1.0
        weights, bias = fit((x - centre) / spread, truth[drawn].astype(bool), STRENGTHS[loss], loss)
        val = (features[folds.val] - centre) / spread
        for g in range(len(weights)):
            value = macro(np.where(usable, auroc(truth[folds.val], val @ weights[g] + bias[g]), np.nan))
            if best is None or value > best[0]:
                best = (value, name, g)
                chosen = (centre, spread, weights[g], bias[g])
    assert best is not None, "no features to choose from"
    centre, spread, weight, offset = chosen
    score = (sets[best[1]][folds.test] - centre) / spread @ weight + offset
    return Fit(score, best[1], STRENGTHS[loss][best[2]], best[0])
