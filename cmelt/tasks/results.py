"""A task's numbers: from scores to AUROC with intervals, to the JSON and Parquet of a run's ``results/``, and to a table.

S seeds (or fits), N test recordings, C classes, R bootstrap resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from cmelt import __version__
from cmelt.files import open_whole, write_json
from cmelt.labels import load_vocabulary
from cmelt.metrics import Floats, auroc, difference, interval, macro, weighted_auroc
from cmelt.record import LEADS

MANY = 10
"""A second macro counts classes with at least so many positives in the test fold."""

AVERAGES = {
    "micro_auc": "micro AUC",
    "weighted_auc": "weighted AUC",
    "macro_ap": "average precision",
    "macro_f1": "F1 at validation's thresholds",
    "macro_ece": "calibration error",
    "challenge_score": "challenge score",
}
"""What a result also holds → how it is told."""


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
    samples[:, usable] = weighted_auroc(truth[:, usable], np.stack(scores)[:, :, usable], weights)
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
    patients: NDArray[Any] | None = None,
) -> None:
    """Write ``NAME.json`` and the predictions ``NAME.parquet`` into `folder`, each whole.

    The table's columns: key, patient (a number that stands for one in this file; where `patients` are given), fraction, seed, class,
    score, truth.
    """
    n, c = truth.shape
    each = n * c
    key = pa.DictionaryArray.from_arrays(
        np.tile(np.repeat(np.arange(n, dtype=np.int32), c), len(scored)), pa.array(keys.tolist(), pa.string())
    )
    of_class = pa.DictionaryArray.from_arrays(np.tile(np.arange(c, dtype=np.int32), n * len(scored)), pa.array(classes, pa.string()))
    who = {} if patients is None else {"patient": np.tile(np.repeat(np.unique(patients, return_inverse=True)[1], c), len(scored))}
    table = pa.table({
        "key": key,
        **who,
        "fraction": np.repeat(np.array([s.fraction for s in scored], np.float64), each),
        "seed": np.repeat(np.array([s.seed for s in scored], np.int64), each),
        "class": of_class,
        "score": np.concatenate([s.score.ravel() for s in scored]) if scored else np.zeros(0),
        "truth": np.tile(truth.ravel(), len(scored)),
    })  # fmt: skip
    with open_whole(folder / f"{name}.parquet") as file:
        pq.write_table(table, file)
    write_json(folder / f"{name}.json", {"version": __version__} | result)


def narrowed(result: dict[str, Any]) -> list[str]:
    """Return what a result's file name says of the fold, if not test, fewer leads, a filter (a digest, its words are in the file)."""
    leads = [result["fold"]] if "fold" in result else []
    leads += [] if set(result["leads"]) == set(LEADS) else ["leads", *result["leads"]]
    return leads + (["where", hashlib.sha256(result["where"].encode()).hexdigest()[:8]] if result.get("where") else [])


def table(result: dict[str, Any]) -> Group:
    """Return a result for the terminal: macro AUROC by share of the labels, then AUROC by class at the largest share."""
    computed = [entry for entry in result["fractions"] if "not_computed" not in entry]
    title = f"{result['task']} · protocol {result['protocol']} · {result['checkpoint']}"
    title += f" · where {escape(result['where'])}" if result.get("where") else ""
    title += f" · scored: fold {result['fold']}" if "fold" in result else ""
    shares = columns(title, "labels", "training", "", "macro AUC", "95 %")
    for entry in result["fractions"]:
        head = (f"{entry['fraction']:.0%}" if entry["fraction"] else "none", str(entry["n_train"]))
        if "not_computed" in entry:
            shares.add_row(*head, "not computed", "", "")
            continue
        shares.add_row(*head, "[bold]model[/]", *cells(entry["macro_auc"], entry["ci95"]))
        if "best_minus_last" in entry:
            shares.add_row("", "", "its last epoch", number(entry["last_epoch_auc"]), "")
            shares.add_row("", "", "best minus last", number(entry["best_minus_last"], "+.3f"), "")
        for name, base in entry["baselines"].items():
            shares.add_row("", "", name.replace("_", " "), *cells(base["macro_auc"], base["ci95"]))
            shares.add_row("", "", "model minus it", *cells(base["difference"], base["difference_ci95"], "+.3f"))
    if not computed:
        shares.caption = "; ".join(f"{entry['fraction']:.0%}: {entry['not_computed']}" for entry in result["fractions"])
        return Group(shares)
    last = computed[-1]
    of = result.get("fold", "test")
    shares.caption = "; ".join([f"{last['n_test']} {of} recordings; intervals: bootstrap over {of} patients", *_more(last)])
    baselines = [name.replace("_", "\n") for name in last["baselines"]]
    share = f"{last['fraction']:.0%} of the labels" if last["fraction"] else "no labels"
    vocabulary = load_vocabulary(result["task"])
    words = [vocabulary.describe] if len(baselines) < 2 else []  # more columns leave no room for a class's name in words
    by_class = columns(f"by class · {share}", "class", "positives", *[""] * len(words), "AUC", "95 %", *baselines)
    for name, one in last["per_class"].items():
        if name not in last["left_out"]:
            others = (number(base["per_class"][name]) for base in last["baselines"].values())
            by_class.add_row(name, str(one["positives"]), *(said(name) for said in words), *cells(one["auc"], one["ci95"]), *others)
    reasons: dict[str, list[str]] = {}
    for name, reason in last["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    by_class.caption = "; ".join(f"left out, {reason}: {', '.join(names)}" for reason, names in reasons.items())
    return Group(shares, by_class, *(_by_group(kind, rows) for kind, rows in last.get("subgroups", {}).items()))


def _more(entry: dict[str, Any]) -> list[str]:
    """Return the other averages of a share of the labels as parts of a caption."""
    return [f"{said} {entry[name]:.3f}" for name, said in AVERAGES.items() if entry.get(name) is not None]


def _by_group(kind: str, rows: dict[str, dict[str, Any]]) -> Table:
    """Return AUROC by subgroup for the terminal."""
    out = columns(f"by {kind}", kind, "recordings", "classes that count", "macro AUC", "95 %")
    for name, entry in rows.items():
        out.add_row(name, str(entry["n"]), str(entry["classes"]), *cells(entry.get("macro_auc"), entry.get("ci95")))
    return out


def columns(title: str, *columns: str) -> Table:
    """Return an empty table whose first column is names, those without a heading are words, and the others are numbers.

    Where there is no room, words wrap: a number that is cut is none.
    """
    out = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        out.add_column(column, justify="left" if not number or not column else "right", no_wrap=bool(column))
    return out


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number for a table, a dash where there is none."""
    return "–" if value is None else f"{value:{form}}"


def cells(value: float | None, bounds: Sequence[float] | None, form: str = ".3f") -> tuple[str, str]:
    """Return a number and its interval for a table."""
    return number(value, form), f"{bounds[0]:{form}} … {bounds[1]:{form}}" if bounds else ""
