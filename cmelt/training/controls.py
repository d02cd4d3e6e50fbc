"""What the matching task is worth: how well a reader who never sees an ECG tells true reports from wrong ones.

A score near 0.5 means that only the ECG gives the answer away (model.md, negative reports). N dealt rows, R distinct reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.metrics import auroc
from cmelt.models.batch import IGNORE
from cmelt.training.negatives import Dealer

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Dealt:
    """Rows of many batches as they were dealt: corpus `row`, the report read (`text_id`), `is_aligned`, the `batch` number; all (N,)."""

    row: Ints
    text_id: Ints
    is_aligned: Ints
    batch: Ints


def deal_epochs(dealer: Dealer, report_id: Ints, group: Ints, batch: int, epochs: int, seed: int = 0) -> Dealt:
    """Deal `epochs` epochs of shuffled batches over a corpus with reports `report_id` (rows,) and groups `group` (rows,)."""
    rng = np.random.default_rng(seed)
    rows: list[Ints] = []
    texts: list[Ints] = []
    aligned: list[Ints] = []
    numbers: list[Ints] = []
    for _ in range(epochs):
        order = rng.permutation(len(report_id))
        for start in range(0, len(order) - batch + 1, batch):
            row = order[start : start + batch]
            deal = dealer.deal(report_id[row], group[row], rng)
            rows.append(row)
            texts.append(deal.text_id)
            aligned.append(deal.is_aligned)
            numbers.append(np.full(batch, len(numbers)))
    return Dealt(*(np.concatenate(parts).astype(np.int64) for parts in (rows, texts, aligned, numbers)))


def drawn(
    dealer: Dealer, reports: Sequence[str], report_id: Ints, group: Ints, batch: int, seed: int = 0, most: int = 10_000
) -> dict[str, float]:
    """Return what a run says of its wrong reports before it begins: of `most` rows as it will deal them, in batches of `batch`,
    the share left out, the entropy of what is drawn, and the text-only control (not of fewer than 20 batches: too few to tell).
    """
    rows = np.random.default_rng(seed).permutation(len(report_id))[: max(most, batch)]
    dealt = deal_epochs(dealer, report_id[rows], group[rows], min(batch, len(rows)), 1, seed)
    told = spread(dealt)
    used, dealt.text_id = np.unique(dealt.text_id, return_inverse=True)
    enough = dealt.batch[-1] >= 19 and told["left_out"] < 0.5
    return told | {"text_only": text_only(dealt, [reports[number] for number in used])} if enough else told


def controls(dealt: Dealt, reports: Sequence[str], report_id: Ints, group: Ints, embeddings: NDArray[np.float32]) -> dict[str, float]:
    """Return the matching AUC of three blind readers, the share of rows left out, and the entropy of what is drawn.

    ``text_only``: logistic regression on tf-idf of words and word pairs; ``length_only``: on the length in words (both fitted on
    even batches, scored on odd ones); ``acquisition``: how much likelier the report's cluster is for the row's group than overall.
    """
    from sklearn.cluster import KMeans

    told = dealt.is_aligned != IGNORE
    row, text, truth = (x[told] for x in (dealt.row, dealt.text_id, dealt.is_aligned))
    length = np.asarray([len(report.split()) for report in reports], float)
    steps = (length[:, None] > np.unique(np.quantile(length, np.linspace(0, 1, 30)))[None, :]).astype(float)  # any monotone or bent law
    clusters = min(30, len(reports))
    cluster = KMeans(clusters, n_init=1, random_state=0).fit_predict(embeddings)
    joint = np.ones((int(group.max()) + 1, clusters))
    np.add.at(joint, (group, cluster[report_id]), 1.0)
    likelier = np.log(joint / joint.sum(1, keepdims=True)) - np.log(joint.sum(0) / joint.sum())
    return {
        "text_only": text_only(dealt, reports),
        "length_only": _fitted(dealt, steps),
        "acquisition": _auc(truth, likelier[group[row], cluster[text]]),
        **spread(dealt),
    }


def spread(dealt: Dealt) -> dict[str, float]:
    """Return the share of rows left out of matching, and the entropy of the wrong reports, in bits."""
    counts = np.unique(dealt.text_id[dealt.is_aligned == 0], return_counts=True)[1]
    share = counts / max(1, counts.sum())
    return {"left_out": float((dealt.is_aligned == IGNORE).mean()), "entropy_bits": float(-(share * np.log2(share)).sum())}


def text_only(dealt: Dealt, reports: Sequence[str]) -> float:
    """Return the matching AUC of a logistic regression on tf-idf of words and word pairs of the report that is read."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return _fitted(dealt, TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit_transform(reports))


def _fitted(dealt: Dealt, features: Any) -> float:
    """Return the matching AUC of a logistic regression on `features` (R, F), fitted on even batches and scored on odd ones."""
    from sklearn.linear_model import LogisticRegression

    told, even = dealt.is_aligned != IGNORE, dealt.batch % 2 == 0
    model = LogisticRegression(max_iter=200).fit(features[dealt.text_id[told & even]], dealt.is_aligned[told & even])
    return _auc(dealt.is_aligned[told & ~even], model.decision_function(features[dealt.text_id[told & ~even]]))


def _auc(truth: Ints, score: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve of one score."""
    return float(auroc(truth[:, None].astype(np.int8), np.asarray(score, float)[:, None])[0])
