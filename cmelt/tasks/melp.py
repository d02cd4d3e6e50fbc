"""Protocol ``melp-2025`` (protocols.md; arXiv 2506.21803): as its published numbers came to be, for comparison with them.

AUROC is taken on a softmax over labels, although a recording may have several: a score then falls where another label's rises.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from cmelt.tasks.protocol import Classes, Fit, Floats, Folds, Labels, Rows, Sets
from cmelt.tasks.sgd import SEED, Published, epochs, macro_of, one_of

EPOCHS = 100
BATCH = 128
PATIENCE = 5


class Melp(Published):
    """AdamW with a cosine, batches of 128, stopped early on validation AUC; an unstratified draw; AUC on softmax over labels."""

    name = "melp-2025"

    def draw_size(self, n: int, fraction: float) -> int:
        """Return how many of `n` training recordings a fraction is: rounded to the nearest, as pandas' sample does."""
        return n if fraction >= 1 else round(fraction * n)

    def draw(self, truth: Labels, keys: NDArray[np.str_], fraction: float, seed: int) -> Rows:
        """Draw as pandas' ``sample(frac, random_state=42)`` from the rows in the order of their keys, whatever their classes."""
        order = np.argsort(keys, kind="stable")
        size = self.draw_size(len(order), fraction)
        return np.asarray(order[np.random.RandomState(SEED).choice(len(order), size, replace=False)])

    def fit(self, sets: Sets, truth: Labels, folds: Folds, drawn: Rows, usable: Classes, seed: int) -> Fit:
        """Train on the embedding until validation AUROC has not risen for five epochs; return the softmax of the best epoch."""
        name = one_of(sets, "embedding")
        best = (-np.inf, 0)
        kept: tuple[Floats, Floats] | None = None
        run = 0
        for val, test in epochs(sets[name], truth, folds, drawn, _adamw, BATCH, EPOCHS, seed, rate_by_step=False):
            run += 1
            val, test = softmax(val, axis=1), softmax(test, axis=1)
            value = macro_of(truth[folds.val], val, usable)
            if kept is None or value > best[0]:
                best, kept = (value, run), (val, test)
            if run - best[1] >= PATIENCE:
                break
        assert kept is not None, "no epoch was run"
        return Fit(kept[1], kept[0], {"features": name, "val_auc": round(best[0], 6), "best_epoch": best[1], "epochs": run})

    def probability(self, score: Floats) -> Floats:
        """Return the scores as they are: shares of one among the labels."""
        return score


def _adamw(parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the published optimiser and its cosine over all epochs, one step an epoch."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS, eta_min=1e-5)
