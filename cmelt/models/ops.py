"""Operations written so that training keeps less: what is cheap to make again is made again in the backward pass.

Under torch.compile they step aside, for the compiler decides the same by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Callable[..., Tensor]


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Return `x` with a share `rate` of its elements zeroed and the rest scaled up; keeps one byte an element, not four."""
    if not training or not rate:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.native_dropout(x, rate, True)[0]
    out: Tensor = _Dropout.apply(x, rate)
    return out


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        stays = draw_stays(x.shape, rate, x.device)
        ctx.rate = rate
        ctx.save_for_backward(stays)
        return dropped(x, stays, rate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (stays,) = ctx.saved_tensors
        return dropped(gradient, stays, ctx.rate), None


def dropped(x: Tensor, stays: Tensor, rate: float) -> Tensor:
    """Return `x` where `stays`, scaled up by what `rate` takes away, and 0 elsewhere."""
    return torch.where(stays, x, 0).div_(1 - rate)


def draw_stays(shape: Sequence[int], rate: float, device: torch.device) -> Tensor:
    """Return a mask of `shape`, True with probability 1 − `rate` (to 1 / 65536).

    Four elements share one 64-bit draw of the generator: PyTorch's own CPU kernels draw, one after the other, for each.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return (bits.view(torch.int16)[:count] >= round(rate * 65536) - 32768).view(*shape)


def layerwise(layer: nn.Module, again: bool, *arguments: Tensor | None) -> Tensor:
    """Return layer(*arguments); with `again` nothing inside is kept, and the layer is computed again in the backward pass."""
    if again and torch.is_grad_enabled():
        out: Tensor = checkpoint(layer, *arguments, use_reentrant=False)
        return out
    return layer(*arguments)


def quick_gelu(x: Tensor) -> Tensor:
    """Return x · sigmoid(1.702 x), CLIP's approximation of GELU."""
    return F.silu(1.702 * x) / 1.702


def activated_linear(activation: Activation, weight: Tensor, bias: Tensor | None, *inputs: Tensor) -> Tensor:
    """Return linear(activation(*inputs)); `inputs` are kept for the backward pass, the activation is not."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.linear(activation(*inputs), weight, bias)
    out: Tensor = _ActivatedLinear.apply(activation, weight, bias, *inputs)
    return out


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: Activation, weight: Tensor, bias: Tensor | None, *inputs: Tensor) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(weight, *inputs)
        return F.linear(activation(*inputs), weight, bias)  # under autocast, as the caller is

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        with torch.enable_grad():
            again = [x.detach().requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)]
            activated = ctx.activation(*again)
        flat = gradient.flatten(0, -2)  # (N, out)
        weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = (flat.T @ activated.detach().flatten(0, -2).to(flat.dtype)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            bias_gradient = flat.sum(0).to(weight.dtype)
        if not any(wanted):
            return None, weight_gradient, bias_gradient, *(None for _ in inputs)
        into = (flat @ weight.to(flat.dtype)).view(activated.shape).to(activated.dtype)
        gradients = iter(torch.autograd.grad(activated, [x for x, want in zip(again, wanted, strict=True) if want], into))
        return None, weight_gradient, bias_gradient, *(next(gradients) if want else None for want in wanted)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scale: float | None = None) -> Tensor:
    """Return scaled_dot_product_attention of (B, H, ·, d) tensors with dropout `rate`; `mask` True = seen, or added to the scores.

    The fused kernels keep no attention weights. The CPU's has no dropout, so with dropout they are made again in the backward pass; and
    its own backward pass takes in bf16 some eight times what it takes in fp32, so there attention stays in fp32.
    """
    if rate and query.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        out: Tensor = _Attend.apply(query, key, value, mask, rate, scale)
        return out
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        with torch.autocast("cpu", enabled=False):
            wide = mask.float() if mask is not None and mask.is_floating_point() else mask
            out = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), wide, rate, scale=scale)
            return out.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, mask, rate, scale=scale)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, stays: Tensor, rate: float, scale: float) -> Tensor:
    """Return attention spelled out; its weights stay where `stays` (B, H, Q, K) says so."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
    return dropped(scores.softmax(dim=-1), stays, rate) @ value


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scale: float) -> Tensor:
        stays = draw_stays((*query.shape[:-1], key.shape[-2]), rate, query.device)
        ctx.rate, ctx.scale = rate, scale
        ctx.save_for_backward(query, key, value, mask, stays)
        return attended(query, key, value, mask, stays, rate, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask, stays = ctx.saved_tensors
        learnt = mask is not None and mask.requires_grad
        with torch.enable_grad():
            again = [x.detach().requires_grad_() for x in inputs]
            query, key, value = again
            bias = mask.detach().requires_grad_() if learnt else mask
            out = attended(query, key, value, bias, stays, ctx.rate, ctx.scale)
        gradients = torch.autograd.grad(out, [*again, bias] if learnt else again, gradient)
        return *gradients[:3], gradients[3] if learnt else None, None, None


def conv_at(x: Tensor, weight: Tensor, at: Tensor, groups: int, taps: int = 16) -> Tensor:
    """Return a convolution of `x` (B, T, W) with `weight` (W, W / groups, K), padded by K // 2, at places `at` (B, Q) only: (B, Q, W).

    A few `taps` of the kernel at a time are gathered and multiplied, so that the windows are never all in memory.
    """
    out: Tensor = _ConvAt.apply(x, weight, at, groups, taps)
    return out


class _ConvAt(torch.autograd.Function):
    # G groups, c channels of a group, N = B Q windows, M rows of the padded batch, k taps at a time.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, at: Tensor, groups: int, taps: int) -> Tensor:
        ctx.save_for_backward(x, weight, at)
        ctx.groups, ctx.taps = groups, taps
        rows, kernel, chunks = _ConvAt.laid_out(x, weight, at, groups, taps)
        out = rows.new_zeros(groups, at.numel(), kernel.shape[-1])
        for start, places in chunks:
            windows = rows.index_select(1, places).view(groups, at.numel(), -1)  # (G, N, k c)
            out.baddbmm_(windows, kernel[:, start : start + taps].flatten(1, 2))
        return out.transpose(0, 1).reshape(*at.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, at = ctx.saved_tensors
        groups, taps = ctx.groups, ctx.taps
        rows, kernel, chunks = _ConvAt.laid_out(x, weight, at, groups, taps)
        gradient = gradient.reshape(at.numel(), groups, -1).transpose(0, 1).contiguous()  # (G, N, c)
        into = torch.zeros_like(rows, dtype=torch.float32 if rows.dtype == torch.bfloat16 else rows.dtype)
        weights = torch.empty_like(kernel)
        for start, places in chunks:
            part = kernel[:, start : start + taps]
            windows = rows.index_select(1, places).view(groups, at.numel(), -1)
            weights[:, start : start + taps] = (windows.transpose(1, 2) @ gradient).view_as(part)
            back = gradient @ part.flatten(1, 2).transpose(1, 2)  # (G, N, k c)
            into.index_add_(1, places, back.view(groups, len(places), -1).to(into.dtype))
        half = weight.shape[-1] // 2
        into = into.unflatten(1, (len(x), -1))[:, :, half : half + x.shape[1]].permute(1, 2, 0, 3)  # (B, T, G, c)
        return into.reshape(x.shape).to(x.dtype), weights.permute(0, 3, 2, 1).reshape(weight.shape), None, None, None

    @staticmethod
    def laid_out(x: Tensor, weight: Tensor, at: Tensor, groups: int, taps: int) -> tuple[Tensor, Tensor, list[tuple[int, Tensor]]]:
        """Return the padded rows (G, M, c), the kernel (G, K, c, c), and for each chunk its first tap and its windows' rows (N k,)."""
        size = weight.shape[-1]
        padded = F.pad(x, (0, 0, size // 2, size - size // 2))  # (B, T + K, W)
        rows = padded.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(1, 2).contiguous()
        kernel = weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1).contiguous()
        first = (at + torch.arange(len(at), device=at.device)[:, None] * padded.shape[1]).flatten()[:, None]  # (N, 1)
        tap = torch.arange(size, device=at.device)
        return rows, kernel, [(start, (first + tap[start : start + taps]).flatten()) for start in range(0, size, taps)]
