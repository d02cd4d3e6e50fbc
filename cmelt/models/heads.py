"""The heads that the losses read: masked text, masked ECG, entity queries, and the learnt scale of the contrast.

B batch, T ECG tokens, K kept tokens, R removed tokens, W decoder width, D width, V vocabulary, P samples of a token, E findings.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.models.layers import Attention, init_weights, take
from cmelt.models.ops import activated_linear, quick_gelu


def mean_token(tokens: Tensor, hidden: Tensor | None) -> Tensor:
    """Return the mean (B, W) of `tokens` (B, 1 + K, W) without [CLS], over those not `hidden` (B, 1 + K); 0 where all are."""
    if hidden is None:
        return tokens[:, 1:].mean(dim=1)
    seen = (~hidden[:, 1:]).to(tokens.dtype)[:, :, None]
    return (tokens[:, 1:] * seen).sum(dim=1) / seen.sum(dim=1).clamp(min=1)


class Pooler(nn.Module):
    """Linear and tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        init_weights(self, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled embedding of `x` (B, D)."""
        return torch.tanh(self.dense(x))


class MLMHead(nn.Module):
    """From fused text tokens to vocabulary logits."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.decoder = nn.Linear(width, vocab_size)
        init_weights(self, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, V) of tokens `x` (N, D)."""
        return self.decoder(self.norm(F.gelu(self.dense(x))))


class DecoderBlock(nn.Module):
    """A pre-norm transformer block with CLIP's quick GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, 4 * width)
        self.ffn_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the block's output for `x` (B, T, W): all tokens, or only those at places `at` (B, R)."""
        y = self.attention_norm(x)
        if at is None:
            x = x + self.attention(y)
        else:
            x = take(x, at) + self.attention(take(y, at), y)
        return x + activated_linear(quick_gelu, self.ffn_out.weight, self.ffn_out.bias, self.ffn_in(self.ffn_norm(x)))


class MEMDecoder(nn.Module):
    """Rebuilds the samples of removed ECG tokens from the kept ones (a masked auto-encoder's decoder)."""

    def __init__(self, width: int, decoder_width: int, blocks: int, heads: int, patch: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder_width) * 0.02)
        self.blocks = nn.ModuleList(DecoderBlock(decoder_width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(decoder_width)
        self.predict = nn.Linear(decoder_width, patch)
        init_weights(self, decoder_width)

    def forward(self, tokens: Tensor, keep: Tensor, codes: Tensor, at: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return predicted samples (B, R, P) of the tokens at places `at` (B, R).

        `tokens` (B, 1 + K, D) are [CLS] and the kept tokens, which stand at places `keep` (B, K) of T, but where `hidden` (B, 1 + K).
        `codes` (1 + T, W) tell the places of [CLS] and of every token.
        """
        x = self.embed(tokens)  # (B, 1 + K, W)
        if hidden is not None:
            x = torch.where(hidden[:, :, None], self.mask_token.to(x.dtype), x)
        places = torch.cat([keep.new_zeros(len(keep), 1), keep + 1], dim=1)[:, :, None].expand_as(x)
        full = self.mask_token.to(x.dtype).expand(len(x), len(codes), -1).scatter(1, places, x)  # (B, 1 + T, W)
        full = full + codes.to(full.dtype)
        *first, last = self.blocks
        for block in first:
            full = block(full)
        return self.predict(self.norm(last(full, at + 1)))


class EntityHead(nn.Module):
    """A learnt query for each finding, which reads the ECG tokens, and a logit of what it read (K-MERL, arXiv 2502.17900).

    Read by ``heads`` that is attention with heads and a norm, as K-MERL has it; by ``direct`` the tokens themselves are weighed and their
    mean is scored; by ``mean`` nothing is asked: the mean of all tokens but [CLS] is scored, which is what a linear probe reads.
    """

    def __init__(self, width: int, heads: int, count: int, read: str = "heads") -> None:
        super().__init__()
        self.read = read
        if read != "mean":
            self.queries = nn.Embedding(count, width)
        if read == "direct":
            self.key = nn.Linear(width, width)
        elif read == "heads":
            self.cross = Attention(width, heads)
            self.norm = nn.LayerNorm(width)
        self.score = nn.Embedding(count, width)  # each finding has a direction of its own
        self.bias = nn.Parameter(torch.zeros(count))
        init_weights(self, width)

    def forward(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return logits (B, E) of projected tokens (B, 1 + K, D), of which those `hidden` (B, 1 + K) are not there."""
        if self.read == "mean":
            return mean_token(tokens, hidden) @ self.score.weight.T + self.bias
        if self.read == "direct":
            heed = self.key(tokens) @ self.queries.weight.to(tokens.dtype).T  # (B, 1 + K, E)
            if hidden is not None:
                heed = heed.masked_fill(hidden[:, :, None], -torch.inf)
            read = heed.softmax(dim=1).mT @ tokens
        else:
            queries = self.queries.weight.to(tokens.dtype).expand(len(tokens), -1, -1)  # (B, E, D)
            read = self.norm(queries + self.cross(queries, tokens, hidden))
        return (read * self.score.weight).sum(dim=-1) + self.bias

    @torch.no_grad()
    def expect(self, share: Tensor) -> None:
        """Begin with the share (E,) of reports that state each finding, so that the first steps are not spent on how rare they are."""
        self.bias.copy_(torch.logit(share, eps=1e-3))


class Contrast(nn.Module):
    """The learnt temperature (as the log of a scale) and bias of the normalised contrastive forms (SigLIP's initial values)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))
