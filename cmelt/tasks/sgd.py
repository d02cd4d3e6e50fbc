"""What the published protocols share: a linear layer on frozen features, trained by steps, scored after every epoch.

N recordings, C classes, F features, E epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmelt.metrics import auroc, macro
from cmelt.tasks.protocol import Floats, Folds, Protocol, Rows

SEED = 42
"""Of every draw, and of the first fit."""

Optimiser = Callable[[list[nn.Parameter]], tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]


class Published(Protocol):
    """A protocol whose published numbers stand on one draw of the labels."""

    def seeds(self, fraction: float, count: int | None = None) -> Sequence[int]:
        """Return the one seed of the published code, or `count` from it on: of weights and order; the draw is always the same."""
        return range(SEED, SEED + (count or 1))


def epochs(
    features: NDArray[np.floating],
    truth: NDArray[np.int8],
    folds: Folds,
    drawn: Rows,
    optimiser: Optimiser,
    batch: int,
    count: int,
    seed: int,
    rate_by_step: bool,
) -> Iterator[tuple[Floats, Floats]]:
    """Train on rows `drawn` of `features` (N, F), as they are, and yield after each epoch the logits of the validation and test folds.

    Binary cross-entropy, all rows in a new random order each epoch. The schedule of the learning rate moves at the end of each epoch,
    and, where `rate_by_step`, after each step too. Weights and order depend on `seed` alone; the global generator is left alone.
    """
    x = torch.from_numpy(np.ascontiguousarray(features[drawn], np.float32))
    y = torch.from_numpy(truth[drawn].astype(np.float32))
    held_out = [torch.from_numpy(np.ascontiguousarray(features[rows], np.float32)) for rows in (folds.val, folds.test)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(x.shape[1], y.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer, schedule = optimiser(list(layer.parameters()))
    for _ in range(count):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            if rate_by_step:
                schedule.step()
        schedule.step()
        with torch.inference_mode():
            val, test = (_numbers(layer(part)) for part in held_out)
        yield val, test


def macro_of(truth: NDArray[np.int8], score: Floats, usable: NDArray[np.bool_]) -> float:
    """Return the macro AUROC of `score` (N, C) over `usable` (C,) classes; -inf where none has a value."""
    value = float(macro(np.where(usable, auroc(truth, score), np.nan)))
    return -np.inf if np.isnan(value) else value


def one_of(sets: Mapping[str, NDArray[np.floating]], wanted: str) -> str:
    """Return the name of the features that a protocol reads: `wanted`, or the only ones that a baseline has."""
    return wanted if wanted in sets else next(iter(sets))


def _numbers(logits: Tensor) -> Floats:
    """Return logits as float64."""
    return logits.double().numpy()
