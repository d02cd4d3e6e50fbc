"""N3S: which wrong report a row reads (model.md, negative reports), and the report embeddings that decide it.

B rows of the global batch, R distinct reports, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cmelt.config import ModelSettings
from cmelt.errors import RecipeError
from cmelt.models.batch import IGNORE

BLOCK = 256
"""Above this many rows an assignment is made in random blocks: its cost grows with the cube."""
NEIGHBOURS = 64
"""From so many reports nearest to the negated embedding ``antipodal`` draws."""
EXACT = 200_000
"""Up to this many reports the search for opposites is exact."""
SMALLEST_GROUP = 4
FORBIDDEN = 1e6
"""The cost of an equal report in an assignment: more than all cosines together."""

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Deal:
    """Which report each row reads: `text_id` (B,), `is_aligned` (B,) 1, 0 (a wrong one) or IGNORE (left out of matching)."""

    text_id: Ints
    is_aligned: Ints

    @property
    def left_out(self) -> int:
        """How many rows are left out of matching."""
        return int((self.is_aligned == IGNORE).sum())


class Dealer:
    """Deals wrong reports over a batch, in one of the modes of `NegativeSettings`."""

    def __init__(self, embeddings: NDArray[np.float32], mode: str = "balanced") -> None:
        """Take the normalised `embeddings` (R, E) of the distinct reports, and for ``antipodal`` look up their opposites once."""
        self.embeddings, self.mode = embeddings, mode
        self.opposites = antipodal_table(embeddings) if mode == "antipodal" else None

    def deal(self, report_id: Ints, group: Ints, rng: np.random.Generator) -> Deal:
        """Return which report each row reads; `report_id` (B,) are the rows' own, `group` (B,) their acquisition groups."""
        if self.mode == "balanced":
            return deal_balanced(report_id, group, self.embeddings, rng)
        report_id = np.asarray(report_id, np.int64)
        half = len(report_id) // 2 + (int(rng.integers(2)) if len(report_id) % 2 else 0)
        wrong = rng.permutation(len(report_id))[:half]
        text_id, is_aligned = report_id.copy(), np.ones(len(report_id), np.int64)
        if self.opposites is not None:
            text_id[wrong] = self.opposites[report_id[wrong], rng.integers(self.opposites.shape[1], size=half)]
        elif len(self.embeddings) > 1:
            drawn = rng.integers(len(self.embeddings) - 1, size=half)
            text_id[wrong] = drawn + (drawn >= report_id[wrong])  # any report but the true one
        is_aligned[wrong] = np.where(text_id[wrong] == report_id[wrong], IGNORE, 0)
        return Deal(text_id, is_aligned)


def deal_balanced(report_id: Ints, group: Ints, embeddings: NDArray[np.float32], rng: np.random.Generator) -> Deal:
    """Deal the batch's own reports so that no report, length or device wording tells wrong from true (model.md).

    In each group of 4 rows or more: rows are left out until each half can be deranged; the rest, sorted by report (random among
    equals), goes alternately into two halves; a coin says which reads wrong reports, its own permuted so that they differ most.
    """
    report_id = np.asarray(report_id, np.int64)
    text_id, is_aligned = report_id.copy(), np.full(len(report_id), IGNORE, np.int64)
    for name in np.flatnonzero(np.bincount(group)):
        rows = rng.permutation(np.flatnonzero(group == name))
        if len(rows) < SMALLEST_GROUP:
            continue
        rows = rows[np.argsort(report_id[rows], kind="stable")]
        while not _derangeable(report_id[rows[0::2]]) or not _derangeable(report_id[rows[1::2]]):
            reports, counts = np.unique(report_id[rows], return_counts=True)
            commonest = rng.choice(reports[counts == counts.max()])
            rows = np.delete(rows, rng.choice(np.flatnonzero(report_id[rows] == commonest)))
        halves = [rows[0::2], rows[1::2]]
        wrong = halves[int(rng.integers(2))]
        is_aligned[rows] = 1
        is_aligned[wrong] = 0
        text_id[wrong] = report_id[wrong][_most_different(report_id[wrong], embeddings, rng)]
    return Deal(text_id, is_aligned)


def _derangeable(reports: Ints) -> bool:
    """Return whether sorted `reports` can be permuted so that no row gets an equal one: none is more than half of them."""
    half = len(reports) // 2
    return not (reports[: len(reports) - half] == reports[half:]).any()


def _most_different(reports: Ints, embeddings: NDArray[np.float32], rng: np.random.Generator) -> Ints:
    """Return the permutation of `reports` (n,) that maximises the summed 1 − cosine, equal reports forbidden."""
    permutation = np.arange(len(reports))
    for block in _blocks(reports, rng):
        e = embeddings[reports[block]].astype(np.float64)
        cost = e @ e.T + FORBIDDEN * (reports[block][:, None] == reports[block][None, :])
        permutation[block] = block[linear_sum_assignment(cost)[1]]
    return permutation


def _blocks(reports: Ints, rng: np.random.Generator) -> list[Ints]:
    """Return random, even blocks of at most BLOCK of the rows 0 … n − 1, each of which can be deranged."""
    count = -(-len(reports) // BLOCK)
    if count <= 1:
        return [np.arange(len(reports))]
    for _ in range(100):
        blocks = np.array_split(rng.permutation(len(reports)), count)
        if all(_derangeable(np.sort(reports[block])) for block in blocks):
            return blocks
    return [np.arange(len(reports))]  # one report is close to half of them: only the whole is sure to do


def antipodal_table(embeddings: NDArray[np.float32], neighbours: int = NEIGHBOURS) -> Ints:
    """Return for each report the `neighbours` others (R, N) nearest to its negated embedding, by FAISS.

    Exact up to EXACT reports; above, an inverted file whose cells are searched to a tenth.
    """
    import faiss

    reports, width = embeddings.shape
    table = np.ascontiguousarray(embeddings, np.float32)
    index: Any = faiss.IndexFlatIP(width)
    if reports > EXACT:
        cells = int(4 * reports**0.5)
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.train(table)
        index.nprobe = cells // 10
    index.add(table)
    found = index.search(-table, min(neighbours + 1, reports))[1].astype(np.int64)
    own = np.arange(reports)[:, None]
    # Its own report, should it be among them, goes to the end and is cut off: the order of a draw does not matter.
    order = np.argsort(found == own, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)[:, : max(1, min(neighbours, reports - 1))]


def report_embeddings(reports: Sequence[str], how: str = "tfidf") -> NDArray[np.float32]:
    """Return normalised embeddings (R, E) of distinct `reports`: ``tfidf`` (offline) or ``hf:NAME_OR_PATH``; deterministic."""
    if how == "tfidf":
        vectors = _tfidf(reports)
    elif how.startswith("hf:"):
        vectors = _mean_hidden(reports, how.removeprefix("hf:"))
    else:
        raise RecipeError(f"negatives.embeddings = {how!r} is unknown; write 'tfidf' or 'hf:NAME_OR_PATH'")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(np.float32)


def _tfidf(reports: Sequence[str], width: int = 128) -> NDArray[np.floating]:
    """Return centred tf-idf vectors of words and word pairs, reduced to at most `width` numbers by a truncated SVD."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\w+|[^\w\s]")
    table = vectorizer.fit_transform(reports)
    components = min(width, min(table.shape) - 1)
    vectors = TruncatedSVD(components, random_state=0).fit_transform(table) if components >= 1 else table.toarray()
    return np.asarray(vectors - vectors.mean(axis=0))


def _mean_hidden(reports: Sequence[str], name: str, batch: int = 64) -> NDArray[np.floating]:
    """Return the mean hidden state over real tokens of the pre-trained text encoder `name` (hub name or local path)."""
    import torch

    from cmelt.models.text_encoder import TextEncoder, load_pretrained, load_tokenizer, resolve_sizes

    settings = ModelSettings.model_validate({"text_encoder": name})
    tokenizer = load_tokenizer(name, settings.max_text_tokens)
    encoder = TextEncoder(resolve_sizes(settings, tokenizer.vocab_size)).eval()
    load_pretrained(encoder, name)
    by_length = np.argsort([len(report) for report in reports], kind="stable")
    vectors = np.zeros((len(reports), encoder.width), np.float32)
    with torch.inference_mode():
        for start in range(0, len(reports), batch):
            rows = by_length[start : start + batch]
            ids, lengths = tokenizer.encode_padded([reports[row] for row in rows])
            padding = torch.from_numpy(np.arange(ids.shape[1])[None, :] >= lengths[:, None])
            hidden = encoder(torch.from_numpy(ids.astype(np.int64)), padding).masked_fill(padding[:, :, None], 0.0)
            vectors[rows] = hidden.sum(dim=1).numpy() / lengths[:, None]
    return vectors
