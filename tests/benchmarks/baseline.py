"""The model written straightforwardly, as the yardstick of speed and a second opinion on every output.

Nothing here is shared with cmelt.models: functions over tensors under the published names; softmax attention spelled out and its
weights kept, logits at every position, every output computed. Letters as in model.md. Masks: True = hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


class Baseline:
    """A published model: `weights` by published name, `config` with published keys, `t5` a T5 config; `train` turns dropout on."""

    def __init__(self, weights: Weights, config: Mapping[str, Any], t5: Mapping[str, Any], patch: int, train: bool = False) -> None:
        self.w, self.c, self.t5, self.patch, self.train = weights, config, t5, patch, train
        self.kept: list[Tensor] = []  # attention weights, which the published code returns

    def drop(self, x: Tensor, rate: float = 0.1) -> Tensor:
        return F.dropout(x, rate, self.train)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, rate: float, hidden: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Return softmax(q kᵀ / √d + bias) v with every matrix made; T5 (with a bias) does not divide by √d."""
        q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2)
        scores = scores / math.sqrt(q.shape[-1]) if bias is None else scores + bias
        if hidden is not None:
            scores = scores.masked_fill(hidden[:, None, None, :], torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=-1)
        self.kept.append(weights)
        return (self.drop(weights, rate) @ v).transpose(1, 2).flatten(2)

    def ecg_tokens(self, ecg: Tensor) -> Tensor:
        x, number = ecg, 0
        while (name := f"ecg_encoder.feature_extractor.conv_layers.{number}.0.weight") in self.w:
            x = F.conv1d(x, self.w[name], stride=self.c["strides"][number])
            if number == 0:
                prefix = "ecg_encoder.feature_extractor.conv_layers.0.2"
                x = F.group_norm(x, x.shape[1], self.w[f"{prefix}.weight"], self.w[f"{prefix}.bias"])
            x, number = F.gelu(x), number + 1
        x = self.drop(self.linear(self.norm(x.transpose(1, 2), "ecg_encoder.layer_norm"), "ecg_encoder.post_extract_proj"))
        v, g = (self.w[f"ecg_encoder.conv_pos.pos_conv.0.weight_{part}"] for part in "vg")
        weight = g * v / v.pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
        bias, kernel = self.w["ecg_encoder.conv_pos.pos_conv.0.bias"], v.shape[-1]
        position = F.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2, groups=self.c["conv_pos_groups"])
        return x + F.gelu(position[:, :, : -1 if kernel % 2 == 0 else None]).transpose(1, 2)

    def ecg_encoded(self, tokens: Tensor) -> Tensor:
        cls = self.w["class_embedding"].expand(len(tokens), 1, -1)
        x = self.drop(self.norm(torch.cat([cls, tokens], 1), "ecg_encoder.encoder.layer_norm"))
        for number in range(self.c["encoder_layers"]):
            p = f"ecg_encoder.encoder.layers.{number}"
            q, k, v = (self.linear(x, f"{p}.self_attn.{part}_proj") for part in "qkv")
            y = self.linear(self.attend(q, k, v, self.c["encoder_attention_heads"], 0.1), f"{p}.self_attn.out_proj")
            x = self.norm(x + self.drop(y), f"{p}.self_attn_layer_norm")
            y = self.linear(F.gelu(self.linear(x, f"{p}.fc1")), f"{p}.fc2")
            x = self.norm(x + self.drop(y), f"{p}.final_layer_norm")
        return x

    def text_encoded(self, ids: Tensor, hidden: Tensor) -> Tensor:
        p = "language_encoder.encoder"
        rms = lambda x, name: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.w[f"{name}.weight"]  # noqa: E731
        gated = self.t5["feed_forward_proj"] == "gated-gelu"
        act = gelu_new if gated else F.relu
        x = self.drop(F.embedding(ids, self.w["language_encoder.shared.weight"]))
        bias = self.t5_bias(ids.shape[1])
        for number in range(self.t5["num_layers"]):
            attention, ff = f"{p}.block.{number}.layer.0", f"{p}.block.{number}.layer.1"
            y = rms(x, f"{attention}.layer_norm")
            q, k, v = (self.linear(y, f"{attention}.SelfAttention.{part}") for part in "qkv")
            y = self.linear(self.attend(q, k, v, self.t5["num_heads"], 0.1, hidden, bias), f"{attention}.SelfAttention.o")
            x = x + self.drop(y)
            y = rms(x, f"{ff}.layer_norm")
            if gated:
                y = act(self.linear(y, f"{ff}.DenseReluDense.wi_0")) * self.linear(y, f"{ff}.DenseReluDense.wi_1")
            else:
                y = act(self.linear(y, f"{ff}.DenseReluDense.wi"))
            x = x + self.drop(self.linear(self.drop(y), f"{ff}.DenseReluDense.wo"))
        return self.drop(rms(x, f"{p}.final_layer_norm"))

    def t5_bias(self, length: int) -> Tensor:
        """Return T5's relative position bias (1, H, L, L) (arXiv 1910.10683): exact near by, logarithmic further off."""
        table = self.w["language_encoder.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        half, far = len(table) // 2, self.t5.get("relative_attention_max_distance", 128)
        place = torch.arange(length, device=table.device)
        offset = place[None, :] - place[:, None]
        near = half // 2
        log = near + (torch.log(offset.abs().clamp(min=1) / near) / math.log(far / near) * (half - near)).long()
        bucket = (offset > 0).long() * half + torch.where(offset.abs() < near, offset.abs(), log.clamp(max=half - 1))
        return F.embedding(bucket, table).permute(2, 0, 1)[None]

    def pool(self, x: Tensor, name: str) -> Tensor:
        return torch.tanh(self.linear(x[:, 0], f"{name}_pooler.dense"))

    def fusion_layer(self, x: Tensor, other: Tensor, p: str, hidden: Tensor | None, other_hidden: Tensor | None) -> Tensor:
        for part, memory, mask in (("attention", None, hidden), ("crossattention", other, other_hidden)):
            source = x if memory is None else memory
            q = self.linear(x, f"{p}.{part}.self.query")
            k, v = (self.linear(source, f"{p}.{part}.self.{name}") for name in ("key", "value"))
            y = self.linear(self.attend(q, k, v, self.c["num_heads"], 0.1, mask), f"{p}.{part}.output.dense")
            x = self.norm(x + self.drop(y), f"{p}.{part}.output.LayerNorm", 1e-12)
        y = self.linear(F.gelu(self.linear(x, f"{p}.intermediate.dense")), f"{p}.output.dense")
        return self.norm(x + self.drop(y), f"{p}.output.LayerNorm", 1e-12)

    def __call__(self, ecg: Tensor, ids: Tensor, hidden: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        """Return every output of the masked pass, or of the unmasked one where `noise` is None."""
        out: dict[str, Tensor] = {}
        tokens = out["ecg_tokens"] = self.ecg_tokens(ecg)
        count = tokens.shape[1]
        order = torch.arange(count, device=ecg.device).expand(len(ecg), -1) if noise is None else noise.argsort(1)
        kept = count if noise is None else int(count * (1 - self.c["mem_prob"]))
        keep, back = order[:, :kept], order.argsort(1)
        out["mem_mask"] = (back >= kept).to(ecg.dtype)
        encoded = out["ecg_encoded"] = self.ecg_encoded(tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1])))
        ecg_x = self.linear(encoded, "multi_modal_ecg_proj")
        text_x = self.linear(self.text_encoded(ids, hidden), "multi_modal_language_proj")
        out["ecg_pooled"], out["text_pooled"] = self.pool(ecg_x, "unimodal_ecg"), self.pool(text_x, "unimodal_language")
        modality = self.w["modality_type_embeddings.weight"]
        text_x, ecg_x = text_x + modality[0], ecg_x + modality[1]
        entering = []
        for number in range(self.c["num_top_layer"]):
            entering.append(ecg_x)
            text_x, ecg_x = (
                self.fusion_layer(text_x, ecg_x, f"multi_modal_language_layers.{number}", hidden, None),
                self.fusion_layer(ecg_x, text_x, f"multi_modal_ecg_layers.{number}", None, hidden),
            )
        pair = torch.cat([self.pool(text_x, "multi_modal_language"), self.pool(ecg_x, "multi_modal_ecg")], -1)
        out["etm_logits"] = self.linear(pair, "itm_head.fc")
        x = self.norm(F.gelu(self.linear(text_x, "mlm_head.transform.dense")), "mlm_head.transform.LayerNorm", 1e-12)
        out["mlm_logits"] = F.linear(x, self.w["mlm_head.decoder.weight"], self.w["mlm_head.bias"])
        out["mem_logits"] = self.decode([*entering, ecg_x][self.c["mem_layer"]], back)
        window = ecg[:, :, : count * self.patch]
        window = (window - window.mean(-1, keepdim=True)) / (window.var(-1, keepdim=True) + 1e-6).sqrt()
        out["mem_target"] = window.view(len(ecg), 12, count, self.patch).transpose(1, 2).flatten(2)
        return out

    def decode(self, x: Tensor, back: Tensor) -> Tensor:
        """Return the rebuilt patches (B, T, P) of all tokens from [CLS] and the kept ones, put back in time by `back` (B, T)."""
        x = self.linear(x, "mim_head.decoder_embed")
        missing = self.w["mim_head.mask_token"].expand(len(x), back.shape[1] + 1 - x.shape[1], -1)
        full = torch.cat([x[:, 1:], missing], 1).gather(1, back[:, :, None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], full], 1)
        place, even = torch.arange(x.shape[1], device=x.device)[:, None], torch.arange(0, x.shape[2], 2, device=x.device)
        angle = place * torch.exp(-math.log(10000) * even / x.shape[2])
        position = torch.zeros(x.shape[1:], device=x.device)
        position[:, 0::2], position[:, 1::2] = angle.sin(), angle.cos()
        x = x + position
        for number in range(self.c["mem_decoder_num_layers"]):
            p = f"mim_head.decoder.resblocks.{number}"
            qkv = F.linear(self.norm(x, f"{p}.ln_1"), self.w[f"{p}.attn.in_proj_weight"], self.w[f"{p}.attn.in_proj_bias"])
            x = x + self.linear(self.attend(*qkv.chunk(3, -1), self.c["mem_decoder_num_heads"], 0.0), f"{p}.attn.out_proj")
            y = self.linear(self.norm(x, f"{p}.ln_2"), f"{p}.mlp.c_fc")
            x = x + self.linear(y * torch.sigmoid(1.702 * y), f"{p}.mlp.c_proj")
        return self.linear(self.norm(x, "mim_head.decoder_norm"), "mim_head.decoder_pred")[:, 1:]


def gelu_new(x: Tensor) -> Tensor:
    """Return T5's approximate GELU as the published model's library computes it: term by term."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def losses(out: Mapping[str, Tensor], labels: Tensor, is_aligned: Tensor) -> dict[str, Tensor]:
    """Return the four published losses and their sum, every logit entering its formula."""
    mlm = F.cross_entropy(out["mlm_logits"].flatten(0, 1), labels.flatten(), ignore_index=-100)
    error = (out["mem_logits"] - out["mem_target"]).square().mean(-1)
    mem = (error * out["mem_mask"]).sum() / out["mem_mask"].sum()
    etm = F.cross_entropy(out["etm_logits"], is_aligned)
    sign = 2 * torch.diag((is_aligned == 1).to(error.dtype)) - 1
    ets = -F.logsigmoid(sign * (out["ecg_pooled"] @ out["text_pooled"].T)).mean()
    return {"mlm": mlm, "mem": mem, "etm": etm, "ets": ets, "total": mlm + mem + etm + ets}
