"""The ECG encoder: convolutional tokeniser, convolutional positions, a transformer over [CLS] and the kept tokens.

B batch, S samples, C channels, T tokens, K kept tokens, W width, P numbers of a token's patch. Masks: True = hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmelt.models.layers import PostNormLayer, init_weights, sinusoids, take
from cmelt.models.ops import conv_at, dropout, layerwise
from cmelt.record import LEADS

if TYPE_CHECKING:
    from cmelt.models.cmelt import ModelConfig

Layers = Sequence[tuple[int, int, int]]
"""Channels, kernel and stride of convolutions."""


def token_count(samples: int, conv_layers: Layers) -> int:
    """Return how many tokens T the convolutions make of `samples`."""
    for _, kernel, stride in conv_layers:
        samples = (samples - kernel) // stride + 1
    return max(samples, 0)


def token_samples(conv_layers: Layers) -> int:
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
    """A wav2vec-2.0-like encoder of 12-lead ECGs; see `tokens` and `encode`. A token stands for a stretch of time in all leads.

    Another kind of encoder is a class made from this one, and a line in ECG_ENCODERS.
    """

    any_leads = False
    """Whether an ECG that lacks leads is a whole input; if not, they are zeros."""

    def __init__(self, config: ModelConfig, together: int = len(LEADS)) -> None:
        """Make an encoder of the sizes in `config`, each of whose tokens stands for `together` leads."""
        super().__init__()
        self.conv_layers, self.together = self.tokeniser(config), together
        width, channels = config.ecg_width, [together, *(c for c, _, _ in self.conv_layers)]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride, bias=False)
            for before, (after, kernel, stride) in zip(channels, self.conv_layers, strict=False)
        )
        self.conv_norm = nn.GroupNorm(channels[1], channels[1]) if config.conv_norm == "group" else nn.Identity()
        self.input_norm = nn.LayerNorm(channels[-1]) if config.input_norm == "layer" else nn.Identity()
        self.project = nn.Linear(channels[-1], width)
        self.rate = config.ecg_dropout
        self.position = self.positions(config)
        self.cls = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(width)
        self.again = False
        self.layers = nn.ModuleList(
            PostNormLayer(width, config.ecg_heads, config.ecg_ffn, config.ecg_dropout, config.ecg_attention_dropout, 1e-5)
            for _ in range(config.ecg_layers)
        )
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]
        init_weights(self.project, width)
        init_weights(self.layers, width)

    def tokeniser(self, config: ModelConfig) -> Layers:
        """Return the convolutions that make tokens."""
        return config.conv_layers

    def positions(self, config: ModelConfig) -> nn.Module:
        """Return what makes positions (B, K, W) of tokens (B, T, W), at places (B, K) or all."""
        return PositionConv(config.ecg_width, config.position_kernel, config.position_groups)

    @property
    def token_samples(self) -> int:
        """Return how many samples of a lead a token stands for."""
        return token_samples(self.conv_layers)

    def frames(self, samples: int) -> int:
        """Return how many tokens there are along the time of `samples`."""
        return token_count(samples, self.conv_layers)

    def count(self, samples: int) -> int:
        """Return T, the number of tokens of an ECG of `samples`."""
        return self.frames(samples)

    def present(self, ecg: Tensor) -> Tensor | None:
        """Return which tokens of `ecg` (B, 12, S) there are, (B, T) bool; None = all."""
        return None

    def patches(self, window: Tensor) -> Tensor:
        """Return what the tokens stand for, (B, T, P), of `window` (B, 12, S) with S a multiple of `token_samples`: lead-major inside."""
        return window.unflatten(-1, (-1, self.token_samples)).transpose(1, 2).flatten(2)  # (B, 12, T, p) → (B, T, 12 p)

    def unpatched(self, patches: Tensor) -> Tensor:
        """Return patches (B, T, P) as a window (B, 12, S): `patches` undone."""
        return patches.unflatten(-1, (len(LEADS), -1)).transpose(1, 2).flatten(2)

    def codes(self, count: int, width: int, device: torch.device | None = None) -> Tensor:
        """Return fixed positions (1 + T, width) of [CLS] and `count` = T tokens, for the decoder."""
        return sinusoids(count + 1, width, device)

    def tokens(self, ecg: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, W), positions added, of `ecg` (B, 12, S) in mV, or only those at places `keep` (B, K)."""
        x = self.waves(ecg)  # (B, T, C)
        x = dropout(self.project(self.input_norm(x)), self.rate, self.training)  # (B, T, W)
        return (x if keep is None else take(x, keep)) + self.position(x, keep)

    def waves(self, ecg: Tensor) -> Tensor:
        """Return what the convolutions make of `ecg` (B, 12, S), a row a token: (B, T, C)."""
        x = ecg
        for number, conv in enumerate(self.convs):
            x = conv(x)  # (B, C, ·)
            x = F.gelu(self.conv_norm(x) if number == 0 else x)
        return x.transpose(1, 2)

    def encode(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return [CLS] and the encoded `tokens` (B, K, W): (B, 1 + K, W); nothing reads those that are `hidden` (B, 1 + K)."""
        x = torch.cat([self.cls.to(tokens.dtype).expand(tokens.shape[0], 1, -1), tokens], dim=1)
        x = dropout(self.norm(x), self.rate, self.training)
        for layer in self.layers:
            x = layerwise(layer, self.again, x, hidden)
        return x
