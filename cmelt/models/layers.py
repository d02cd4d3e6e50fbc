"""The building blocks that the encoders, the fusion and the decoder share: attention, and a post-norm layer.

B batch, Q queries, K keys, W width, H heads. Masks: True = hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.models.ops import activated_linear, attend, dropout


class Attention(nn.Module):
    """Multi-head attention with biases; one weight holds the projections to query, key and value (rows in that order)."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        """Return what the queries `x` (B, Q, W) read from `memory` (B, K, W), or from `x`; `padding` (B, K) hides keys."""
        width = x.shape[-1]
        if memory is None:
            query, key, value = self.in_proj(x).chunk(3, dim=-1)
        else:
            weights, biases = self.in_proj.weight.split([width, 2 * width]), self.in_proj.bias.split([width, 2 * width])
            query = F.linear(x, weights[0], biases[0])
            key, value = F.linear(memory, weights[1], biases[1]).chunk(2, dim=-1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))  # (B, H, ·, W / H)
        visible = None if padding is None else ~padding[:, None, None, :]  # PyTorch's mask is True = seen
        out = attend(query, key, value, visible, self.dropout if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class PostNormLayer(nn.Module):
    """A transformer layer whose sub-blocks are LayerNorm(x + dropout(f(x))): self-attention, cross-attention if asked, feed-forward."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, attention_dropout: float, eps: float, cross: bool = False) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps)
        if cross:
            self.cross = Attention(width, heads, attention_dropout)
            self.cross_norm = nn.LayerNorm(width, eps)
        self.ffn_in = nn.Linear(width, ffn)
        self.ffn_out = nn.Linear(ffn, width)
        self.ffn_norm = nn.LayerNorm(width, eps)
        self.rate = dropout

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        memory: Tensor | None = None,
        memory_padding: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output (B, Q, W) for tokens `x` (B, L, W): all of them, or only those at places `at` (B, Q)."""
        if at is None:
            x = self.attention_norm(x + self._drop(self.attention(x, None, padding)))
        else:
            chosen = take(x, at)
            x = self.attention_norm(chosen + self._drop(self.attention(chosen, x, padding)))
        if memory is not None:
            x = self.cross_norm(x + self._drop(self.cross(x, memory, memory_padding)))
        hidden = activated_linear(F.gelu, self.ffn_out.weight, self.ffn_out.bias, self.ffn_in(x))
        return self.ffn_norm(x + self._drop(hidden))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate, self.training)


def take(x: Tensor, at: Tensor) -> Tensor:
    """Return the tokens of `x` (B, L, W) at places `at` (B, Q): (B, Q, W)."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[-1]))


def precise(x: Tensor) -> Tensor:
    """Return `x` in float32 where it is coarser (under autocast): what a loss is computed in."""
    return x if x.dtype == torch.float64 else x.float()


def init_weights(module: nn.Module, width: int) -> None:
    """Draw linear and embedding weights from a normal law of standard deviation 0.02 at width 768 (BERT's), wider for smaller nets."""
    std = 0.02 * (768 / width) ** 0.5
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return fixed positions (length, width): even columns sine, odd columns cosine, base 10000."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-torch.log(torch.tensor(10000.0, device=device)) / width))
    angle = torch.arange(length, device=device)[:, None] * rate  # (length, ceil(width / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
