"""BLEU and ROUGE-L against the values that NLTK and rouge_score give, and as sums over resamples."""

from __future__ import annotations

import numpy as np
import pytest

from cmelt.text.overlap import bleu, bleu_counts, in_common, rouge_l, words

WRITTEN = [
    "sinus rhythm. left axis deviation. non-specific t wave abnormality in lateral leads.",
    "atrial fibrillation. right bundle branch block.",
    "sinus rhythm. normal ecg.",
    "the the the the the the the",
]
TRUE = [
    "sinus rhythm. left axis deviation. t wave abnormality, consider lateral ischaemia.",
    "atrial fibrillation with rapid ventricular response. left bundle branch block.",
    "sinus bradycardia. otherwise normal ecg.",
    "the cat is on the mat",
]


def test_bleu_is_what_nltk_gives() -> None:
    counts = bleu_counts(WRITTEN, TRUE)
    of_all = [float(bleu(counts.sum(0), size)) for size in (1, 2, 3, 4)]
    assert of_all == pytest.approx([0.592488, 0.461718, 0.356546, 0.261992], abs=1e-6)  # nltk.corpus_bleu, weights 1/size
    assert float(bleu(counts[0])) == pytest.approx(0.398329, abs=1e-6)
    assert [float(bleu(counts[1], size)) for size in (1, 2)] == pytest.approx([0.427848, 0.363041], abs=1e-6), "written too briefly"
    assert counts[3, 0] == 2, "a word counts as often as the reference has it (Papineni's example)"
    assert float(bleu(counts[3], 2)) == 0.0


def test_rouge_is_what_rouge_score_gives() -> None:
    assert rouge_l(WRITTEN, TRUE) == pytest.approx([0.75, 0.625, 2 / 3, 4 / 13], abs=1e-9)
    assert in_common("abcbdab", "bdcaba") == 4


def test_sums_of_resamples_are_resamples_of_texts() -> None:
    weights = np.array([[2, 0], [0, 1], [1, 1], [0, 3]], float)
    counts = bleu_counts(WRITTEN, TRUE)
    doubled = [WRITTEN[0], WRITTEN[0], WRITTEN[2]], [TRUE[0], TRUE[0], TRUE[2]]
    assert bleu(weights.T @ counts)[0] == bleu(bleu_counts(*doubled).sum(0))


def test_what_is_empty_earns_nothing_and_what_is_equal_everything() -> None:
    assert words("ST-T changes, V1.") == ["st", "t", "changes", "v1"]
    assert rouge_l(["", TRUE[0]], [TRUE[0], TRUE[0]]).tolist() == [0, 1]
    assert bleu(bleu_counts([""], [TRUE[0]]).sum(0)) == 0
    assert bleu(bleu_counts(TRUE[:3], TRUE[:3]).sum(0)) == 1
