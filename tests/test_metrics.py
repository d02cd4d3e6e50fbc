"""Metrics agree with scikit-learn and with their definitions, on random, tied and degenerate inputs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cmelt import metrics
from tests.paired import paired_bootstrap

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Truth and score (N, C), scores from a few values so that ties are common, classes sometimes empty or full."""
    n, c, levels, seed = draw(st.integers(2, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    truth = rng.random((n, c)) < rng.choice([0.0, 0.1, 0.5, 1.0], c)
    return truth.astype(np.int8), rng.integers(0, levels, (n, c)) / 3 - 1


def resampled(truth: np.ndarray, score: np.ndarray, patients: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return the AUROC of each class in each resample of patients, (R, C)."""
    return metrics.weighted_auroc(truth, score, metrics.resample_weights(patients, resamples, seed))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_auroc_and_average_precision_are_sklearns(case: Case) -> None:
    truth, score = case
    auc, ap = metrics.auroc(truth, score), metrics.average_precision(truth, score)
    for c in range(truth.shape[1]):
        t, s = truth[:, c], score[:, c]
        if t.min() == t.max():
            assert np.isnan(auc[c])
        else:
            assert auc[c] == pytest.approx(roc_auc_score(t, s), abs=1e-12)
        if t.any():
            assert ap[c] == pytest.approx(average_precision_score(t, s), abs=1e-12)
        else:
            assert np.isnan(ap[c])


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_resampled_auroc_is_sklearns_weighted(case: Case, seed: int) -> None:
    truth, score = case
    patients = np.arange(len(truth)) // 2
    weights = metrics.resample_weights(patients, 5, seed)
    assert np.array_equal(weights[0::2][: len(truth) // 2], weights[1::2][: len(truth) // 2]), "a patient's recordings go together"
    assert (np.array([weights[patients == p][0] for p in np.unique(patients)]).sum(0) == len(np.unique(patients))).all()
    found = metrics.weighted_auroc(truth, score, weights)
    for r in range(5):
        for c in range(truth.shape[1]):
            used = weights[:, r] > 0
            if len(set(truth[used, c])) < 2:
                assert np.isnan(found[r, c])
            else:
                expected = roc_auc_score(truth[:, c], score[:, c], sample_weight=weights[:, r])
                assert found[r, c] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(), cases(), st.integers(0, 1000))
def test_score_sets_are_averaged_by_pairs_as_by_sorting(case: Case, other: Case, seed: int) -> None:
    truth, score = case
    sets = np.stack([score, np.resize(other[1], score.shape)])
    weights = metrics.resample_weights(np.arange(len(truth)), 6, seed)
    by_pairs = metrics.weighted_auroc(truth, sets, weights)
    alone = np.mean([metrics.weighted_auroc(truth, one, weights) for one in sets], axis=0)
    np.testing.assert_allclose(by_pairs, alone, atol=1e-6)
    for c in range(truth.shape[1]):
        if 0 < truth[:, c].sum() < len(truth):
            by_sorting = np.mean([metrics._weighted_auroc_of_class(truth[:, c] > 0, one[:, c], weights) for one in sets], axis=0)
            np.testing.assert_allclose(by_pairs[:, c], by_sorting, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_averages_are_sklearns(case: Case) -> None:
    truth, score = case
    if 0 < truth.sum() < truth.size:
        assert metrics.micro_auroc(truth, score) == pytest.approx(roc_auc_score(truth.ravel(), score.ravel()))
    else:
        assert np.isnan(metrics.micro_auroc(truth, score))
    auc = metrics.auroc(truth, score)
    kept = ~np.isnan(auc)
    found = metrics.support_weighted(auc, truth)
    if kept.sum() > 1:
        assert found == pytest.approx(roc_auc_score(truth[:, kept], score[:, kept], average="weighted"))
        assert metrics.macro(auc) == pytest.approx(roc_auc_score(truth[:, kept], score[:, kept], average="macro"))
    elif not kept.any():
        assert np.isnan(found)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(1, 20))
def test_calibration_error_follows_its_definition(case: Case, bins: int) -> None:
    truth, score = case
    probability = (score + 1) / 3
    found = metrics.calibration_error(truth, probability, bins)
    for c in range(truth.shape[1]):
        expected = 0.0
        for b in range(bins):
            p = probability[:, c] * bins
            here = (p >= b) & ((p < b + 1) | (b == bins - 1))
            if here.any():
                expected += here.mean() * abs(probability[here, c].mean() - truth[here, c].mean())
        assert found[c] == pytest.approx(expected, abs=1e-12)
    assert metrics.calibration_error(truth, truth, bins).tolist() == [0.0] * truth.shape[1]
    with pytest.raises(ValueError, match="outside"):
        metrics.calibration_error(truth, score - 2)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_thresholds_reach_the_best_f1(case: Case) -> None:
    truth, score = case
    reached = metrics.f1(truth, score >= metrics.best_thresholds(truth, score))
    for c in range(truth.shape[1]):
        if truth[:, c].any():
            best = max(f1_score(truth[:, c], score[:, c] >= threshold) for threshold in np.unique(score[:, c]))
            assert reached[c] == pytest.approx(best, abs=1e-12)
        else:
            assert np.isnan(reached[c])


def test_macro_leaves_empty_classes_out_and_names_them() -> None:
    truth = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]])
    score = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.9, 0.1]])
    assert metrics.macro(metrics.auroc(truth, score)) == 1.0
    assert metrics.empty(truth, ["a", "b", "c"]) == {"b": "no positive recording", "c": "no negative recording"}
    assert np.isnan(metrics.macro([np.nan, np.nan]))
    assert metrics.macro([[0.5, np.nan], [0.2, 0.4]]).tolist() == pytest.approx([0.5, 0.3])


def test_a_nan_score_or_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        metrics.auroc([[1], [0]], [[np.nan], [0.0]])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        metrics.auroc([1, 0], [0.1, 0.2])


def test_bootstrap_intervals_cover_and_pair() -> None:
    """Over repeated samples the 95 % interval holds the true AUROC (0.760 for unit shift) about 95 times in 100."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        truth = rng.random((150, 1)) < 0.4
        low, high = metrics.interval(resampled(truth, rng.normal(size=(150, 1)) + truth, np.arange(150), 200, seed))[:, 0]
        held += low <= 0.7602 <= high
    assert 180 <= held <= 198

    truth = rng.random((400, 3)) < 0.3
    noise = rng.normal(size=(400, 3))
    good, poor = truth + noise, 0.5 * truth + noise
    paired = paired_bootstrap(truth, good, poor, np.arange(400))
    assert paired.ci95[0] > 0
    assert paired.p < 0.01
    assert paired.value == pytest.approx(metrics.macro(metrics.auroc(truth, good)) - metrics.macro(metrics.auroc(truth, poor)))
    nothing = paired_bootstrap(truth, good, good, np.arange(400))
    assert (nothing.value, nothing.ci95, nothing.p) == (0.0, (0.0, 0.0), 1.0)
    two_seeds = paired_bootstrap(truth, np.stack([good, poor]), poor, np.arange(400))
    assert two_seeds.value == pytest.approx(paired.value / 2)


def test_intervals_by_patient_are_wider_where_recordings_repeat() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat(rng.random((60, 1)) < 0.5, 8, axis=0)
    score = np.repeat(rng.normal(size=(60, 1)), 8, axis=0) + truth
    by_record, by_patient = (
        np.diff(metrics.interval(resampled(truth, score, who))[:, 0])[0] for who in (np.arange(480), np.arange(480) // 8)
    )
    assert by_patient > 2 * by_record


def test_a_thousand_resamples_of_ptbxl_size_take_seconds() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((2158, 71)) < rng.uniform(0.001, 0.5, 71)
    score = rng.normal(size=(2158, 71)) + truth
    started = time.process_time()
    samples = resampled(truth, score, rng.integers(0, 1900, 2158))
    assert samples.shape == (1000, 71)
    assert time.process_time() - started < 5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_challenge_score_follows_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.random((12, 4)) < 0.4, rng.random((12, 4)) < 0.4
    weights = rng.random((4, 4))

    def by_hand(answers: np.ndarray) -> float:
        total = 0.0
        for labels, outputs in zip(truth, answers, strict=True):
            named = max(sum(bool(a or b) for a, b in zip(labels, outputs, strict=True)), 1)
            total += sum(weights[j, k] / named for j in range(4) if labels[j] for k in range(4) if outputs[k])
        return total

    lazy = np.zeros_like(truth)
    lazy[:, 2] = True
    expected = (by_hand(predicted) - by_hand(lazy)) / (by_hand(truth) - by_hand(lazy))
    assert metrics.challenge_score(truth, predicted, weights, 2) == pytest.approx(expected)
    assert metrics.challenge_score(truth, truth, weights, 2) == pytest.approx(1)
    assert metrics.challenge_score(truth, lazy, weights, 2) == pytest.approx(0)


def test_retrieval_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 30, 50)
    text = rng.normal(size=(30, 6))[ids]
    ecg = text + 1.5 * rng.normal(size=(50, 6))
    whole = metrics.retrieval(ecg, text, ids)
    assert 0 < whole["retrieval_text_to_ecg@1"] < whole["retrieval_text_to_ecg@10"] <= 1
    monkeypatch.setattr(metrics, "QUERIES", 7)
    assert metrics.retrieval(ecg, text, ids) == whole


def test_retrieval_counts_equal_reports_once_and_ties_against() -> None:
    eye = np.eye(4)
    perfect = metrics.retrieval(eye, eye, ks=(1,))
    assert perfect == {"retrieval_ecg_to_text@1": 1.0, "retrieval_text_to_ecg@1": 1.0}
    assert set(metrics.retrieval(np.ones((4, 4)), np.ones((4, 4)), ks=(1, 3)).values()) == {0.0}, "collapsed embeddings find nothing"
    shifted = metrics.retrieval(eye, np.roll(eye, 1, axis=0) + 0.5 * eye, ks=(1, 2))
    assert (shifted["retrieval_ecg_to_text@1"], shifted["retrieval_ecg_to_text@2"]) == (0.0, 1.0)
    text = np.stack([eye[0], eye[0], eye[2], eye[3]])  # rows 0 and 1 have the same report
    ecg = np.stack([eye[0], eye[0] + 0.1 * eye[1], eye[2], eye[3]])
    assert set(metrics.retrieval(ecg, text, [7, 7, 8, 9], ks=(1,)).values()) == {1.0}
    assert metrics.retrieval(ecg, text, ks=(1,))["retrieval_ecg_to_text@1"] == 0.5
