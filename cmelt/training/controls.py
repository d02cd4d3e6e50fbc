"""What the matching task is worth: how well a reader who never sees an ECG tells true reports from wrong ones.

A score near 0.5 means that only the ECG gives the answer away (model.md, negative reports). N dealt rows, R distinct reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def controls(dealt: Dealt, reports: Sequence[str], report_id: Ints, group: Ints, embeddings: NDArray[np.float32]) -> dict[str, float]:
    """Return the matching AUC of three blind readers, the share of rows left out, and the entropy of what is drawn.

    ``text_only``: logistic regression on tf-idf of words and word pairs; ``length_only``: on the length in words (both fitted on
    even batches, scored on odd ones); ``acquisition``: how much likelier the report's cluster is for the row's group than overall.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    told = dealt.is_aligned != IGNORE
    row, text, truth, batch = (x[told] for x in (dealt.row, dealt.text_id, dealt.is_aligned, dealt.batch))
    even = batch % 2 == 0

    def fitted(features: object) -> float:
        model = LogisticRegression(max_iter=200).fit(features[text[even]], truth[even])  # type: ignore[index]
        return _auc(truth[~even], model.decision_function(features[text[~even]]))  # type: ignore[index]

    length = np.asarray([len(report.split()) for report in reports], float)
    steps = (length[:, None] > np.unique(np.quantile(length, np.linspace(0, 1, 30)))[None, :]).astype(float)  # any monotone or bent law
    clusters = min(30, len(reports))
    cluster = KMeans(clusters, n_init=1, random_state=0).fit_predict(embeddings)
    joint = np.ones((int(group.max()) + 1, clusters))
    np.add.at(joint, (group, cluster[report_id]), 1.0)
    likelier = np.log(joint / joint.sum(1, keepdims=True)) - np.log(joint.sum(0) / joint.sum())
    drawn = np.bincount(text[truth == 0])
    share = drawn[drawn > 0] / max(1, drawn.sum())
    return {
        "text_only": fitted(TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit_transform(reports)),
        "length_only": fitted(steps),
        "acquisition": _auc(truth, likelier[group[row], cluster[text]]),
        "left_out": float(1 - told.mean()),
        "entropy_bits": float(-(share * np.log2(share)).sum()),
    }


def _auc(truth: Ints, score: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve of one score."""
    return float(auroc(truth[:, None].astype(np.int8), np.asarray(score, float)[:, None])[0])
