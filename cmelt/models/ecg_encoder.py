"""The ECG encoder: convolutional tokeniser, convolutional positions, a transformer over [CLS] and the kept tokens.

B batch, S samples, C channels, T tokens, K kept tokens, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.config import ModelSettings
from cmelt.models.layers import PostNormLayer, init_weights, take
from cmelt.models.ops import conv_at, dropout, layerwise


def token_count(samples: int, conv_layers: Sequence[tuple[int, int, int]]) -> int:
    """Return how many tokens T the convolutions make of `samples`."""
    for _, kernel, stride in conv_layers:
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def token_samples(conv_layers: Sequence[tuple[int, int, int]]) -> int:
    """Return how many samples one token stands for: the product of the strides."""
    return math.prod(stride for _, _, stride in conv_layers)


class PositionConv(nn.Module):
    """Positions from a wide grouped convolution, weight-normalised: w = g · v / ‖v‖, one g and norm per kernel place (wav2vec 2.0)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.v = nn.Parameter(torch.randn(width, width // groups, kernel) * math.sqrt(4 / (kernel * width)))
        self.g = nn.Parameter(self.v.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the positions (B, T, W) of tokens `x` (B, T, W), or (B, Q, W) of those at places `at` (B, Q) alone."""
        weight = self.v * (self.g / self.v.norm(dim=(0, 1), keepdim=True))
        if at is not None and x.device.type == "cpu" and not torch.compiler.is_compiling():  # its grouped convolutions are slow
            if torch.is_autocast_enabled("cpu"):
                x, weight = x.to(torch.get_autocast_dtype("cpu")), weight.to(torch.get_autocast_dtype("cpu"))
            return F.gelu(conv_at(x, weight, at, self.groups) + self.bias.to(x.dtype))
        out = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=weight.shape[-1] // 2, groups=self.groups).transpose(1, 2)
        return F.gelu(out[:, : x.shape[1]] if at is None else take(out, at))  # an even kernel makes one frame too many: the last goes


class ECGEncoder(nn.Module):
    """A wav2vec-2.0-like encoder of 12-lead ECGs; see `tokens` and `encode`."""

    def __init__(self, settings: ModelSettings, leads: int = 12) -> None:
        super().__init__()
        width, channels = settings.ecg_width, [leads, *(c for c, _, _ in settings.conv_layers)]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride, bias=False)
            for before, (after, kernel, stride) in zip(channels, settings.conv_layers, strict=False)
        )
        self.conv_norm = nn.GroupNorm(channels[1], channels[1]) if settings.conv_norm == "group" else nn.Identity()
        self.input_norm = nn.LayerNorm(channels[-1]) if settings.input_norm == "layer" else nn.Identity()
        self.project = nn.Linear(channels[-1], width)
        self.rate = settings.ecg_dropout
        self.position = PositionConv(width, settings.position_kernel, settings.position_groups)
        self.cls = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.again = False
        self.layers = nn.ModuleList(
            PostNormLayer(width, settings.ecg_heads, settings.ecg_ffn, settings.ecg_dropout, settings.ecg_attention_dropout, 1e-5)
            for _ in range(settings.ecg_layers)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]
        init_weights(self.project, width)
        init_weights(self.layers, width)

    def tokens(self, ecg: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, W), positions added, of `ecg` (B, 12, S) in mV, or only those at places `keep` (B, K)."""
        x = ecg
        for number, conv in enumerate(self.convs):
            x = conv(x)  # (B, C, ·)
            x = F.gelu(self.conv_norm(x) if number == 0 else x)
        x = dropout(self.project(self.input_norm(x.transpose(1, 2))), self.rate, self.training)  # (B, T, W)
        return (x if keep is None else take(x, keep)) + self.position(x, keep)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return [CLS] and the encoded `tokens` (B, K, W): (B, 1 + K, W)."""
        x = torch.cat([self.cls.to(tokens.dtype).expand(tokens.shape[0], 1, -1), tokens], dim=1)
        x = dropout(self.norm(x), self.rate, self.training)
        for layer in self.layers:
            x = layerwise(layer, self.again, x)
        return x
