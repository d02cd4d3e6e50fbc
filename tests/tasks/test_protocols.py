"""The published protocols do what their code did: the same draws, the same optimiser step by step, the epoch that they report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.model_selection import train_test_split

from cmelt.errors import TaskError
from cmelt.metrics import auroc, macro
from cmelt.tasks import melp, merl
from cmelt.tasks.melp import Melp
from cmelt.tasks.merl import Merl
from cmelt.tasks.protocol import PROTOCOLS, Folds, open_protocol
from cmelt.tasks.sgd import epochs

USABLE = np.ones(3, bool)


def problem(n: int = 240, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Folds]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < 0.4).astype(np.int8)
    x = (truth @ rng.normal(size=(3, width)) + rng.normal(size=(n, width))).astype(np.float32)
    rows = np.arange(n)
    return x, truth, Folds(rows[: n // 2], rows[n // 2 : 3 * n // 4], rows[3 * n // 4 :])


def keys_of(n: int, seed: int = 0) -> np.ndarray:
    return np.array([f"{number:05d}" for number in np.random.default_rng(seed).permutation(n)])


@settings(max_examples=40, deadline=None)
@given(st.integers(100, 3000), st.sampled_from([0.01, 0.1, 0.37]))
def test_draws_are_the_published_ones(n: int, fraction: float) -> None:
    keys, truth = keys_of(n), np.zeros((n, 3), np.int8)
    table = pd.DataFrame({"key": np.sort(keys)})
    drawn = Merl().draw(truth, keys, fraction, 7)
    assert keys[drawn].tolist() == train_test_split(table, train_size=fraction, random_state=42)[0]["key"].tolist()
    assert len(drawn) == Merl().draw_size(n, fraction)
    drawn = Melp().draw(truth, keys, fraction, 7)
    assert keys[drawn].tolist() == table.sample(frac=fraction, random_state=42)["key"].tolist()
    assert len(drawn) == Melp().draw_size(n, fraction)
    assert sorted(Merl().draw(truth, keys, 1.0, 0)) == sorted(Melp().draw(truth, keys, 1.0, 0)) == list(range(n))


def by_hand(
    start: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray, order: list[np.ndarray], rates: list[float], decoupled: bool
) -> np.ndarray:
    """Return weights and bias (F + 1, C) after Adam (L2 in the gradient) or AdamW (decay of the weights) on batches `order`."""
    w = np.vstack([start[0].T, start[1]]).astype(float)
    x = np.column_stack([x, np.ones(len(x))])
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step, (rows, rate) in enumerate(zip(order, rates, strict=True), 1):
        slope = x[rows].T @ (expit(x[rows] @ w) - y[rows]) / y[rows].size
        if decoupled:
            w -= rate * 1e-4 * w
        else:
            slope += 1e-4 * w
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        w -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return w


@pytest.mark.parametrize("name", ["merl-2024", "melp-2025"])
def test_the_optimiser_is_the_published_one(name: str) -> None:
    import torch

    x, truth, folds = problem()
    drawn, count = folds.train, 12 if name == "merl-2024" else 100
    optimiser, batch = (merl._adam, 16) if name == "merl-2024" else (melp._adamw, 128)
    *_, (_, found) = epochs(x, truth, folds, drawn, optimiser, batch, count, 5, rate_by_step=name == "merl-2024")

    torch.manual_seed(5)
    layer = torch.nn.Linear(6, 3)
    generator = torch.Generator().manual_seed(5)
    order = [rows.numpy() for _ in range(count) for rows in torch.randperm(len(drawn), generator=generator).split(batch)]
    by_epoch = -(-len(drawn) // batch)
    if name == "merl-2024":  # the schedule moves after each step, and once more after each epoch: 40 of these moves
        rates = [1e-3 if step + step // by_epoch < 40 else 1e-4 for step in range(count * by_epoch)]
        assert 1e-3 in rates
        assert 1e-4 in rates
    else:
        rates = [1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * epoch / 100)) / 2 for epoch in range(count) for _ in range(by_epoch)]
    start = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    w = by_hand(start, x[drawn], truth[drawn], order, rates, decoupled=name == "melp-2025")
    np.testing.assert_allclose(found, np.column_stack([x[folds.test], np.ones(len(folds.test))]) @ w, atol=2e-4)


def test_merl_tells_the_best_test_epoch_and_what_that_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merl, "EPOCHS", 8)
    chosen = set()
    for seed in range(6):
        x, truth, folds = problem(seed=seed)
        x = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32)  # with nothing to learn, AUC wanders
        drawn = folds.train[:24]
        fit = Merl().fit({"embedding": -x, "mean": x}, truth, folds, drawn, USABLE, 42)
        every = [macro(auroc(truth[folds.test], test)) for _, test in epochs(x, truth, folds, drawn, merl._adam, 16, 8, 42, True)]
        assert macro(auroc(truth[folds.test], fit.score)) == pytest.approx(max(every))
        assert fit.told["features"] == "mean"
        assert fit.told["best_epoch"] == int(np.argmax(every)) + 1
        assert fit.told["last_epoch_auc"] == pytest.approx(every[-1], abs=1e-6)
        assert fit.told["best_minus_last"] == pytest.approx(max(every) - every[-1], abs=2e-6)
        chosen.add(fit.told["best_epoch"])
    assert chosen - {1, 8}, "no case in which the best epoch is neither the first nor the last"
    x, truth, folds = problem(seed=1)
    fit = Merl().fit({"mean": x}, truth, folds, folds.train[:40], USABLE, 42)
    turned = truth.copy()
    turned[folds.test] = 1 - truth[folds.test]
    other = Merl().fit({"mean": x}, turned, folds, folds.train[:40], USABLE, 42)
    assert other.told["best_epoch"] != fit.told["best_epoch"], "its choice does depend on the test labels: that is what is wrong with it"


def test_melp_stops_on_validation_and_scores_shares() -> None:
    x, truth, folds = problem(seed=2)
    fit = Melp().fit({"mean": -x, "embedding": x}, truth, folds, folds.train, USABLE, 42)
    assert fit.told["features"] == "embedding"
    assert fit.told["epochs"] == min(100, fit.told["best_epoch"] + melp.PATIENCE)
    np.testing.assert_allclose(fit.score.sum(1), 1)
    np.testing.assert_array_equal(Melp().probability(fit.score), fit.score)
    assert macro(auroc(truth[folds.val], fit.val)) == pytest.approx(fit.told["val_auc"], abs=1e-6)
    turned = truth.copy()
    turned[folds.test] = 1 - truth[folds.test]
    assert (Melp().fit({"embedding": x}, turned, folds, folds.train, USABLE, 42).score == fit.score).all(), "the test fold was read"


def test_a_seed_gives_a_fit_and_the_global_generator_is_left_alone() -> None:
    import torch

    x, truth, folds = problem(60)
    state = torch.get_rng_state()
    one, again, other = (Melp().fit({"x": x}, truth, folds, folds.train, USABLE, seed).score for seed in (42, 42, 43))
    assert torch.equal(torch.get_rng_state(), state)
    assert (one == again).all()
    assert (one != other).any()


def test_protocols_are_found_by_name() -> None:
    assert [open_protocol(name).name for name in PROTOCOLS] == list(PROTOCOLS)
    with pytest.raises(TaskError, match="no protocol 'merl2024'; did you mean 'merl-2024'"):
        open_protocol("merl2024")
