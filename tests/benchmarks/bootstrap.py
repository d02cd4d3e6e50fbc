"""Measure bootstrap intervals of AUROC by patient: ``python -m tests.benchmarks.bootstrap --keep``.

1,000 resamples of 71 classes (positives from 40 % to 0.3 %) on 2,158 recordings of 1,900 patients, as in PTB-XL's test fold. Beside it
the usual way, scikit-learn's AUROC in a loop, timed over a few resamples and multiplied; both must give the same numbers. Time is the
process's own CPU time, on one thread.
"""

from __future__ import annotations

import os
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from cmelt.metrics import bootstrap_auroc, resample_weights
from tests.benchmarks.results import options, tell

RECORDINGS, PATIENTS, CLASSES, RESAMPLES = 2158, 1900, 71, 1000
LOOPED = 10


def main() -> None:
    """Measure, print, and write the figures where asked to."""
    given = options(__doc__).parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: CPU time is compared, and idle threads would spin")
    rng = np.random.default_rng(0)
    truth = rng.random((RECORDINGS, CLASSES)) < np.geomspace(0.4, 0.003, CLASSES)
    score = rng.normal(size=truth.shape) + truth
    patients = np.append(np.arange(PATIENTS), rng.integers(0, PATIENTS, RECORDINGS - PATIENTS))
    started = time.process_time()
    found = bootstrap_auroc(truth, score, patients, RESAMPLES)
    ours = time.process_time() - started
    weights = resample_weights(patients, RESAMPLES)
    started, most = time.process_time(), 0.0
    for number in range(LOOPED):
        weight = weights[:, number]
        for c in range(CLASSES):
            if 0 < weight[truth[:, c]].sum() < weight.sum():
                one = roc_auc_score(truth[:, c], score[:, c], sample_weight=weight)
                most = max(most, abs(one - found[number, c]))
    usual = (time.process_time() - started) * RESAMPLES / LOOPED
    figures = {
        "what": f"{RESAMPLES:,} resamples × {CLASSES} classes on {RECORDINGS:,} recordings of {PATIENTS:,} patients, OMP_NUM_THREADS=1",
        "seconds": round(ours, 2),
        "scikit_learn_s": round(usual, 1),
        "scikit_learn_extrapolated": f"from {LOOPED} of {RESAMPLES:,} resamples",
        "times_faster": round(usual / ours, 1),
        "largest_difference": float(f"{most:.1g}"),
    }
    tell("bootstrap", figures, given)


if __name__ == "__main__":
    main()
