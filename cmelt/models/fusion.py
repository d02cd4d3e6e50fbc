"""Fusion of text and ECG: pairs of layers, each reading the other modality's input to the same pair.

B batch, L text tokens, K ECG tokens with [CLS], D width. Masks: True = hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from cmelt.models.layers import PostNormLayer, init_weights
from cmelt.models.ops import layerwise

EPS = 1e-12


class Fusion(nn.Module):
    """Pairs of post-norm layers with cross-attention (METER's co-attention, arXiv 2111.02387)."""

    def __init__(self, width: int, heads: int, pairs: int, dropout: float) -> None:
        super().__init__()
        self.again = False
        self.modality = nn.Embedding(2, width)  # 0 text, 1 ECG
        self.text, self.ecg = (
            nn.ModuleList(PostNormLayer(width, heads, 4 * width, dropout, dropout, EPS, cross=True) for _ in range(pairs)) for _ in range(2)
        )
        init_weights(self, width)

    def forward(
        self,
        text: Tensor,
        ecg: Tensor,
        padding: Tensor,
        text_at: Tensor | None,
        ecg_at: Tensor | None,
        mem_layer: int,
        pairs: int,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the first `pairs` pairs over `text` (B, L, D), with its `padding` (B, L), and `ecg` (B, K, D), some of it `hidden` (B, K).

        Returns the outputs of both and the ECG tokens entering pair `mem_layer` (-1: the ECG output). The last pair computes
        only the places `text_at` (B, Q) and `ecg_at` (B, Q) that are read later; None = all.
        """
        text, ecg = text + self.modality.weight[0], ecg + self.modality.weight[1]
        mem = ecg
        for number in range(pairs):
            if number == mem_layer:
                mem = ecg
            last = number == pairs - 1
            text, ecg = (
                layerwise(self.text[number], self.again, text, padding, ecg, hidden, text_at if last else None),
                layerwise(self.ecg[number], self.again, ecg, hidden, text, padding, ecg_at if last else None),
            )
        return text, ecg, mem if 0 <= mem_layer < pairs else ecg
