"""Operations written so that training keeps less: what is cheap to make again is made again in the backward pass.

Under torch.compile they step aside, for the compiler decides the same by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Activation = Callable[..., Tensor]


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Return `x` with a share `rate` of its elements zeroed and the rest scaled up; keeps one byte an element, not four."""
    return torch.native_dropout(x, rate, True)[0] if training and rate else x


def layerwise(layer: nn.Module, again: bool, *arguments: Tensor | None) -> Tensor:
    """Return layer(*arguments); with `again` nothing inside is kept, and the layer is computed again in the backward pass."""
    if again and torch.is_grad_enabled():
        out: Tensor = checkpoint(layer, *arguments, use_reentrant=False)
        return out
    return layer(*arguments)


def quick_gelu(x: Tensor) -> Tensor:
    """Return x · sigmoid(1.702 x), CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


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

    The fused kernels keep no attention weights. The CPU's has no dropout, so there it is computed again in the backward pass.
    """
    if rate and query.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        out: Tensor = _Attend.apply(query, key, value, mask, rate, scale)
        return out
    return F.scaled_dot_product_attention(query, key, value, mask, rate, scale=scale)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float, scale: float | None) -> Tensor:
        ctx.rate, ctx.scale, ctx.random = rate, scale, torch.get_rng_state()
        ctx.save_for_backward(query, key, value, mask)
        return F.scaled_dot_product_attention(query, key, value, mask, rate, scale=scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mask = ctx.saved_tensors
        learnt = mask is not None and mask.requires_grad
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(ctx.random)
            again = [x.detach().requires_grad_() for x in inputs]
            bias = mask.detach().requires_grad_() if learnt else mask
            query, key, value = again
            out = F.scaled_dot_product_attention(query, key, value, bias, ctx.rate, scale=ctx.scale)
        gradients = torch.autograd.grad(out, [*again, bias] if learnt else again, gradient)
        return *gradients[:3], gradients[3] if learnt else None, None, None
