"""`cmelt probe`: how much a linear classifier reads off the frozen ECG encoder, beside a randomly initialised one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cmelt.errors import TaskError
from cmelt.metrics import auroc, empty, resample_weights
from cmelt.tasks.base import Cohort, Features, encoder_features, load_model, open_run
from cmelt.tasks.baselines import BASELINES
from cmelt.tasks.results import Scored, beside, evaluate, summary, table, write_results
from cmelt.tasks.strict import FEWEST, FRACTIONS, SEEDS, Fit, Folds, draw, draw_size, fit_and_score

__all__ = ["Probe", "probe", "strict", "table"]

RESAMPLES = 1000


def probe(
    run: Path | None = None,
    shards: Sequence[Path] | None = None,
    task: str = "superclass",
    baselines: Sequence[str] = ("random_init",),
    init_seeds: Sequence[int] = (0, 1, 2),
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe `run` (default: the newest) on `shards` (default: its own) by protocol ``strict``; write its results, return them.

    `baselines` are names of BASELINES; a random one is made with each of `init_seeds`. The files are ``RUN/results/probe-TASK.json``
    and ``.parquet``. Raises CheckpointError, ShardError or TaskError where run, shards and task do not fit.
    """
    opened = open_run(run, shards)
    cohort = Cohort(opened.shards, task)
    folds = Folds(cohort.rows("train"), cohort.rows("val"), cohort.rows("test"))
    left_out = unusable(cohort.truth, folds, cohort.classes)
    model = load_model(opened, cohort)
    features = encoder_features(model, cohort, "features", quiet=quiet)
    others = {name: BASELINES[name](model, cohort, init_seeds, quiet) for name in baselines}
    found = strict(features, others, cohort.truth, folds, cohort.patients, cohort.classes, left_out, quiet=quiet)
    result = {"task": task, "protocol": "strict", **opened.facts(), "datasets": cohort.datasets, "fractions": found.fractions}
    test = folds.test
    write_results(opened.folder / "results", f"probe-{task}", result, cohort.keys[test], cohort.truth[test], cohort.classes, found.scored)
    return result


def unusable(truth: NDArray[np.int8], folds: Folds, classes: Sequence[str]) -> dict[str, str]:
    """Return the classes that cannot be probed, each with the reason; raises TaskError where that is all of them."""
    reasons: dict[str, str] = {}
    for name, rows in (("test", folds.test), ("training", folds.train)):
        for one, reason in empty(truth[rows], classes).items():
            reasons.setdefault(one, f"{reason} in the {name} fold")
    usable = np.array([name not in reasons for name in classes])
    if not usable.any():
        raise TaskError("no class has positive and negative recordings in both the training and the test fold; add recordings")
    if np.isnan(auroc(truth[folds.val], np.zeros(truth[folds.val].shape)))[usable].all():
        raise TaskError("no class has positive and negative recordings in the validation fold, on which choices are made; add recordings")
    return {name: reasons[name] for name in classes if name in reasons}


@dataclass(frozen=True)
class Probe:
    """What a probe found: the entries of the result file, and the model's scores for the predictions' table."""

    fractions: list[dict[str, Any]]
    scored: list[Scored]


def strict(
    features: Mapping[str, NDArray[np.floating]],
    baselines: Mapping[str, Sequence[Features]],
    truth: NDArray[np.int8],
    folds: Folds,
    patients: NDArray[Any],
    classes: Sequence[str],
    left_out: Mapping[str, str],
    loss: str = "logistic",
    fractions: Sequence[float] = FRACTIONS,
    quiet: bool = False,
) -> Probe:
    """Run protocol ``strict`` on arrays: `features` name → (N, F), `truth` (N, C), rows by `folds`, `patients` (N,).

    `baselines` name → replicates, each like `features`, are fitted on the same draws and compared in pairs.
    """
    usable = np.array([name not in left_out for name in classes])
    test = truth[folds.test]
    weights = resample_weights(patients[folds.test], RESAMPLES)
    console = Console(stderr=True, quiet=quiet)
    entries: list[dict[str, Any]] = []
    scored: list[Scored] = []
    for fraction in fractions:
        size = draw_size(len(folds.train), fraction)
        if size < FEWEST:
            reason = f"{size} training recordings are fewer than {FEWEST}"
            entries.append({"fraction": fraction, "n_train": size, "not_computed": reason})
            continue
        seeds = SEEDS if fraction < 1 else SEEDS[:1]
        draws = [folds.train[draw(truth[folds.train], fraction, seed)] for seed in seeds]
        fits = [fit_and_score(features, truth, folds, drawn, usable, loss) for drawn in draws]
        scored += [Scored(fraction, seed, fit.score) for seed, fit in zip(seeds, fits, strict=True)]
        own = evaluate(test, [fit.score for fit in fits], weights, usable)
        entry: dict[str, Any] = {
            "fraction": fraction,
            "seeds": list(seeds),
            "n_train": max(map(len, draws)),
            "n_val": len(folds.val),
            "n_test": len(test),
        }
        entry |= summary(own, test, classes) | {"left_out": dict(left_out), "chosen": [chosen(fit) for fit in fits], "baselines": {}}
        for name, replicates in baselines.items():
            theirs = [fit_and_score(one, truth, folds, drawn, usable, loss) for one in replicates for drawn in draws]
            both = beside(evaluate(test, [fit.score for fit in theirs], weights, usable), own, classes)
            entry["baselines"][name] = both | {"replicates": len(replicates), "chosen": [chosen(fit) for fit in theirs]}
        entries.append(entry)
        console.print(f"probe: {fraction:.0%} of the labels, {entry['n_train']} recordings: macro AUC {own.macro:.3f}", soft_wrap=True)
    return Probe(entries, scored)


def chosen(fit: Fit) -> dict[str, Any]:
    """Return what validation chose for one fit."""
    return {"features": fit.features, "strength": fit.strength, "val_auc": round(fit.val_auc, 6)}
