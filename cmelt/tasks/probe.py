"""`cmelt probe`: how much a linear classifier reads off the frozen ECG encoder, beside encoders that learnt nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from cmelt.config import did_you_mean
from cmelt.errors import TaskError
from cmelt.metrics import auroc, empty, resample_weights
from cmelt.models.cmelt import CMELT
from cmelt.record import LEADS
from cmelt.tasks.base import Cohort, encoder_features, load_model, open_run
from cmelt.tasks.baselines import BASELINES, RIDGE, SUPERVISED, from_scratch
from cmelt.tasks.details import by_subgroup, details, in_common
from cmelt.tasks.features import Features
from cmelt.tasks.protocol import FRACTIONS, Fit, Folds, Protocol, Rows, open_protocol
from cmelt.tasks.results import Scored, beside, evaluate, narrowed, summary, table, write_results
from cmelt.tasks.split import choose_folds, groups, see_only
from cmelt.tasks.strict import Strict

__all__ = ["Probe", "Problem", "measure", "on_features", "probe", "table"]

RESAMPLES = 1000

Fitter = Callable[[Rows, int], Fit]
"""Drawn rows and a seed in, a fit out."""


@dataclass(frozen=True)
class Problem:
    """What is to be told apart: labels (N, C), who is whom (N,), folds, and the classes that cannot count, each with the reason."""

    truth: NDArray[np.int8]
    folds: Folds
    patients: NDArray[Any]
    keys: NDArray[np.str_]
    classes: Sequence[str]
    left_out: Mapping[str, str]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Return which classes count, (C,)."""
        return np.array([name not in self.left_out for name in self.classes])


@dataclass(frozen=True)
class Probe:
    """What a probe found: the entries of the result file, and for tables of predictions the model's scores, and each baseline's at the
    largest fraction.
    """

    fractions: list[dict[str, Any]]
    scored: list[Scored]
    beside: dict[str, list[Scored]]


def probe(
    run: Path | None = None,
    shards: Sequence[Path | str] | None = None,
    task: str = "superclass",
    baselines: Sequence[str] = ("random_init",),
    init_seeds: Sequence[int] = (0, 1, 2),
    *,
    protocol: str = "strict",
    tested: Sequence[Path | str] = (),
    splits: Path | None = None,
    leads: Sequence[str] = LEADS,
    where: str = "",
    fractions: Sequence[float] = FRACTIONS,
    seeds: int | None = None,
    fold: str = "test",
    subgroups: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe `run` (default: the newest) on `shards` (paths or URLs; default: its own) by `protocol`; write its results, return them.

    `baselines` are names of BASELINES, or SUPERVISED; a random one is made with each of `init_seeds`. With `tested`, the test fold is
    that of other shard folders. `splits` is a folder of split files, `leads` what is seen, `where` a filter of all recordings (``age >
    60``), `seeds` how many draws of a fraction, where not the protocol's own number, `fold` what is scored: val, for choices among models
    (it flatters, for each fit chooses on it too), leaves the test fold alone. The files are ``RUN/results/probe-TASK….json`` and
    ``.parquet``, and of each baseline the predictions with the largest fraction in ``baselines/``; their name says what is not the
    default. Raises CheckpointError, ShardError, InputError or TaskError where run, shards and task do not fit.
    """
    rules = open_protocol(protocol)
    for name in baselines:
        if name not in (*BASELINES, SUPERVISED):
            known = [*BASELINES, SUPERVISED]
            raise TaskError(f"no baseline {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    opened = open_run(run, shards)
    cohort = Cohort([*opened.shards, *tested], task, opened.cache, where)
    see_only(cohort, leads)
    problem, told = pose(cohort, len(opened.shards) if tested else 0, splits, fold)
    model = load_model(opened, cohort)
    features = encoder_features(model, cohort, "features", quiet=quiet)
    others = {name: fitters(name, model, cohort, problem, rules, init_seeds, quiet) for name in baselines}
    kinds = groups(cohort, problem.folds.test) if subgroups else {}
    found = measure(rules, on_features(rules, features, problem), others, problem, task, fractions, seeds, kinds, quiet)
    result = {"task": task, "protocol": protocol, **opened.facts(), "datasets": cohort.datasets, **told}
    result |= {"leads": list(leads), **({"where": where} if where else {}), "fractions": found.fractions}
    test = problem.folds.test
    name = "-".join([f"probe-{task}", *differences(result, splits)])
    keys, truth, patients = problem.keys[test], problem.truth[test], problem.patients[test]
    write_results(opened.results, name, result, keys, truth, problem.classes, found.scored, patients)
    for other, scored in found.beside.items():
        facts = {"task": task, "baseline": other, "beside": name}
        write_results(opened.results / "baselines", f"{name}-{other}", facts, keys, truth, problem.classes, scored, patients)
    return result


def differences(result: dict[str, Any], splits: Path | None) -> list[str]:
    """Return what in a result is not the default, as parts of its file's name."""
    parts = [] if result["protocol"] == "strict" else [result["protocol"]]
    parts += narrowed(result) + (["on", *result["tested_on"]] if "tested_on" in result else [])
    return parts + (["splits", splits.name] if splits else [])


def pose(cohort: Cohort, trained: int = 0, splits: Path | None = None, fold: str = "test") -> tuple[Problem, dict[str, Any]]:
    """Return the problem of a cohort, and what a result tells of its folds; raises TaskError where it cannot be posed."""
    folds, told = choose_folds(cohort, trained, splits, fold)
    left_out = unusable(cohort.truth, folds, cohort.classes)
    return Problem(cohort.truth, folds, cohort.patients, cohort.keys, cohort.classes, left_out), told


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


def on_features(protocol: Protocol, sets: Features | Mapping[str, NDArray[np.floating]], problem: Problem) -> Fitter:
    """Return what fits `sets` (name → (N, F)) to a draw of `problem` as `protocol` says."""
    return partial(_fit, protocol, sets, problem)


def _fit(protocol: Protocol, sets: Mapping[str, NDArray[np.floating]], problem: Problem, drawn: Rows, seed: int) -> Fit:
    return protocol.fit(sets, problem.truth, problem.folds, drawn, problem.usable, seed)


def fitters(
    name: str, model: CMELT, cohort: Cohort, problem: Problem, protocol: Protocol, seeds: Sequence[int], quiet: bool
) -> list[Fitter]:
    """Return what fits baseline `name`, once for each replicate."""
    if name == SUPERVISED:
        return [partial(from_scratch, model, cohort, problem.folds, problem.usable)]
    rules = Strict("ridge") if name in RIDGE else protocol
    return [on_features(rules, sets, problem) for sets in BASELINES[name](model, cohort, seeds, quiet)]


def measure(
    protocol: Protocol,
    fitter: Fitter,
    baselines: Mapping[str, Sequence[Fitter]],
    problem: Problem,
    task: str = "",
    fractions: Sequence[float] = FRACTIONS,
    seeds: int | None = None,
    kinds: Mapping[str, NDArray[np.str_]] | None = None,
    quiet: bool = False,
) -> Probe:
    """Fit to each fraction's draws and score the test fold, `baselines` (name → replicates) on the same draws, compared in pairs.

    `kinds` are subgroups of the test fold, as `groups` gives them.
    """
    folds, usable, classes = problem.folds, problem.usable, problem.classes
    test = problem.truth[folds.test]
    weights = resample_weights(problem.patients[folds.test], RESAMPLES)
    console = Console(stderr=True, quiet=quiet)
    entries: list[dict[str, Any]] = []
    scored: list[Scored] = []
    beside_it: dict[str, list[Scored]] = {}
    for fraction in fractions:
        size = protocol.draw_size(len(folds.train), fraction)
        if size < protocol.fewest:
            reason = f"{size} training recordings are fewer than {protocol.fewest}"
            entries.append({"fraction": fraction, "n_train": size, "not_computed": reason})
            continue
        drawn = {
            seed: folds.train[protocol.draw(problem.truth[folds.train], problem.keys[folds.train], fraction, seed)]
            for seed in protocol.seeds(fraction, seeds)
        }
        fits = [fitter(rows, seed) for seed, rows in drawn.items()]
        scored += [Scored(fraction, seed, fit.score) for seed, fit in zip(drawn, fits, strict=True)]
        own = evaluate(test, [fit.score for fit in fits], weights, usable)
        entry: dict[str, Any] = {"fraction": fraction, "seeds": list(drawn), "n_train": max(map(len, drawn.values()))}
        entry |= {"n_val": len(folds.val), "n_test": len(test)}
        entry |= summary(own, test, classes) | in_common(fits)
        more = details(protocol, fits, test, problem.truth[folds.val], usable, classes, task)
        for name, numbers in more.pop("by_class").items():
            entry["per_class"][name] |= numbers
        entry |= more | {"left_out": dict(problem.left_out), "chosen": [fit.told for fit in fits], "baselines": {}}
        if kinds:
            entry["subgroups"] = by_subgroup(fits, test, weights, usable, kinds, classes)
        for name, replicates in baselines.items():
            theirs = [one(rows, seed) for one in replicates for seed, rows in drawn.items()]
            both = beside(evaluate(test, [fit.score for fit in theirs], weights, usable), own, classes)
            if fraction == max(fractions):
                beside_it[name] = [Scored(fraction, number, fit.score) for number, fit in enumerate(theirs)]
            entry["baselines"][name] = both | in_common(theirs) | {"replicates": len(replicates), "chosen": [fit.told for fit in theirs]}
        entries.append(entry)
        said = f"probe: {protocol.name}, {fraction:.0%} of the labels, {entry['n_train']} recordings: macro AUC {own.macro:.3f}"
        console.print(said, soft_wrap=True, highlight=False)
    return Probe(entries, scored, beside_it)
