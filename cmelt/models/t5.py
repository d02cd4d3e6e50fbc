"""T5's encoder (arXiv 1910.10683), parameter names and all, without what C-MELT never uses; see text_encoder for other kinds.

B batch, L tokens, H heads, d_kv, d_model, d_ff as in T5's config. Padding: True = hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.models.ops import Activation, activated_linear, attend, draw_stays, dropout, dropped, layerwise, quick_gelu

DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "relu",
}
"""The sizes of a T5 config and the values that they have when unsaid."""

ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "silu": F.silu,
    "swish": F.silu,
}


def activation_name(sizes: Mapping[str, Any]) -> str:
    """Return the name of the feed-forward activation that a T5 config means; plain ``gated-gelu`` is T5's own approximation."""
    name = sizes["feed_forward_proj"]
    return "gelu_new" if name == "gated-gelu" else str(name.removeprefix("gated-"))


class T5SelfAttention(nn.Module):
    """Attention without biases and without division by √d; its scores get a learnt bias by distance, which block 0 holds."""

    def __init__(self, sizes: Mapping[str, Any], has_bias: bool) -> None:
        super().__init__()
        inner = sizes["num_heads"] * sizes["d_kv"]
        self.heads, self.rate = sizes["num_heads"], sizes["dropout_rate"]
        self.q, self.k, self.v = (nn.Linear(sizes["d_model"], inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, sizes["d_model"], bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(sizes["relative_attention_num_buckets"], self.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return what tokens `x` (B, L, d_model) read of one another; `bias` (B or 1, H, L, L) is added to the scores."""
        query, key, value = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        out = attend(query, key, value, bias.to(query.dtype), self.rate if self.training else 0.0, scale=1.0)
        return self.o(out.transpose(1, 2).flatten(2))


class T5FeedForward(nn.Module):
    """Two linear maps and an activation, gated or not."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = sizes["d_model"], sizes["d_ff"]
        self.rate, self.gated = sizes["dropout_rate"], str(sizes["feed_forward_proj"]).startswith("gated-")
        self.activation = ACTIVATIONS[activation_name(sizes)]
        if self.gated:
            self.wi_0, self.wi_1 = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        else:
            self.wi = nn.Linear(width, inner, bias=False)
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for `x` (B, L, d_model)."""
        inputs: list[Tensor] = [self.wi_0(x), self.wi_1(x)] if self.gated else [self.wi(x)]
        if self.training and self.rate:
            inputs.append(draw_stays(inputs[0].shape, self.rate, inputs[0].device))
        return activated_linear(self._inner, self.wo.weight, None, *inputs)

    def _inner(self, x: Tensor, *others: Tensor) -> Tensor:
        """Return the activation of `x`, times its gate, with dropout where a mask of what stays comes last."""
        x = self.activation(x)
        for other in others:
            x = x * other if other.is_floating_point() else dropped(x, other, self.rate)
        return x


class T5Layer(nn.Module):
    """One of a block's two sub-layers: x + dropout(f(norm(x))); attribute names are T5's."""

    def __init__(self, sizes: Mapping[str, Any], name: str, inner: nn.Module) -> None:
        super().__init__()
        self.name, self.rate = name, sizes["dropout_rate"]
        self.add_module(name, inner)
        self.layer_norm = nn.RMSNorm(sizes["d_model"], sizes["layer_norm_epsilon"])

    def forward(self, x: Tensor, *arguments: Tensor) -> Tensor:
        """Return the sub-layer's output (B, L, d_model)."""
        return x + dropout(getattr(self, self.name)(self.layer_norm(x), *arguments), self.rate, self.training)


class T5Block(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, sizes: Mapping[str, Any], has_bias: bool) -> None:
        super().__init__()
        attention = T5Layer(sizes, "SelfAttention", T5SelfAttention(sizes, has_bias))
        self.layer = nn.ModuleList([attention, T5Layer(sizes, "DenseReluDense", T5FeedForward(sizes))])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the block's output (B, L, d_model)."""
        return self.layer[1](self.layer[0](x, bias))


class T5Encoder(nn.Module):
    """Token ids in, hidden states out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make an encoder of the sizes in `config` (T5's keys; those unsaid as in DEFAULTS), with T5's random weights."""
        super().__init__()
        sizes = self.sizes = DEFAULTS | {key: value for key, value in config.items() if key in DEFAULTS}
        self.rate, self.again = sizes["dropout_rate"], False
        self.embed_tokens = nn.Embedding(sizes["vocab_size"], sizes["d_model"])
        self.block = nn.ModuleList(T5Block(sizes, number == 0) for number in range(sizes["num_layers"]))
        self.final_layer_norm = nn.RMSNorm(sizes["d_model"], sizes["layer_norm_epsilon"])
        self._init_weights()

    def _init_weights(self) -> None:
        """Draw T5's random weights: attention is not scaled, so its queries are small instead."""
        sizes, factor = self.sizes, self.sizes["initializer_factor"]
        d_model, d_kv, d_ff, inner = sizes["d_model"], sizes["d_kv"], sizes["d_ff"], sizes["num_heads"] * sizes["d_kv"]
        std = {"embed_tokens": 1.0, "q": (d_model * d_kv) ** -0.5, "o": inner**-0.5, "wo": d_ff**-0.5}
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0.0, factor * std.get(name.split(".")[-2], d_model**-0.5))

    def position_bias(self, length: int) -> Tensor:
        """Return the bias (1, H, L, L) of a query's place by a key's: exact near by, on a logarithmic scale farther off."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias  # type: ignore[union-attr, index]
        half, far = table.num_embeddings // 2, self.sizes["relative_attention_max_distance"]
        near = half // 2
        place = torch.arange(length, device=table.weight.device)
        offset = place[None, :] - place[:, None]
        distance = offset.abs()
        log = near + (torch.log(distance.float().clamp(min=1) / near) / math.log(far / near) * (half - near)).long()
        bucket = (offset > 0).long() * half + torch.where(distance < near, distance, log.clamp(max=half - 1))
        bias: Tensor = table(bucket)
        return bias.permute(2, 0, 1)[None]

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Return hidden states (B, L, d_model) of `ids` (B, L) with `padding` (B, L)."""
        bias = self.position_bias(ids.shape[1])
        bias = bias.masked_fill(padding[:, None, None, :], torch.finfo(bias.dtype).min)  # (B, H, L, L)
        x = dropout(self.embed_tokens(ids), self.rate, self.training)
        for block in self.block:
            x = layerwise(block, self.again, x, bias)
        return dropout(self.final_layer_norm(x), self.rate, self.training)
