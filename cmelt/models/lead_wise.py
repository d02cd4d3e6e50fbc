"""The ECG encoder `lead-wise`: each lead has tokens of its own, so any set of leads is a whole input (after K-MERL, arXiv 2502.17900).

One tokeniser serves all leads; a token stands for a stretch of time in one lead, and carries a code of both. A lead that is flat has
no tokens: it is neither read nor rebuilt.
B batch, S samples, C channels, t tokens of a lead, T = 12 t tokens (lead-major), K kept tokens, W width, p samples of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cmelt.models.ecg_encoder import ECGEncoder, Layers, token_samples
from cmelt.models.layers import sinusoids
from cmelt.record import LEADS

if TYPE_CHECKING:
    from cmelt.models.cmelt import ModelConfig

FLAT_MV = 5e-4
"""A lead that nowhere leaves zero by more is absent: half of the finest step of any recorder."""

QUIET = 0.02
"""How large positions begin: less than what the tokens of a new model hold, or all ECGs would look alike in the first hundred steps."""


class LeadTime(nn.Module):
    """Where a token stands: a learnt vector for its lead, and fixed waves for its time, whose height is learnt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lead = nn.Embedding(len(LEADS), width)
        nn.init.normal_(self.lead.weight, 0.0, QUIET)
        self.height = nn.Parameter(torch.tensor(QUIET))

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Return the positions (T, W) of tokens `x` (B, T, W), or (B, K, W) of those at places `at` (B, K)."""
        time = self.height * sinusoids(x.shape[1] // len(LEADS), x.shape[2], x.device)
        codes = (self.lead.weight[:, None] + time).flatten(0, 1).to(x.dtype)  # (T, W)
        return codes if at is None else codes[at]


class LeadWiseEncoder(ECGEncoder):
    """An encoder whose tokens stand for stretches of single leads; see ECGEncoder."""

    any_leads = True

    def __init__(self, config: ModelConfig) -> None:
        """Make an encoder of the sizes in `config`."""
        super().__init__(config, together=1)

    def tokeniser(self, config: ModelConfig) -> Layers:
        """Return the convolutions of `config`, and one more, which joins what they make of about ``lead_token_s``."""
        joined = round(config.lead_token_s * config.fs_hz / token_samples(config.conv_layers))
        return (*config.conv_layers, (config.ecg_width, joined, joined)) if joined > 1 else config.conv_layers

    def positions(self, config: ModelConfig) -> nn.Module:
        """Return codes of lead and time: unlike a convolution's they bring nothing of a removed token to its neighbours."""
        return LeadTime(config.ecg_width)

    def count(self, samples: int) -> int:
        """Return T, the number of tokens of twelve leads of `samples`."""
        return len(LEADS) * super().count(samples)

    def present(self, ecg: Tensor) -> Tensor:
        """Return which tokens of `ecg` (B, 12, S) there are, (B, T) bool: those of leads that are not flat."""
        seen = ecg.abs().amax(dim=-1) > FLAT_MV  # (B, 12)
        return seen.repeat_interleave(self.count(ecg.shape[-1]) // len(LEADS), dim=1)

    def patches(self, window: Tensor) -> Tensor:
        """Return what the tokens stand for, (B, T, p), of `window` (B, 12, S) with S a multiple of `token_samples`."""
        return window.unflatten(-1, (-1, self.token_samples)).flatten(1, 2)

    def unpatched(self, patches: Tensor) -> Tensor:
        """Return patches (B, T, p) as a window (B, 12, S): `patches` undone."""
        return patches.unflatten(1, (len(LEADS), -1)).flatten(2)

    def codes(self, count: int, width: int, device: torch.device | None = None) -> Tensor:
        """Return fixed positions (1 + T, width): half of each tells the lead, half the time; [CLS] stands at 0, 0."""
        lead = sinusoids(len(LEADS) + 1, width // 2, device)
        time = sinusoids(count // len(LEADS) + 1, width - width // 2, device)
        grid = torch.cat([lead[1:, None].expand(-1, len(time) - 1, -1), time[None, 1:].expand(len(LEADS), -1, -1)], dim=-1)
        return torch.cat([torch.cat([lead[:1], time[:1]], dim=-1), grid.flatten(0, 1)])

    def waves(self, ecg: Tensor) -> Tensor:
        """Return what the convolutions make of each lead of `ecg` (B, 12, S) by itself: (B, T, C)."""
        x = super().waves(ecg.flatten(0, 1)[:, None])  # (B 12, t, C)
        return x.unflatten(0, (-1, len(LEADS))).flatten(1, 2)
