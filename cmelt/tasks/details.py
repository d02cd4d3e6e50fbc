"""What a result tells beside AUROC: other averages, precision, F1 at thresholds of the validation fold, calibration, subgroups.

S fits, N test recordings, C classes, R bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.labels import challenge_weights
from cmelt.metrics import (
    auroc,
    average_precision,
    best_thresholds,
    calibration_error,
    challenge_score,
    f1,
    interval,
    macro,
    micro_auroc,
    support_weighted,
)
from cmelt.tasks.protocol import Fit, Protocol
from cmelt.tasks.results import evaluate, pair, plain

NORMAL = "NSR"
"""The class that CinC 2021's score compares with: always answering sinus rhythm scores 0."""


def details(
    protocol: Protocol,
    fits: Sequence[Fit],
    truth: NDArray[np.int8],
    truth_val: NDArray[np.int8],
    usable: NDArray[np.bool_],
    classes: Sequence[str],
    task: str,
) -> dict[str, Any]:
    """Return further numbers of the `usable` classes, each the mean over fits; `truth` (N, C) and `truth_val` are the two folds'.

    A class without positives on validation has no threshold: it is never answered, and is named under ``without_threshold``. The
    challenge score (task cinc2021) counts every class, as its definition does.
    """
    found: dict[str, list[Any]] = {}
    for fit in fits:
        thresholds = best_thresholds(truth_val, fit.val)
        said = fit.score >= thresholds
        auc = auroc(truth, fit.score)
        numbers: dict[str, Any] = {
            "micro_auc": micro_auroc(truth[:, usable], fit.score[:, usable]),
            "weighted_auc": support_weighted(np.where(usable, auc, np.nan), truth),
            "ap": average_precision(truth, fit.score),
            "f1": f1(truth, said),
            "ece": calibration_error(truth, protocol.probability(fit.score)),
        }
        if task == "cinc2021":
            numbers["challenge_score"] = challenge_score(truth, said, challenge_weights(), list(classes).index(NORMAL))
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    mean = {name: np.mean(values, axis=0) for name, values in found.items()}
    out: dict[str, Any] = {name: plain(mean[name]) for name in ("micro_auc", "weighted_auc", "challenge_score") if name in mean}
    out |= {f"macro_{name}": plain(macro(mean[name][usable])) for name in ("ap", "f1", "ece")}
    out["by_class"] = {name: {key: plain(mean[key][c]) for key in ("ap", "f1", "ece")} for c, name in enumerate(classes) if usable[c]}
    out["without_threshold"] = [name for c, name in enumerate(classes) if usable[c] and not truth_val[:, c].any()]
    return out


def by_subgroup(
    fits: Sequence[Fit],
    truth: NDArray[np.int8],
    weights: NDArray[np.float32],
    usable: NDArray[np.bool_],
    kinds: Mapping[str, NDArray[np.str_]],
    classes: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return macro AUROC with its interval for each subgroup of each kind; `kinds` gives the group of each test row, '' = not known.

    A class counts in a subgroup where it has positives and negatives there; those that do not are named.
    """
    out: dict[str, dict[str, Any]] = {}
    for kind, group in kinds.items():
        names, counts = np.unique(group, return_counts=True)
        if not set(names) - {""}:
            continue
        out[kind] = {}
        for name, count in sorted(zip(names, counts, strict=True), key=lambda one: (one[0] == "", one[0])):
            rows = np.flatnonzero(group == name)
            positives = truth[rows].sum(0)
            here = usable & (positives > 0) & (positives < len(rows))
            entry: dict[str, Any] = {"n": int(count), "classes": int(here.sum())}
            if here.any():
                found = evaluate(truth[rows], [fit.score[rows] for fit in fits], weights[rows], here)
                entry |= {"macro_auc": plain(found.macro), "ci95": pair(interval(found.macro_samples))}
            entry["left_out"] = [one for one, missing in zip(classes, usable & ~here, strict=True) if missing]
            out[kind][str(name) or "not known"] = entry
    return out


def in_common(fits: Sequence[Fit]) -> dict[str, Any]:
    """Return the mean over fits of what protocols tell as numbers of AUROC (``best_minus_last`` …)."""
    names = [name for name in fits[0].told if name.endswith("_auc") or name in ("best_minus_last", "auc_at_best_validation_epoch")]
    return {name: plain(float(np.mean([fit.told[name] for fit in fits]))) for name in names if name != "val_auc"}
