"""Protocol ``strict`` (protocols.md): draw labels evenly, fit to the draw, choose on validation, score the test fold once.

N recordings, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit
from numpy.typing import NDArray

from cmelt.metrics import auroc, macro
from cmelt.tasks.linear import STRENGTHS, path
from cmelt.tasks.protocol import Classes, Fit, Floats, Folds, Labels, Protocol, Rows, Sets

FEWEST = 10
SEEDS = 5
PATIENCE = 2
"""After so many weaker regularisations in a row that are no better on validation, still weaker ones are not tried."""


class Strict(Protocol):
    """Iterative stratification; one logistic (or ridge) classifier a class; features and regularisation chosen on validation."""

    name = "strict"
    fewest = FEWEST

    def __init__(self, loss: str = "logistic") -> None:
        self.loss = loss

    def seeds(self, fraction: float, count: int | None = None) -> Sequence[int]:
        """Return five seeds; one for all the labels, where nothing is drawn and the optimum is unique."""
        return range(1 if fraction >= 1 else count or SEEDS)

    def draw_size(self, n: int, fraction: float) -> int:
        """Return how many of `n` training recordings a fraction is."""
        return max(1, round(fraction * n))

    def draw(self, truth: Labels, keys: NDArray[np.str_], fraction: float, seed: int) -> Rows:
        """Draw a fraction of the training rows by iterative multi-label stratification; return them ascending.

        Every class that has a row keeps at least one. The draw is exactly `draw_size` rows, unless its classes alone need more.
        """
        n = len(truth)
        size = self.draw_size(n, fraction)
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

    def fit(self, sets: Sets, truth: Labels, folds: Folds, drawn: Rows, usable: Classes, seed: int) -> Fit:
        """Fit to rows `drawn`, choose features and regularisation by macro AUROC on validation, score the test fold with the choice.

        Features are standardised by the draw. Regularisation weakens step by step until PATIENCE steps in a row were no better.
        """
        best: tuple[float, Fit] | None = None
        for name, features in sets.items():
            x = features[drawn].astype(np.float64)
            centre, spread = x.mean(0), x.std(0)
            spread[spread < 1e-12] = 1.0
            val, test = ((features[rows] - centre) / spread for rows in (folds.val, folds.test))
            here, waited = -np.inf, 0
            for strength, (weight, offset) in zip(
                STRENGTHS[self.loss], path((x - centre) / spread, truth[drawn].astype(bool), STRENGTHS[self.loss], self.loss), strict=False
            ):
                score: Floats = val @ weight + offset
                value = macro(np.where(usable, auroc(truth[folds.val], score), np.nan))
                if best is None or value > best[0]:
                    told = {"features": name, "strength": strength, "val_auc": round(value, 6)}
                    best = value, Fit(test @ weight + offset, score, told)
                here, waited = (value, 0) if value > here else (here, waited + 1)
                if waited == PATIENCE:
                    break
        assert best is not None, "no features to choose from"
        return best[1]
