"""The encoder `residual`: removed stretches reach no token, every sample has its token, and it stands without a transformer."""

from __future__ import annotations

import pytest
import torch

from cmelt.config import ObjectiveSettings
from cmelt.models.cmelt import CMELT
from cmelt.models.residual import Residual
from cmelt.objectives import total_loss
from cmelt.objectives.masked_ecg import mem_target
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports()


def residual(**changes: object) -> CMELT:
    """Return a small model of tokens of 16 samples, all whose residual convolutions have learnt something."""
    layers = ((8, 9, 2), (8, 5, 2), (16, 5, 4), (16, 4, 1))
    torch.manual_seed(0)
    sizes = {"conv_layers": layers, "ecg_layers": 0, "pool": "mean", "entity_heads": 2}
    model = small_model(reports=REPORTS, ecg_encoder="residual", **{**sizes, **changes}).eval()
    for part in model.modules():
        if isinstance(part, Residual):
            torch.nn.init.normal_(part.refine.weight, 0, 0.3)
    return model


@torch.no_grad()
def test_what_is_removed_reaches_no_token() -> None:
    model, ecg = residual(), torch.randn(3, 12, 160, generator=torch.Generator().manual_seed(0))
    encoder = model.ecg_encoder
    assert model.ecg_token_count() == 10
    keep = torch.tensor([[7, 1, 2, 5]]).expand(3, -1)
    other = ecg.clone()
    for place in {*range(10)} - {1, 2, 5, 7}:
        other[..., place * 16 : (place + 1) * 16] = 9.0
    torch.testing.assert_close(encoder.tokens(ecg, keep), encoder.tokens(other, keep))
    assert (encoder.tokens(ecg, keep) - encoder.tokens(ecg)[:, [7, 1, 2, 5]]).abs().max() > 1e-4, "beside a gap a token is another"
    torch.testing.assert_close(encoder.tokens(ecg, torch.arange(10).expand(3, -1)), encoder.tokens(ecg))


@torch.no_grad()
def test_every_whole_token_is_there_whatever_the_kernels() -> None:
    encoder = residual(conv_norm="none").ecg_encoder
    for samples in (16, 31, 32, 160, 175):
        assert encoder.tokens(torch.randn(2, 12, samples)).shape == (2, samples // 16, 16)
        assert mem_target(encoder, torch.randn(2, 12, samples)).shape == (2, samples // 16, 12 * 16)
    late = torch.zeros(1, 12, 480)
    late[..., 470:] = 1.0
    difference = (encoder.tokens(late) - encoder.tokens(torch.zeros(1, 12, 480))).abs().amax(dim=-1)[0]
    assert difference[29] > 1e-4
    assert difference[:20].max() == 0, "tokens see their neighbours only"


@pytest.mark.parametrize("layers", [0, 1])
def test_all_losses_train_all_of_it(layers: int) -> None:
    model = residual(ecg_layers=layers).train()
    total, parts = total_loss(model, model(batch := small_batch(model, REPORTS, 6)), batch, ObjectiveSettings(entities=1.0))
    assert set(parts) == {"mlm", "mem", "etm", "ets", "entities"}
    total.backward()
    untouched = [name for name, one in model.ecg_encoder.named_parameters() if one.grad is None or not one.grad.abs().sum()]
    assert not untouched


def test_an_unlearnt_block_carries_what_it_is_given() -> None:
    block, x = Residual(4, 4, 5, 1), torch.rand(2, 4, 30) + 3
    torch.testing.assert_close(block(x), torch.nn.functional.gelu(x))
    assert Residual(4, 6, 5, 2)(x).shape == (2, 6, 15)
