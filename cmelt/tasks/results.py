"""A task's numbers: from scores to AUROC with intervals, to the JSON and Parquet of a run's ``results/``, and to a table.

S seeds (or fits), N test recordings, C classes, R bootstrap resamples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table

from cmelt import __version__
from cmelt.metrics import Floats, auroc, difference, interval, macro, weighted_auroc
from cmelt.shards.write import open_whole, write_whole

MANY = 10
"""A second macro counts classes with at least so many positives in the test fold."""


@dataclass(frozen=True)
class Evaluation:
    """AUROC of S score sets on one test fold, averaged over the sets, point and bootstrap."""

    auc: Floats
    """(C,), NaN for classes that do not count."""
    of_sets: Floats
    """Macro AUROC of each set, (S,)."""
    samples: Floats
    """(R, C): the same in each resample of patients."""

    @property
    def macro(self) -> float:
        """Return the macro AUROC."""
        return float(macro(self.auc))

    @property
    def macro_samples(self) -> Floats:
        """Return the macro AUROC of each resample, (R,)."""
        return np.asarray(macro(self.samples, axis=1))


def evaluate(truth: NDArray[np.int8], scores: Sequence[Floats], weights: NDArray[np.float32], usable: NDArray[np.bool_]) -> Evaluation:
    """Evaluate score sets, each (N, C), against `truth` (N, C) under resample `weights` (N, R); only `usable` (C,) classes count."""
    auc = np.full((len(scores), truth.shape[1]), np.nan)
    samples = np.full((weights.shape[1], truth.shape[1]), np.nan)
    auc[:, usable] = [auroc(truth[:, usable], score[:, usable]) for score in scores]
    samples[:, usable] = np.mean([weighted_auroc(truth[:, usable], score[:, usable], weights) for score in scores], axis=0)
    return Evaluation(auc.mean(0), np.asarray(macro(auc, axis=1)), samples)


def summary(evaluation: Evaluation, truth: NDArray[np.int8], classes: Sequence[str]) -> dict[str, Any]:
    """Return an evaluation as the result file tells it."""
    positives = truth.sum(0, dtype=int)
    bounds = interval(evaluation.samples)
    many = positives >= MANY
    return {
        "macro_auc": plain(evaluation.macro),
        "ci95": pair(interval(evaluation.macro_samples)),
        "sd_over_seeds": plain(evaluation.of_sets.std(ddof=1)) if len(evaluation.of_sets) > 1 else None,
        f"macro_auc_at_least_{MANY}_positives": plain(macro(evaluation.auc[many])) if many.any() else None,
        "per_class": {
            name: {"auc": plain(evaluation.auc[c]), "ci95": pair(bounds[:, c]), "positives": int(positives[c])}
            for c, name in enumerate(classes)
        },
    }


def beside(baseline: Evaluation, model: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """Return a baseline's numbers, with the paired difference `model` minus baseline over the same resamples of patients."""
    found = difference(model.macro - baseline.macro, model.macro_samples - baseline.macro_samples)
    return {
        "macro_auc": plain(baseline.macro),
        "ci95": pair(interval(baseline.macro_samples)),
        "difference": plain(found.value),
        "difference_ci95": pair(found.ci95),
        "difference_p": plain(found.p),
        "fits": [plain(value) for value in baseline.of_sets],
        "per_class": {name: plain(baseline.auc[c]) for c, name in enumerate(classes)},
    }


def plain(value: float) -> float | None:
    """Return a number as JSON has it: six digits, None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)


def pair(bounds: Iterable[float]) -> list[float | None] | None:
    """Return an interval as JSON has it, None where there is none."""
    low, high = (plain(value) for value in bounds)
    return None if low is None else [low, high]


@dataclass(frozen=True)
class Scored:
    """One score set for the predictions' table: `score` (N, C) of test recordings `keys` (N,)."""

    fraction: float
    seed: int
    score: Floats


def write_results(
    folder: Path,
    name: str,
    result: dict[str, Any],
    keys: NDArray[Any],
    truth: NDArray[np.int8],
    classes: Sequence[str],
    scored: Sequence[Scored],
) -> None:
    """Write ``NAME.json`` and the predictions ``NAME.parquet`` (key, fraction, seed, class, score, truth) into `folder`, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    n, c = truth.shape
    each = n * c
    key = pa.DictionaryArray.from_arrays(
        np.tile(np.repeat(np.arange(n, dtype=np.int32), c), len(scored)), pa.array(keys.tolist(), pa.string())
    )
    of_class = pa.DictionaryArray.from_arrays(np.tile(np.arange(c, dtype=np.int32), n * len(scored)), pa.array(classes, pa.string()))
    table = pa.table({
        "key": key,
        "fraction": np.repeat(np.array([s.fraction for s in scored], np.float64), each),
        "seed": np.repeat(np.array([s.seed for s in scored], np.int64), each),
        "class": of_class,
        "score": np.concatenate([s.score.ravel() for s in scored]) if scored else np.zeros(0),
        "truth": np.tile(truth.ravel(), len(scored)),
    })  # fmt: skip
    with open_whole(folder / f"{name}.parquet") as file:
        pq.write_table(table, file)
    write_whole(folder / f"{name}.json", (json.dumps({"version": __version__} | result, indent=1, ensure_ascii=False) + "\n").encode())


def table(result: dict[str, Any]) -> Group:
    """Return a result for the terminal: macro AUROC by share of the labels, then AUROC by class at the largest share."""
    computed = [entry for entry in result["fractions"] if "not_computed" not in entry]
    baselines = list(dict.fromkeys(name for entry in computed for name in entry["baselines"]))
    of_labels = Table(title=f"{result['task']}, protocol {result['protocol']}, {result['checkpoint']}", title_justify="left")
    for column in ("labels", "training", "test", "macro AUC [95 %]"):
        of_labels.add_column(column, justify="left" if column == "labels" else "right")
    for name in baselines:
        of_labels.add_column(name.replace("_", " "), justify="right")
        of_labels.add_column("difference [95 %]", justify="right")
    for entry in result["fractions"]:
        share = f"{entry['fraction']:.0%}" if entry["fraction"] else "none"
        if "not_computed" in entry:
            of_labels.add_row(share, str(entry["n_train"]), "", entry["not_computed"])
            continue
        cells = [share, str(entry["n_train"]), str(entry["n_test"]), with_bounds(entry["macro_auc"], entry["ci95"])]
        for name in baselines:
            base = entry["baselines"][name]
            cells += [with_bounds(base["macro_auc"], base["ci95"]), with_bounds(base["difference"], base["difference_ci95"], "+.3f")]
        of_labels.add_row(*cells)
    if not computed:
        return Group(of_labels)
    last = computed[-1]
    by_class = Table(title=f"by class, {last['fraction']:.0%} of the labels" if last["fraction"] else "by class", title_justify="left")
    by_class.add_column("class")
    for column in ("positives", "AUC [95 %]", *(name.replace("_", " ") for name in baselines)):
        by_class.add_column(column, justify="right")
    for name, one in last["per_class"].items():
        cells = [name, str(one["positives"]), with_bounds(one["auc"], one["ci95"]) if one["auc"] is not None else last["left_out"][name]]
        by_class.add_row(*cells, *(with_bounds(last["baselines"][base]["per_class"][name], None) for base in baselines))
    return Group(of_labels, by_class)


def with_bounds(value: float | None, bounds: Sequence[float] | None, form: str = ".3f") -> str:
    """Return a number with its interval, as in ``0.812 [0.790, 0.834]``."""
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else "")
