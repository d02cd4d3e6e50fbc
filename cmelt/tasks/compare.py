"""`cmelt compare`: is one result better than another? A paired test on their prediction files, over the same test recordings.

S seeds, N recordings, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from cmelt.errors import InputError, TaskError
from cmelt.metrics import Floats, auroc, difference, macro, resample_weights, weighted_auroc
from cmelt.tasks.results import cells, columns, number, pair, plain

COLUMNS = ("key", "fraction", "seed", "class", "score", "truth")


@dataclass(frozen=True)
class Predictions:
    """What a prediction file holds for one share of the labels."""

    keys: NDArray[np.str_]
    patients: NDArray[np.int64]
    classes: tuple[str, ...]
    truth: NDArray[np.int8]
    """(N, C)."""
    scores: Floats
    """(S, N, C)."""


def compare(first: Path, second: Path, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Compare two prediction files (``RUN/results/….parquet``), share by share, on the recordings and classes that both have.

    The difference of the macro AUROC (mean over seeds), first minus second, has a bootstrap interval over test patients, the same
    resamples for both, and a two-sided p-value; so has each class. Raises InputError for a file that is none, TaskError where the two
    have nothing in common or do not agree on the truth.
    """
    tables = [read_predictions(file) for file in (first, second)]
    shares = sorted(set(tables[0]) & set(tables[1]))
    if not shares:
        shown = ["/".join(f"{share:.0%}" for share in sorted(table)) for table in tables]
        raise TaskError(f"{first} has results with {shown[0]} of the labels, {second} with {shown[1]}: nothing to compare")
    found = [_compared(share, tables[0][share], tables[1][share], (first, second), resamples, seed) for share in shares]
    return {"first": str(first), "second": str(second), "resamples": resamples, "shares": found}


def read_predictions(file: Path) -> dict[float, Predictions]:
    """Return what a prediction file holds, by share of the labels; raises InputError where it is not of that form."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read ({str(error).splitlines()[0]}); name a results/….parquet of a run") from None
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise InputError(f"{file} has no column {absent[0]!r}: it holds no predictions; name a results/….parquet of a run")
    (key, names), (of, classes) = (_coded(table.column(name)) for name in ("key", "class"))
    column = {name: table.column(name).to_numpy() for name in table.column_names if name not in ("key", "class")}
    out: dict[float, Predictions] = {}
    for share in np.unique(column["fraction"]):
        here = column["fraction"] == share
        used, row = np.unique(key[here], return_inverse=True)
        keys, of_class = names[used], of[here]
        seeds, of_seed = np.unique(column["seed"][here], return_inverse=True)
        scores = np.full((len(seeds), len(keys), len(classes)), np.nan)
        scores[of_seed, row, of_class] = column["score"][here]
        if np.isnan(scores).any() or here.sum() != scores.size:
            raise InputError(f"{file} does not have one score for each recording, class and seed")
        truth = np.zeros(scores.shape[1:], np.int8)
        truth[row, of_class] = column["truth"][here]
        patients = np.arange(len(keys))  # where they are not told, every recording is its own
        if "patient" in column:
            patients[row] = column["patient"][here]
        out[float(share)] = Predictions(keys, patients, tuple(classes), truth, scores)
    return out


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return a column of names as numbers, and what they stand for."""
    array = pa.chunked_array([chunk.cast(pa.string()) for chunk in column.chunks], pa.string()).combine_chunks().dictionary_encode()
    return array.indices.to_numpy(), np.array(array.dictionary.to_pylist(), str)


def _compared(share: float, a: Predictions, b: Predictions, files: Sequence[Path], resamples: int, seed: int) -> dict[str, Any]:
    """Return the comparison at one share of the labels."""
    keys, in_a, in_b = np.intersect1d(a.keys, b.keys, return_indices=True)
    classes = [name for name in a.classes if name in b.classes]
    if not len(keys) or not classes:
        what = "test recordings" if not len(keys) else "classes"
        raise TaskError(f"{files[0]} and {files[1]} have no {what} in common at {share:.0%} of the labels")
    of_a, of_b = (np.array([one.classes.index(name) for name in classes]) for one in (a, b))
    truth = a.truth[np.ix_(in_a, of_a)]
    if (truth != b.truth[np.ix_(in_b, of_b)]).any():
        raise TaskError(f"{files[0]} and {files[1]} do not agree on which recording has which class: they are of different tasks or data")
    scores = [one.scores[:, rows][:, :, which] for one, rows, which in ((a, in_a, of_a), (b, in_b, of_b))]
    weights = resample_weights(a.patients[in_a], resamples, seed)
    auc = [np.mean([auroc(truth, one) for one in some], axis=0) for some in scores]
    samples = [weighted_auroc(truth, some, weights) for some in scores]
    known = ~np.isnan(auc[0])
    if not known.any():
        raise TaskError(f"no class has positives and negatives among the {len(keys)} recordings that {files[0]} and {files[1]} share")
    whole = difference(macro(auc[0]) - macro(auc[1]), np.asarray(macro(samples[0], axis=1) - macro(samples[1], axis=1)))
    out: dict[str, Any] = {"fraction": share, "n_test": len(keys), "not_in_both": len(a.keys) + len(b.keys) - 2 * len(keys)}
    out |= {"seeds": [len(some) for some in scores], "first": plain(macro(auc[0])), "second": plain(macro(auc[1])), **_told(asdict(whole))}
    out["per_class"] = {}
    for c in np.flatnonzero(known):
        samples_c = samples[0][:, c] - samples[1][:, c]
        one = difference(auc[0][c] - auc[1][c], samples_c[~np.isnan(samples_c)])
        out["per_class"][classes[c]] = {"first": plain(auc[0][c]), "second": plain(auc[1][c]), **_told(asdict(one))}
    out["left_out"] = [name for name, has in zip(classes, known, strict=True) if not has]
    return out


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """Return a Difference as a result tells it."""
    return {"difference": plain(found["value"]), "ci95": pair(found["ci95"]), "p": plain(found["p"])}


def table(result: dict[str, Any]) -> Table:
    """Return a comparison for the terminal."""
    out = columns(f"{result['first']} minus {result['second']}", "labels", "n", "", "first", "second", "difference", "95 %", "p")
    for entry in result["shares"]:
        share = f"{entry['fraction']:.0%}" if entry["fraction"] else "none"
        for name, one in {"macro": entry, **entry["per_class"]}.items():
            head = (share, str(entry["n_test"])) if name == "macro" else ("", "")
            values = number(one["first"]), number(one["second"]), *cells(one["difference"], one["ci95"], "+.3f"), number(one["p"], ".4f")
            out.add_row(*head, f"[bold]{name}[/]" if name == "macro" else name, *values)
    dropped = {name for entry in result["shares"] for name in entry["left_out"]}
    alone = sum(entry["not_in_both"] for entry in result["shares"])
    said = [f"left out, no positives or no negatives: {', '.join(sorted(dropped))}"] if dropped else []
    said += [f"{alone} recordings are in one file only"] if alone else []
    out.caption = "; ".join([*said, "classes are not corrected for their number"])
    return out
