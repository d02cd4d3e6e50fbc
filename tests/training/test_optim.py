"""The published schedule and its like, and the average of the weights."""

from __future__ import annotations

import pytest
import torch

from cmelt.config import OptimSettings, TrainSettings
from cmelt.training.optim import adamw, averaged, learning_rate, update_average
from tests.pairs import small_model


def test_the_defaults_are_the_published_ones() -> None:
    optim, train = OptimSettings(), TrainSettings()
    assert (optim.schedule, optim.lr, optim.betas, optim.weight_decay) == ("tri-stage", 5e-5, (0.9, 0.98), 0.01)
    assert (train.steps, train.batch) == (300_000, 128)
    rates = [learning_rate(step, 1000, optim) for step in range(1000)]
    assert rates[0] == pytest.approx(5e-5 / 100)
    assert rates[99:500] == pytest.approx([5e-5] * 401)  # a tenth rises, four tenths hold, half falls
    assert rates[-1] == pytest.approx(5e-7)
    assert rates[750] / rates[749] == pytest.approx(rates[900] / rates[899])  # exponentially


def test_cosine_and_constant() -> None:
    cosine = [learning_rate(step, 100, OptimSettings(schedule="cosine", final=0.0)) for step in range(100)]
    assert max(cosine) == cosine[9] == 5e-5
    assert cosine[99] == pytest.approx(0, abs=1e-12)
    assert cosine[54] == pytest.approx(2.5e-5, rel=0.02)
    constant = OptimSettings(schedule="constant", warmup=0)
    assert {learning_rate(step, 100, constant) for step in range(100)} == {5e-5}


def test_vectors_are_not_decayed() -> None:
    model = small_model()
    decayed, others = adamw(model, OptimSettings()).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert sum(len(group["params"]) for group in (decayed, others)) == sum(p.requires_grad for p in model.parameters())


def test_the_average_follows_the_weights() -> None:
    model = small_model()
    average = averaged(model, 0.9)
    assert average is not None
    assert averaged(model, 0.0) is None
    before = average.etm_head.weight.clone()
    with torch.no_grad():
        model.etm_head.weight += 1
    update_average(average, model, 0.9, 1000)
    torch.testing.assert_close(average.etm_head.weight, before + 0.1)
    update_average(average, model, 0.9, 0)  # early steps are forgotten sooner
    torch.testing.assert_close(average.etm_head.weight, before + 0.1 + 0.9 * 0.9)
    assert not any(p.requires_grad for p in average.parameters())
