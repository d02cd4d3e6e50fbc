"""Protocol ``merl-2024`` (protocols.md; arXiv 2403.06659): as its published numbers came to be, for comparison with them.

It reads the test fold after every epoch and tells the best of them; what that is worth is told as ``best_minus_last``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import nn

from cmelt.tasks.protocol import Classes, Fit, Floats, Folds, Labels, Rows, Sets
from cmelt.tasks.sgd import SEED, Published, epochs, macro_of, one_of

EPOCHS = 100
BATCH = 16


class Merl(Published):
    """Adam for 100 epochs of batches of 16 on features as they are; an unstratified draw; the best test AUC over epochs."""

    name = "merl-2024"

    def draw_size(self, n: int, fraction: float) -> int:
        """Return how many of `n` training recordings a fraction is: rounded down, as scikit-learn's train_test_split does."""
        return n if fraction >= 1 else int(fraction * n)

    def draw(self, truth: Labels, keys: NDArray[np.str_], fraction: float, seed: int) -> Rows:
        """Draw by scikit-learn's train_test_split with seed 42 from the rows in the order of their keys, whatever their classes."""
        order = np.argsort(keys, kind="stable")
        if fraction >= 1:
            return np.asarray(order)
        drawn: Rows = train_test_split(order, train_size=fraction, random_state=SEED)[0]
        return drawn

    def fit(self, sets: Sets, truth: Labels, folds: Folds, drawn: Rows, usable: Classes, seed: int) -> Fit:
        """Train for all epochs on the mean of the tokens; return the scores of the epoch with the best macro AUROC on the *test* fold."""
        name = one_of(sets, "mean")
        found: list[tuple[float, float]] = []
        best: tuple[Floats, Floats] | None = None
        for val, test in epochs(sets[name], truth, folds, drawn, _adam, BATCH, EPOCHS, seed, rate_by_step=True):
            found.append((macro_of(truth[folds.test], test, usable), macro_of(truth[folds.val], val, usable)))
            if best is None or found[-1][0] > max(value for value, _ in found[:-1]):
                best = val, test
        assert best is not None, "no epoch was run"
        on_test, on_val = (np.array(values) for values in zip(*found, strict=True))
        chosen = int(on_test.argmax())
        told = {
            "features": name,
            "best_epoch": chosen + 1,
            "last_epoch_auc": round(on_test[-1], 6),
            "best_minus_last": round(on_test[chosen] - on_test[-1], 6),
            "auc_at_best_validation_epoch": round(on_test[on_val.argmax()], 6),
        }
        return Fit(best[1], best[0], told)


def _adam(parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the published optimiser: the milestone of 40 counts steps (and ends of epochs), not the epochs it was meant for."""
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[40], gamma=0.1)
