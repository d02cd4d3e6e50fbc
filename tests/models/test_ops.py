"""Operations that keep less give the values and gradients of the plain ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmelt.models.ops import activated_linear, attend, conv_at, draw_stays, dropout, quick_gelu


def gradients(work: Callable[[], Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the value of `work` and its gradients by `leaves`, dropout drawn with a fixed seed."""
    torch.manual_seed(0)
    out = work()
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("activation", [F.gelu, quick_gelu])
def test_activated_linear(activation: Callable[[Tensor], Tensor]) -> None:
    x, weight, bias = leaves((2, 3, 8), (5, 8), (5,))
    mine = gradients(lambda: activated_linear(activation, weight, bias, x), [x, weight, bias])
    want = gradients(lambda: F.linear(activation(x), weight, bias), [x, weight, bias])
    for a, b in zip(mine, want, strict=True):
        torch.testing.assert_close(a, b)


def test_activated_linear_with_a_gate_and_a_mask() -> None:
    x, gate, weight = leaves((4, 8), (4, 8), (5, 8))
    stays = torch.rand(4, 8, generator=torch.Generator().manual_seed(2)) > 0.3

    def inner(x: Tensor, gate: Tensor, stays: Tensor) -> Tensor:
        return F.gelu(x) * gate * stays

    mine = gradients(lambda: activated_linear(inner, weight, None, x, gate, stays), [x, gate, weight])
    want = gradients(lambda: F.linear(inner(x, gate, stays), weight), [x, gate, weight])
    for a, b in zip(mine, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("learnt", [True, False])
def test_attention_with_dropout_is_the_plain_formula(learnt: bool) -> None:
    query, key, value, bias = leaves((2, 2, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4), (1, 2, 5, 7))
    mask = bias if learnt else torch.rand(2, 1, 1, 7, generator=torch.Generator().manual_seed(3)) > 0.3
    wanted = [query, key, value, *([bias] if learnt else [])]
    mine = gradients(lambda: attend(query, key, value, mask, 0.4), wanted)

    def plain() -> Tensor:
        stays = draw_stays((2, 2, 5, 7), 0.4, query.device)
        scores = query @ key.transpose(-1, -2) / 2
        scores = scores + bias if learnt else scores + torch.where(mask, 0.0, -1e30)
        return (scores.softmax(-1) * stays / 0.6) @ value

    want = gradients(plain, wanted)
    for a, b in zip(mine, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kernel", "taps"), [(8, 3), (5, 16)])
def test_a_convolution_at_some_places_is_the_whole_one_there(kernel: int, taps: int) -> None:
    x, weight = leaves((3, 20, 6), (6, 3, kernel))
    at = torch.rand(3, 20, generator=torch.Generator().manual_seed(4)).argsort(1)[:, :7]  # in no order, the first and last places too

    def whole() -> Tensor:
        out = F.conv1d(x.transpose(1, 2), weight, padding=kernel // 2, groups=2).transpose(1, 2)
        return out.gather(1, at[:, :, None].expand(-1, -1, 6))

    mine, want = gradients(lambda: conv_at(x, weight, at, 2, taps), [x, weight]), gradients(whole, [x, weight])
    for a, b in zip(mine, want, strict=True):
        torch.testing.assert_close(a, b)


def test_what_stays_is_drawn_independently_at_its_rate() -> None:
    torch.manual_seed(0)
    stays = draw_stays((1000, 1003), 0.1, torch.device("cpu")).float()
    assert float(stays.mean()) == pytest.approx(0.9, abs=0.001)
    centred = stays.flatten() - 0.9
    for lag in (1, 2, 3, 4, 1003):  # neighbours share a draw of 64 bits, not their fate
        assert abs(float((centred[lag:] * centred[:-lag]).mean())) < 4 * 0.09 / 1000


def test_dropout_has_its_rate_and_scale() -> None:
    x = torch.ones(100_000, requires_grad=True)
    y = dropout(x, 0.1, True)
    assert float((y == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(y.detach().max()) == pytest.approx(1 / 0.9)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # type: ignore[arg-type]
    assert dropout(x, 0.1, False) is x


def test_less_is_kept() -> None:
    x, weight = torch.randn(64, 256, requires_grad=True), torch.randn(32, 256, requires_grad=True)

    def kept(work: Callable[[], Tensor]) -> int:
        seen: dict[int, int] = {}
        storages = {p.untyped_storage().data_ptr() for p in (weight,)}

        def pack(t: Tensor) -> Tensor:
            if t.untyped_storage().data_ptr() not in storages:
                seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = work()
        del out
        return sum(seen.values())

    assert kept(lambda: activated_linear(F.gelu, weight, None, x)) <= 0.51 * kept(lambda: F.linear(F.gelu(x), weight))
    assert kept(lambda: dropout(x, 0.1, True)) <= 0.3 * kept(lambda: F.dropout(x, 0.1))


def test_attention_under_bf16_on_a_cpu_is_that_of_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = [torch.randn(2, 3, 9, 8, generator=generator).bfloat16() for _ in range(3)]
    mask = torch.rand(2, 1, 1, 9, generator=generator) > 0.3
    for how in (mask, torch.where(mask, 0.0, -1e4).bfloat16(), None):
        narrow = [x.clone().requires_grad_() for x in wide]
        full = [x.float().requires_grad_() for x in wide]
        with torch.autocast("cpu", torch.bfloat16):
            found = attend(narrow[0], narrow[1], narrow[2], how, 0.0)
        assert found.dtype == torch.bfloat16
        expected = attend(full[0], full[1], full[2], how if how is None or how.dtype == torch.bool else how.float(), 0.0)
        assert torch.equal(found, expected.bfloat16())
        found.float().sum().backward()
        expected.sum().backward()
        for mine, theirs in zip(narrow, full, strict=True):
            assert mine.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(mine.grad.float(), theirs.grad, rtol=0.02, atol=0.02)
