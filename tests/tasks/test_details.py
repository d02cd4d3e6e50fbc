"""What is told beside AUROC comes from the right fold, and says where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cmelt.labels import challenge_weights, load_vocabulary
from cmelt.metrics import auroc, challenge_score, macro, resample_weights
from cmelt.tasks.details import by_subgroup, details
from cmelt.tasks.melp import Melp
from cmelt.tasks.protocol import Fit
from cmelt.tasks.strict import Strict


def a_fit(truth: np.ndarray, val: np.ndarray, noise: float = 1.0, seed: int = 0) -> Fit:
    rng = np.random.default_rng(seed)
    return Fit(truth * 2.0 - 1 + noise * rng.normal(size=truth.shape), val * 2.0 - 1 + noise * rng.normal(size=val.shape), {})


def labels(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.int8)


def test_thresholds_come_from_validation_and_f1_from_test() -> None:
    truth, val = labels(300), labels(200, 1)
    val[:, 3] = 0
    fit = a_fit(truth, val)
    found = details(Strict(), [fit], truth, val, np.ones(4, bool), list("abcd"), "")
    best = [max((f1_score(val[:, c], fit.val[:, c] >= t), t) for t in fit.val[:, c])[1] for c in range(3)]
    for c, name in enumerate("abc"):
        assert found["by_class"][name]["f1"] == pytest.approx(f1_score(truth[:, c], fit.score[:, c] >= best[c]), abs=1e-6)
    assert found["by_class"]["d"]["f1"] == 0
    assert found["without_threshold"] == ["d"]
    assert "challenge_score" not in found
    usable = np.array([True, True, True, False])
    fewer = details(Strict(), [fit], truth, val, usable, list("abcd"), "")
    assert set(fewer["by_class"]) == {"a", "b", "c"}
    assert fewer["macro_f1"] == pytest.approx(np.mean([found["by_class"][name]["f1"] for name in "abc"]), abs=1e-6)
    both = details(Strict(), [fit, a_fit(truth, val, seed=5)], truth, val, usable, list("abcd"), "")
    alone = details(Strict(), [a_fit(truth, val, seed=5)], truth, val, usable, list("abcd"), "")
    assert both["micro_auc"] == pytest.approx((fewer["micro_auc"] + alone["micro_auc"]) / 2, abs=2e-6)


def test_calibration_reads_probabilities_of_the_protocol() -> None:
    truth, val = labels(4000), labels(50, 1)
    rng = np.random.default_rng(0)
    chance = rng.random((4000, 4))
    drawn = (rng.random((4000, 4)) < chance).astype(np.int8)
    logit = np.log(chance / (1 - chance))
    right = details(Strict(), [Fit(logit, labels(50, 2) - 0.5, {})], drawn, val, np.ones(4, bool), list("abcd"), "")
    assert right["macro_ece"] < 0.03
    bold = details(Strict(), [Fit(9 * logit, labels(50, 2) - 0.5, {})], drawn, val, np.ones(4, bool), list("abcd"), "")
    assert bold["macro_ece"] > 0.15
    shares = details(Melp(), [Fit(chance, labels(50, 2) * 0.5, {})], drawn, val, np.ones(4, bool), list("abcd"), "")
    assert shares["macro_ece"] == pytest.approx(right["macro_ece"], abs=1e-6)
    assert truth.shape == drawn.shape


def test_the_challenge_score_counts_every_class() -> None:
    classes = load_vocabulary("cinc2021").classes
    rng = np.random.default_rng(0)
    truth, val = ((rng.random((n, 26)) < 0.15).astype(np.int8) for n in (80, 60))
    fit = Fit(truth - 0.5 + 0.1 * rng.normal(size=truth.shape), val - 0.5, {})
    usable = np.zeros(26, bool)
    usable[:3] = True
    found = details(Strict(), [fit], truth, val, usable, classes, "cinc2021")
    thresholds = np.array([0.5] * 26)
    expected = challenge_score(truth, fit.score >= thresholds, challenge_weights(), classes.index("NSR"))
    assert found["challenge_score"] == pytest.approx(expected, abs=1e-6)


def test_subgroups_count_their_own_classes() -> None:
    truth = labels(120)
    truth[:40, 3] = 0
    fit = a_fit(truth, truth)
    weights = resample_weights(np.arange(120), 50)
    names = np.array(["b"] * 40 + ["a"] * 60 + [""] * 20)
    found = by_subgroup([fit], truth, weights, np.ones(4, bool), {"ward": names, "unknown": np.array([""] * 120)}, list("wxyz"))
    assert list(found) == ["ward"]
    assert list(found["ward"]) == ["a", "b", "not known"]
    b = found["ward"]["b"]
    assert (b["n"], b["classes"], b["left_out"]) == (40, 3, ["z"])
    assert b["macro_auc"] == pytest.approx(macro(auroc(truth[:40, :3], fit.score[:40, :3])), abs=1e-6)
    assert b["ci95"][0] <= b["macro_auc"] <= b["ci95"][1]
