"""Numbers and their uncertainty: AUROC, average precision, F1, challenge score, retrieval, and bootstrap intervals by patient.

Letters: N recordings, C classes, R bootstrap resamples. `truth` is (N, C) zeros and ones, `score` (N, C) real, higher = more likely.
A class without positives or without negatives has no AUROC: it is NaN, `macro` leaves it out, and `empty` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]

CHUNK = 128
"""Resamples that are worked on at once; (N, CHUNK) then stays in the processor's cache."""
QUERIES = 1024
"""Queries that are compared with all candidates at once."""

FEW_PAIRS = 3_000_000
"""Up to so many pairs of a positive and a negative, all are compared once; above, each resample runs over sorted scores."""


def auroc(truth: ArrayLike, score: ArrayLike) -> Floats:
    """Return the area under the ROC curve of each class, (C,); ties count one half, NaN where a class is empty."""
    truth, score = _pair(truth, score)
    ranks = rankdata(score, axis=0)  # (N, C), ties share their mean rank
    positives = truth.sum(0, dtype=float)
    negatives = len(truth) - positives
    above = (ranks * truth).sum(0) - positives * (positives + 1) / 2  # pairs in which the positive ranks higher
    return _divide(above, positives * negatives)


def average_precision(truth: ArrayLike, score: ArrayLike) -> Floats:
    """Return the average precision of each class, (C,): the step-wise area under precision against recall; NaN without positives."""
    truth, score = _pair(truth, score)
    out = np.full(truth.shape[1], np.nan)
    for c in range(truth.shape[1]):
        order = np.argsort(-score[:, c], kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order, c])), len(order) - 1)  # the last row of each run of equal scores
        hits = np.cumsum(truth[order, c], dtype=float)[last]
        if hits[-1]:
            out[c] = np.sum(np.diff(hits, prepend=0.0) * hits / (last + 1)) / hits[-1]
    return out


def best_thresholds(truth: ArrayLike, score: ArrayLike) -> Floats:
    """Return for each class the score at and above which to say yes for the highest F1, (C,); +inf without positives.

    Choose them on validation and use them on test. Among equals the highest threshold wins.
    """
    truth, score = _pair(truth, score)
    out = np.full(truth.shape[1], np.inf)
    for c in range(truth.shape[1]):
        order = np.argsort(-score[:, c], kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order, c])), len(order) - 1)
        hits = np.cumsum(truth[order, c], dtype=float)[last]
        if hits[-1]:
            best = np.argmax(2 * hits / (last + 1 + hits[-1]))
            out[c] = score[order[last[best]], c]
    return out


def f1(truth: ArrayLike, predicted: ArrayLike) -> Floats:
    """Return F1 of yes/no answers `predicted` (N, C) for each class, (C,); NaN where there is neither a positive nor a yes."""
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    hits = (truth & predicted).sum(0)
    return _divide(2.0 * hits, truth.sum(0) + predicted.sum(0))


def macro(per_class: ArrayLike, axis: int = -1) -> Any:
    """Return the mean over classes that have a value (NaN where none has)."""
    per_class = np.asarray(per_class, float)
    known = ~np.isnan(per_class)
    mean = _divide(np.where(known, per_class, 0.0).sum(axis), known.sum(axis))
    return float(mean) if mean.ndim == 0 else mean


def support_weighted(per_class: ArrayLike, truth: ArrayLike) -> float:
    """Return the mean over classes that have a value, each counted by its positives in `truth` (N, C); NaN where none has one."""
    per_class, positives = np.asarray(per_class, float), np.asarray(truth).sum(0, dtype=float)
    known = ~np.isnan(per_class)
    return float(_divide((per_class * positives)[known].sum(), positives[known].sum()))


def micro_auroc(truth: ArrayLike, score: ArrayLike) -> float:
    """Return the AUROC of all (recording, class) pairs taken together, so that scores are compared across classes; NaN where undefined."""
    truth, score = _pair(truth, score)
    return float(auroc(truth.reshape(-1, 1), score.reshape(-1, 1))[0])


def calibration_error(truth: ArrayLike, probability: ArrayLike, bins: int = 15) -> Floats:
    """Return the expected calibration error of each class, (C,): |mean probability − share of positives| over equal bins of [0, 1].

    Bins are weighted by their recordings (arXiv 1706.04599, one class against the rest). Raises ValueError outside [0, 1].
    """
    truth, probability = _pair(truth, probability)
    if probability.size and not 0 <= probability.min() <= probability.max() <= 1:
        raise ValueError("a probability lies outside 0 … 1")
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gap = probability - truth
    sums = np.stack([np.bincount(which[:, c], gap[:, c], bins) for c in range(truth.shape[1])], axis=1)  # (bins, C)
    return _divide(np.abs(sums).sum(0), len(truth))


def empty(truth: ArrayLike, classes: Sequence[str]) -> dict[str, str]:
    """Return the classes that have no AUROC on `truth` (N, C), each with the reason."""
    positives = np.asarray(truth).sum(0)
    out = {name: "no positive recording" for name, n in zip(classes, positives, strict=True) if n == 0}
    return out | {name: "no negative recording" for name, n in zip(classes, positives, strict=True) if n == len(np.asarray(truth)) and n}


def resample_weights(patients: Sequence[Any] | NDArray[Any], resamples: int = 1000, seed: int = 0) -> NDArray[np.float32]:
    """Draw patients with replacement; return how often each of N recordings is in each resample, (N, R).

    The same patients, number and seed give the same draws, so two score sets over them are compared in pairs.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    n = int(patient.max()) + 1
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)  # (R, patients)
    return counts.T.astype(np.float32)[patient]


def weighted_auroc(truth: ArrayLike, score: ArrayLike, weights: NDArray[np.float32]) -> Floats:
    """Return the AUROC of each class under each column of `weights` (N, R), (R, C); NaN where a resample leaves a class empty.

    `score` is (N, C), or (S, N, C) for S score sets, whose AUROCs are averaged.
    """
    score = np.asarray(score, np.float64)
    sets = [_pair(truth, one) for one in (score if score.ndim == 3 else score[None])]
    truth = sets[0][0]
    out = np.full((weights.shape[1], truth.shape[1]), np.nan)
    for c in range(truth.shape[1]):
        scores = [one[:, c] for _, one in sets]
        positives = int(truth[:, c].sum())
        if 0 < positives * (len(truth) - positives) <= FEW_PAIRS:
            out[:, c] = _weighted_auroc_of_pairs(truth[:, c], scores, weights)
            continue
        for first in range(0, weights.shape[1], CHUNK):
            part = np.ascontiguousarray(weights[:, first : first + CHUNK])
            out[first : first + CHUNK, c] = np.mean([_weighted_auroc_of_class(truth[:, c], one, part) for one in scores], axis=0)
    return out


def _weighted_auroc_of_pairs(truth: NDArray[np.bool_], scores: Sequence[Floats], weights: NDArray[np.float32]) -> Floats:
    """Return the AUROC of one class, mean over score sets, under each column of `weights` (N, R), (R,).

    Which of P positives rank above which of Q negatives does not change with the weights: one (P, Q) matrix serves all resamples.
    """
    above = np.zeros((int(truth.sum()), int((~truth).sum())), np.float32)
    for score in scores:
        positive, negative = score[truth][:, None], score[~truth]
        above += positive > negative
        above += np.float32(0.5) * (positive == negative)
    own, others = weights[truth], weights[~truth]
    wins = np.einsum("pr,pr->r", own, above @ others, dtype=np.float64) / len(scores)
    return _divide(wins, own.sum(0, dtype=float) * others.sum(0, dtype=float))


def _weighted_auroc_of_class(truth: NDArray[np.bool_], score: Floats, weights: NDArray[np.float32]) -> Floats:
    """Return the AUROC of one class under each column of `weights` (N, R), (R,).

    Negatives are sorted once; the weight of those below (and half of those equal to) each positive is read off running sums.
    """
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    negative = negative[np.argsort(score[negative], kind="stable")]
    below = np.zeros((len(negative) + 1, weights.shape[1]), np.float32)  # sums of counts: exact in float32 up to 2^24
    np.cumsum(weights[negative], axis=0, out=below[1:])
    low = np.searchsorted(score[negative], score[positive], "left")
    high = np.searchsorted(score[negative], score[positive], "right")
    own = weights[positive]
    above = np.einsum("pr,pr->r", own, below[low] + below[high], dtype=np.float64) / 2
    return _divide(above, own.sum(0, dtype=float) * below[-1].astype(float))


def interval(samples: ArrayLike, level: float = 0.95) -> Floats:
    """Return the percentile interval of bootstrap `samples` (R, …) as (2, …); resamples without a value are passed over."""
    samples = np.asarray(samples, float)
    out = np.full((2, *samples.shape[1:]), np.nan)
    known = ~np.isnan(samples).all(0)
    tail = (1 - level) / 2
    out[:, known] = np.nanquantile(samples[:, known], [tail, 1 - tail], axis=0)
    return out


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two score sets: macro AUROC of the first minus that of the second."""

    value: float
    ci95: tuple[float, float]
    p: float
    """Two-sided bootstrap p-value that the difference is 0."""


def difference(value: float, samples: Floats) -> Difference:
    """Return a Difference from its value and its bootstrap samples (R,)."""
    low, high = interval(samples)
    beyond = min((samples <= 0).sum(), (samples >= 0).sum())
    return Difference(value, (float(low), float(high)), min(1.0, 2 * (float(beyond) + 1) / (len(samples) + 1)))


def challenge_score(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike, normal: int) -> float:
    """Return the CinC 2021 score of yes/no answers `predicted` (N, C) under credit `weights` (C, C).

    A[j, k] += 1 / max(|labels ∪ outputs|, 1) for every label j and output k of a recording; the score ΣW∘A is scaled so that perfect
    answers give 1 and always answering class `normal` (sinus rhythm) gives 0.
    """
    truth, predicted, weights = np.asarray(truth, bool), np.asarray(predicted, bool), np.asarray(weights, float)

    def credit(answers: NDArray[np.bool_]) -> float:
        named = np.maximum((truth | answers).sum(1, keepdims=True), 1)
        return float(np.sum(weights * ((truth / named).T @ answers)))

    inactive = np.zeros_like(truth)
    inactive[:, normal] = True
    observed, correct, lazy = credit(predicted), credit(truth), credit(inactive)
    return (observed - lazy) / (correct - lazy) if correct != lazy else 0.0


def retrieval(
    ecg: ArrayLike, text: ArrayLike, text_id: Sequence[int] | NDArray[Any] | None = None, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Return recall@k of N ECGs (N, D) and their reports' embeddings (N, D) by cosine, both ways, as ``retrieval_ecg_to_text@1`` ….

    `text_id` (N,) says which reports are the same text: each distinct text stands once among the candidates, and every ECG that has it
    is right. Of equal similarities the wrong ones count as nearer, so that collapsed embeddings score 0.
    """
    ecg, text = _unit(ecg), _unit(text)
    ids = np.arange(len(text)) if text_id is None else np.asarray(text_id)
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    text, number = text[first], np.arange(len(first))
    out: dict[str, float] = {}
    for name, queries, of, candidates, are in (("ecg_to_text", ecg, which, text, number), ("text_to_ecg", text, number, ecg, which)):
        nearer = np.empty(len(queries), int)
        for start in range(0, len(queries), QUERIES):
            some = slice(start, start + QUERIES)
            similarity, right = queries[some] @ candidates.T, of[some, None] == are
            best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
            nearer[some] = (~right & (similarity >= best)).sum(1)
        out |= {f"retrieval_{name}@{k}": float((nearer < k).mean()) for k in ks}
    return out


def identification(
    gallery: ArrayLike, gallery_id: NDArray[Any], probes: ArrayLike, probe_id: NDArray[Any]
) -> tuple[dict[str, float], NDArray[np.bool_]]:
    """Return top1, top5 and eer of P probes (P, D) sought in a gallery (G, D) by cosine, and for which probes the nearest is right, (P,).

    A probe counts at k where fewer than k gallery recordings of other people are as near as its own person's nearest. The equal error
    rate is that of accepting pairs of a probe and a gallery recording above one threshold: as many right pairs refused as wrong accepted.
    """
    similarity = _unit(np.asarray(probes, np.float64)) @ _unit(np.asarray(gallery, np.float64)).T
    right = np.asarray(probe_id)[:, None] == np.asarray(gallery_id)[None]
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    nearer = (~right & (similarity >= best)).sum(1)
    order = np.argsort(-similarity, axis=None, kind="stable")
    scores, is_right = similarity.ravel()[order], right.ravel()[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # thresholds lie between different scores
    refused = np.append(1.0, 1 - np.cumsum(is_right)[last] / max(1, is_right.sum()))
    accepted = np.append(0.0, np.cumsum(~is_right)[last] / max(1, (~is_right).sum()))
    gap = refused - accepted  # falls from 1 to −1
    at = int(np.flatnonzero(gap <= 0)[0])
    share = gap[at - 1] / (gap[at - 1] - gap[at])
    eer = accepted[at - 1] + share * (accepted[at] - accepted[at - 1])
    found = {"top1": float((nearer < 1).mean()), "top5": float((nearer < 5).mean()), "eer": float(eer)}
    return found, nearer < 1


def _unit(vectors: ArrayLike) -> NDArray[Any]:
    """Return vectors (N, D) scaled to length 1 (a zero vector stays zero)."""
    vectors = np.asarray(vectors)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _pair(truth: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Return truth as bool and score as float64, both (N, C); refuse other shapes and NaN, which has no rank."""
    truth, score = np.asarray(truth), np.asarray(score, np.float64)
    if truth.shape != score.shape or truth.ndim != 2:
        raise ValueError(f"truth {truth.shape} and score {score.shape} must both be (N, C)")
    if np.isnan(score).any():
        raise ValueError("a score is NaN")
    return truth.astype(bool), score


def _divide(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return a / b, NaN where b is 0."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)
