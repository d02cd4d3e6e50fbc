"""Models and baselines on one set of labelled recordings, all on the same draws: scores kept as predictions, then told in the probe's form.

N recordings of the scored fold, C classes, S score sets (runs × draws), F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.metrics import resample_weights
from cmelt.models.cmelt import CMELT
from cmelt.tasks import queries
from cmelt.tasks.base import Cohort, encoder_features
from cmelt.tasks.baselines import BASELINES, RIDGE, from_scratch
from cmelt.tasks.compare import Predictions, read_predictions
from cmelt.tasks.features import Features
from cmelt.tasks.probe import Fitter, Problem, on_features, pose
from cmelt.tasks.protocol import Folds
from cmelt.tasks.results import Evaluation, Scored, beside, evaluate, plain, summary, write_results
from cmelt.tasks.strict import Strict
from cmelt.tasks.zeroshot import RULE, class_vectors, prompts, similarities

RESAMPLES = 1000
RUNS = 1000
"""The seed of a score set is RUNS × the draw + the number of the run (or replicate)."""


@dataclass(frozen=True)
class Ground:
    """Labelled recordings and the problem they pose; ``fold`` says which fold is scored, ``fractions`` which shares of labels are drawn."""

    name: str
    cohort: Cohort
    problem: Problem
    fold: str
    fractions: tuple[float, ...]
    draws: int | None = None

    @property
    def truth(self) -> NDArray[np.int8]:
        """Return the labels of the scored fold, (N, C)."""
        return self.problem.truth[self.problem.folds.test]

    def drawn(self, fraction: float) -> dict[int, NDArray[np.intp]]:
        """Return the training recordings of each draw of `fraction` by protocol strict; none where it is too few."""
        rules, folds = Strict(), self.problem.folds
        if rules.draw_size(len(folds.train), fraction) < rules.fewest:
            return {}
        truth, keys = self.problem.truth[folds.train], self.problem.keys[folds.train]
        return {seed: folds.train[rules.draw(truth, keys, fraction, seed)] for seed in rules.seeds(fraction, self.draws)}


def open_ground(
    name: str, shards: Path, fractions: Sequence[float], fold: str = "test", task: str = "superclass", draws: int | None = None
) -> Ground:
    """Return the recordings of `shards` with a label of `task`.

    With fold ``val`` the validation fold is scored, on which regularisation is chosen too: for choices, never for a result.
    """
    cohort = Cohort([shards], task)
    problem, _ = pose(cohort)
    if fold == "val":
        problem = replace(problem, folds=Folds(problem.folds.train, problem.folds.val, problem.folds.val))
    return Ground(name, cohort, problem, fold, tuple(fractions), draws)


def features_of(model: CMELT, ground: Ground) -> Features:
    """Return the features (all recordings, F) of the folds that are used; of others NaN, for they are not read."""
    folds = ground.problem.folds
    rows = np.unique(np.concatenate([folds.train, folds.val, folds.test]))
    out = {}
    for name, values in encoder_features(model, ground.cohort, quiet=True, rows=rows).items():
        out[name] = np.full((len(ground.cohort), values.shape[1]), np.nan, np.float32)
        out[name][rows] = values
    return out


def probed(ground: Ground, fitters: Sequence[Fitter]) -> list[Scored]:
    """Return the scores of each of `fitters` (runs, or replicates) fitted to each draw of each fraction."""
    return [
        Scored(fraction, RUNS * draw + number, fitter(rows, draw).score)
        for fraction in ground.fractions
        for draw, rows in ground.drawn(fraction).items()
        for number, fitter in enumerate(fitters)
    ]


def model_scores(ground: Ground, models: Sequence[CMELT]) -> list[Scored]:
    """Return the probe's scores of `models`, runs of one kind, and as fraction 0 those of the texts (zero-shot)."""
    sets = [features_of(model, ground) for model in models]
    test = ground.problem.folds.test
    by_texts = [
        Scored(0.0, number, text_scores(model, ground.cohort.vocabulary.name, of["embedding"][test]))
        for number, (model, of) in enumerate(zip(models, sets, strict=True))
    ]
    return by_texts + probed(ground, [on_features(Strict(), of, ground.problem) for of in sets])


def query_scores(ground: Ground, models: Sequence[CMELT]) -> list[Scored]:
    """Return, as fraction 0, the scores that the entity queries of `models`, runs of one kind, give the classes; [] where one has none."""
    if any(model.entity_head is None for model in models):
        return []
    task, rows = ground.cohort.vocabulary.name, ground.problem.folds.test
    out = []
    for number, model in enumerate(models):
        asked = queries.asked_for(task, model.config.entities)
        probable = encoder_features(model, ground.cohort, "entities", True, rows, side="entities")["entities"]
        out.append(Scored(0.0, number, queries.any_of(probable, model.config.entities, [asked[name] for name in ground.cohort.classes])))
    return out


def text_scores(model: CMELT, task: str, ecg: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much each of the ECGs with embeddings `ecg` (N, D) is like the texts of each class of `task`, by RULE; (N, C)."""
    texts, how = RULE
    vectors = class_vectors(model, {"classes": prompts(task, texts), "normal": {"NORM": prompts("superclass", texts)["NORM"]}})
    return similarities(ecg, vectors["classes"], how, vectors["normal"])


def baseline_scores(ground: Ground, name: str, shape: CMELT, seeds: Sequence[int]) -> list[Scored]:
    """Return the scores of baseline `name` of BASELINES, made with each of `seeds` where it is random; `shape` gives its shape."""
    rules = Strict("ridge") if name in RIDGE else Strict()
    sets = BASELINES[name](shape, ground.cohort, seeds, True)
    return probed(ground, [on_features(rules, of, ground.problem) for of in sets])


def supervised_scores(ground: Ground, shape: CMELT, seed: int) -> list[Scored]:
    """Return the scores of an encoder of the shape of `shape` that learns from labels alone: those of draw `seed`, from its weights."""
    folds, usable = ground.problem.folds, ground.problem.usable
    out = []
    for fraction in ground.fractions:
        drawn = ground.drawn(fraction)
        if drawn:
            rows = drawn[sorted(drawn)[seed % len(drawn)]]
            out.append(Scored(fraction, seed, from_scratch(shape, ground.cohort, folds, usable, rows, seed).score))
    return out


def keep(folder: Path, name: str, ground: Ground, scored: Sequence[Scored], **facts: Any) -> None:
    """Write score sets as ``NAME-GROUND.parquet`` and ``.json`` in `folder`."""
    test = ground.problem.folds.test
    told = {"task": ground.cohort.vocabulary.name, "datasets": ground.cohort.datasets, "fold": ground.fold, **facts}
    problem = ground.problem
    write_results(folder, f"{name}-{ground.name}", told, problem.keys[test], ground.truth, problem.classes, scored, problem.patients[test])


def read(folder: Path, names: Sequence[str], ground: str) -> dict[float, Predictions]:
    """Return the score sets that were kept under `names` (the runs of one kind), by share of the labels, as if kept together."""
    tables = [read_predictions(folder / f"{name}-{ground}.parquet") for name in names]
    first = tables[0]
    return {share: replace(one, scores=np.concatenate([table[share].scores for table in tables])) for share, one in first.items()}


def together(of: Predictions, runs: int) -> Predictions:
    """Return `of`, whose sets are those of `runs` models for each draw, with the models' scores of a draw averaged, each standardised."""
    centre, spread = of.scores.mean(1, keepdims=True), of.scores.std(1, keepdims=True)
    alike = (of.scores - centre) / np.where(spread > 0, spread, 1.0)
    return replace(of, scores=alike.reshape(-1, runs, *of.scores.shape[1:]).mean(1))


def usable(of: Predictions) -> NDArray[np.bool_]:
    """Return which classes have positives and negatives among the scored recordings, (C,)."""
    return np.asarray(of.truth.any(0) & ~of.truth.all(0))


def evaluated(of: Predictions) -> Evaluation:
    """Return the AUROC of score sets, mean over them, with its bootstrap over patients."""
    return evaluate(of.truth, list(of.scores), resample_weights(of.patients, RESAMPLES), usable(of))


def entries(own: Mapping[float, Predictions], others: Mapping[str, Mapping[float, Predictions]]) -> list[dict[str, Any]]:
    """Return entries as in the probe's results: `own` score sets, by share of the labels, and `others` compared with them in pairs.

    Intervals are over resampled test patients, with the mean over draws and runs in each; ``fits`` has each score set's own macro AUROC.
    """
    out = []
    for share, mine in sorted(own.items()):
        whole = evaluated(mine)
        entry: dict[str, Any] = {"fraction": share, "sets": len(mine.scores), "n_test": len(mine.keys)}
        entry |= summary(whole, mine.truth, mine.classes) | {"fits": [plain(value) for value in whole.of_sets]}
        entry["left_out"] = [name for name, counts in zip(mine.classes, usable(mine), strict=True) if not counts]
        entry["baselines"] = {
            name: beside(evaluated(of[share]), whole, mine.classes) | {"sets": len(of[share].scores)}
            for name, of in others.items()
            if share in of
        }
        out.append(entry)
    return out
