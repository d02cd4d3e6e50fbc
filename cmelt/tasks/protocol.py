"""What a probe protocol is: how labels are drawn, and what is fitted to a draw. A new protocol is one file and one line of PROTOCOLS.

N recordings, C classes, F features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cmelt.config import did_you_mean
from cmelt.errors import TaskError

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
"""Zeros and ones, (N, C)."""
Sets = Mapping[str, NDArray[np.floating]]
"""Name of a set of features → (N, F)."""
Classes = NDArray[np.bool_]
"""Which of the classes, (C,)."""

PROTOCOLS: dict[str, str] = {
    "strict": "cmelt.tasks.strict:Strict",
    "merl-2024": "cmelt.tasks.merl:Merl",
    "melp-2025": "cmelt.tasks.melp:Melp",
}
"""Name of a protocol (protocols.md) → its class."""

FRACTIONS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Folds:
    """Row numbers of the training, validation and test folds."""

    train: Rows
    val: Rows
    test: Rows


@dataclass(frozen=True)
class Fit:
    """What came of one fit: scores of the test fold (N_test, C) and the validation fold (N_val, C), and what the protocol tells."""

    score: Floats
    val: Floats
    told: dict[str, Any]


class Protocol(ABC):
    """How labels are drawn and what is fitted to them; what every protocol shares is in `cmelt.tasks.probe`."""

    name: str
    fewest: int = 1
    """A draw of fewer recordings is not computed."""

    @abstractmethod
    def seeds(self, fraction: float, count: int | None = None) -> Sequence[int]:
        """Return the seeds of the draws (and of the fits) of a fraction; `count` asks for another number of them."""

    @abstractmethod
    def draw_size(self, n: int, fraction: float) -> int:
        """Return how many of `n` training recordings a fraction is."""

    @abstractmethod
    def draw(self, truth: Labels, keys: NDArray[np.str_], fraction: float, seed: int) -> Rows:
        """Return which training rows are drawn; `truth` (N, C) and `keys` (N,) are the training fold's."""

    @abstractmethod
    def fit(self, sets: Sets, truth: Labels, folds: Folds, drawn: Rows, usable: Classes, seed: int) -> Fit:
        """Fit to rows `drawn` of `sets` (name → (N, F)) and `truth` (N, C); only `usable` (C,) classes count in what is chosen."""

    def probability(self, score: Floats) -> Floats:
        """Return the scores of a fit as probabilities of each class."""
        return np.asarray(expit(score))


def open_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raises TaskError for one that is not in PROTOCOLS."""
    if name not in PROTOCOLS:
        raise TaskError(f"no protocol {name!r}{did_you_mean(name, PROTOCOLS)}; known: {', '.join(PROTOCOLS)}")
    module, _, kind = PROTOCOLS[name].partition(":")
    made: Protocol = getattr(import_module(module), kind)()
    return made
