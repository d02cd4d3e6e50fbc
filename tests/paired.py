"""A paired comparison done the plain way: what `cmelt.tasks.compare` and the probes' tests are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmelt.metrics import Difference, Floats, auroc, difference, macro, resample_weights, weighted_auroc


def paired_bootstrap(
    truth: ArrayLike, first: ArrayLike, second: ArrayLike, patients: Sequence[Any] | NDArray[Any], resamples: int = 1000, seed: int = 0
) -> Difference:
    """Compare two score sets, each (N, C) or (S, N, C) for S seeds whose AUROCs are averaged, on the same resamples of patients."""
    weights = resample_weights(patients, resamples, seed)
    (value_a, samples_a), (value_b, samples_b) = (_macro_of_seeds(truth, score, weights) for score in (first, second))
    return difference(value_a - value_b, samples_a - samples_b)


def _macro_of_seeds(truth: ArrayLike, score: ArrayLike, weights: NDArray[np.float32]) -> tuple[float, Floats]:
    """Return the macro AUROC of the mean over seeds, and the same in each resample (R,)."""
    score = np.asarray(score, float)
    per_class = np.mean([auroc(truth, one) for one in (score if score.ndim == 3 else score[None])], axis=0)
    return float(macro(per_class)), np.asarray(macro(weighted_auroc(truth, score, weights), axis=1))
