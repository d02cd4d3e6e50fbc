"""The ECG encoder `residual`: convolutions with short cuts make the tokens, as ResNets do in MERL (arXiv 2403.06659).

Its convolutions learn from few records what transformers learn from many (docs/results.md). What is removed is silent before they see
it, so nothing of it reaches the tokens beside it. They see the neighbours of a token, and so where in a beat it stands: there is no
other position. With ``ecg_layers = 0`` they are all there is, and [CLS] holds nothing: pool the mean.
B batch, S samples, C channels, T tokens, K kept tokens, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.models.ecg_encoder import ECGEncoder
from cmelt.models.layers import take
from cmelt.models.ops import dropout

if TYPE_CHECKING:
    from cmelt.models.cmelt import ModelConfig


class Residual(nn.Module):
    """gelu(x + conv(gelu(conv(x)))): the first convolution takes the stride, the second begins at zero; x is carried by what fits it."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv1d(before, after, kernel, stride, kernel // 2)
        self.refine = nn.Conv1d(after, after, kernel, 1, kernel // 2)
        self.carry = nn.Identity() if (before, stride) == (after, 1) else nn.Conv1d(before, after, 1, stride)
        for conv in (self.down, self.carry):
            if isinstance(conv, nn.Conv1d):
                nn.init.kaiming_normal_(conv.weight)
        for start in self.refine.parameters():
            nn.init.zeros_(start)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ⌈S / stride⌉) of `x` (B, C, S)."""
        carried = self.carry(x)
        return F.gelu(carried + self.refine(F.gelu(self.down(x)))[..., : carried.shape[-1]])  # even kernels make one or two too many


class ResidualEncoder(ECGEncoder):
    """An encoder whose first convolution is followed by residual ones, one for each further entry of ``conv_layers``; see ECGEncoder."""

    def __init__(self, config: ModelConfig) -> None:
        """Make an encoder of the sizes in `config`."""
        super().__init__(config)
        channels = [self.together, *(c for c, _, _ in self.conv_layers)]
        sizes = [(before, *layer) for before, layer in zip(channels, self.conv_layers, strict=False)]
        before, after, kernel, stride = sizes[0]
        stem = nn.Conv1d(before, after, kernel, stride, kernel // 2)
        self.convs = nn.ModuleList([stem, *(Residual(*size) for size in sizes[1:])])
        nn.init.kaiming_normal_(stem.weight)

    def positions(self, config: ModelConfig) -> nn.Module:
        """Return nothing that could learn: tokens know their neighbours."""
        return nn.Identity()

    def frames(self, samples: int) -> int:
        """Return how many whole tokens there are along `samples`."""
        return samples // self.token_samples

    def tokens(self, ecg: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, W) of `ecg` (B, 12, S) in mV, or only those at places `keep` (B, K), made of these places alone."""
        count = self.frames(ecg.shape[-1])
        if keep is not None and keep.shape[1] < count:
            seen = torch.zeros(len(ecg), count, dtype=ecg.dtype, device=ecg.device).scatter_(1, keep, 1.0)
            ecg = ecg[..., : count * self.token_samples] * seen.repeat_interleave(self.token_samples, dim=1)[:, None]
        x = dropout(self.project(self.input_norm(self.waves(ecg)[:, :count])), self.rate, self.training)
        return x if keep is None else take(x, keep)
