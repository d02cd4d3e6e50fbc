"""Measure protocol strict against merl-2024 on random features of PTB-XL's size: ``python -m tests.benchmarks.probe``.

17,084 / 2,146 / 2,158 recordings × 768 features; PTB-XL's six tasks with as many classes as they have. Ours: every task, 1, 10 and
100 %, five seeds, with draws, choice on validation and bootstrap intervals, all of it timed. Theirs: our implementation of the recipe
(a linear layer, Adam, batches of 16, AUROC on both folds after each epoch), timed over a few epochs of each task and fraction and
multiplied to 100 epochs and five seeds: an epoch costs the same from first to last. Time is the process's own CPU time, on one thread.
Written to docs/results/probe-speed.json.
"""

from __future__ import annotations

import os
import time

import numpy as np

from cmelt.metrics import auroc
from cmelt.tasks import merl
from cmelt.tasks.probe import Problem, measure, on_features
from cmelt.tasks.protocol import FRACTIONS, Folds
from cmelt.tasks.sgd import epochs
from cmelt.tasks.strict import SEEDS, Strict
from tests.benchmarks.results import write_result

SIZES = (17084, 2146, 2158)
WIDTH = 768
TASKS = {"superclass": 5, "subclass": 23, "form": 19, "rhythm": 12, "diagnostic": 44, "all": 71}


def problem(classes: int, seed: int = 0) -> tuple[np.ndarray, Problem]:
    """Return random features and labels (classes from common to rare, every recording with one) in three folds."""
    rng = np.random.default_rng(seed)
    n = sum(SIZES)
    features = rng.normal(size=(n, WIDTH)).astype(np.float32)
    truth = (rng.random((n, classes)) < np.geomspace(0.4, 0.003, classes)).astype(np.int8)
    truth[np.arange(n), rng.integers(0, classes, n)] |= ~truth.any(1)
    first, second = SIZES[0], SIZES[0] + SIZES[1]
    folds = Folds(np.arange(first), np.arange(first, second), np.arange(second, n))
    names = [f"class {c}" for c in range(classes)]
    return features, Problem(truth, folds, np.arange(n) // 2, np.arange(n).astype(str), names, {})


def strict_s(features: np.ndarray, posed: Problem) -> float:
    """Return the CPU seconds of a whole probe by protocol strict."""
    started = time.process_time()
    measure(Strict(), on_features(Strict(), {"random": features}, posed), {}, posed, quiet=True)
    return time.process_time() - started


def merl_s(features: np.ndarray, posed: Problem, fraction: float, count: int) -> float:
    """Return the CPU seconds of one fit by merl-2024, from `count` epochs."""
    folds = posed.folds
    drawn = folds.train[merl.Merl().draw(posed.truth[folds.train], posed.keys[folds.train], fraction, merl.SEED)]
    started = time.process_time()
    for val, test in epochs(features, posed.truth, folds, drawn, merl._adam, merl.BATCH, count, merl.SEED, rate_by_step=True):
        auroc(posed.truth[folds.val], val)
        auroc(posed.truth[folds.test], test)
    return (time.process_time() - started) * merl.EPOCHS / count


def main() -> None:
    """Measure, print, and write the figures."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: CPU time is compared, and idle threads would spin")
    ours: dict[str, float] = {}
    theirs: dict[str, dict[str, float]] = {}
    merl_s(*problem(2), 0.01, 1)  # the first steps of all compile and load
    for task, classes in TASKS.items():
        features, posed = problem(classes)
        theirs[task] = {f"{fraction:.0%}": merl_s(features, posed, fraction, 2 if fraction == 1 else 5) for fraction in FRACTIONS}
        ours[task] = strict_s(features, posed)
        print(f"{task:11} {classes:3} classes  strict {ours[task]:6.1f} s   merl-2024, one seed {sum(theirs[task].values()):7.1f} s")
    one = sum(sum(times.values()) for times in theirs.values())
    total = sum(ours.values())
    figures = {
        "what": "CPU seconds with OMP_NUM_THREADS=1; random features 17,084 / 2,146 / 2,158 × 768; six tasks × 3 fractions",
        "strict_five_seeds_s": {task: round(value, 1) for task, value in ours.items()},
        "merl_2024_one_seed_s": {task: {name: round(value, 1) for name, value in times.items()} for task, times in theirs.items()},
        "merl_2024_extrapolated": "from 2 of 100 epochs at 100 %, 5 of 100 below; five seeds cost five times one",
        "strict_total_s": round(total, 1),
        "merl_2024_five_seeds_total_s": round(one * SEEDS, 1),
        "times_faster": round(one * SEEDS / total, 1),
        "times_faster_than_one_seed_of_merl": round(one / total, 1),
    }
    print(f"all: strict {total:.0f} s, merl-2024 {one * SEEDS:.0f} s with as many seeds: {one * SEEDS / total:.0f} ×")
    write_result("probe-speed", figures)


if __name__ == "__main__":
    main()
