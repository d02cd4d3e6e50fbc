"""Small models and made-up pairs for the tests of models, objectives and training."""

from __future__ import annotations

import numpy as np
import torch

from cmelt.config import ModelSettings
from cmelt.models.batch import Batch
from cmelt.models.cmelt import CMELT
from cmelt.models.masking import mask_text
from cmelt.training.findings import FindingTable
from cmelt.training.negatives import Dealer, report_embeddings

FINDINGS = (
    *("sinus rhythm", "left axis deviation", "atrial fibrillation", "anterior infarct, old"),
    *("lateral ischemia", "normal ecg", "qrs 120 ms", "pacemaker"),
)

SMALL = {
    "conv_layers": [[8, 4, 4], [8, 4, 4]],
    "ecg_width": 16,
    "ecg_layers": 1,
    "ecg_heads": 2,
    "ecg_ffn": 32,
    "position_kernel": 4,
    "position_groups": 2,
    "text_encoder": "t5",
    "text_config": {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "feed_forward_proj": "gated-gelu"},
    "tokenizer_vocab": 120,
    "max_text_tokens": 24,
    "width": 16,
    "fusion_pairs": 2,
    "fusion_heads": 2,
    "decoder_width": 12,
    "decoder_blocks": 1,
    "decoder_heads": 2,
    "mem_layer": 1,
}


def some_reports(count: int = 40, seed: int = 0) -> list[str]:
    """Return `count` distinct made-up reports of one to five findings."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[", ".join(rng.permutation(FINDINGS)[: rng.integers(1, 6)]) + "."] = None
    return sorted(found)


def small_model(samples: int = 160, reports: list[str] | None = None, seed: int = 0, **changes: object) -> CMELT:
    """Return a minimal model for ECGs of `samples` at 100 Hz; `changes` override SMALL."""
    return CMELT.create(ModelSettings.model_validate(SMALL | changes), 100.0, samples, reports or some_reports(), seed)


def small_batch(model: CMELT, reports: list[str], size: int = 8, seed: int = 0, text_prob: float = 0.3) -> Batch:
    """Return `size` pairs of noise and reports, dealt and masked as training does it."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    report_id = rng.permutation(np.arange(size) % len(reports))
    deal = Dealer(report_embeddings(reports)).deal(report_id, np.zeros(size, int), rng)
    ids, lengths = model.require_tokenizer().encode_padded(reports)
    length = int(lengths[deal.text_id].max())
    text = torch.from_numpy(ids[deal.text_id, :length].astype(np.int64))
    padding = torch.arange(length)[None, :] >= torch.from_numpy(lengths[deal.text_id])[:, None]
    noise = torch.rand(size, 3, length, generator=generator)
    masked, labels = mask_text(text, padding, noise, text_prob, model.require_tokenizer())
    ecg = torch.randn(size, 12, model.config.samples, generator=generator).cumsum(-1) * 0.1
    return Batch(
        ecg=ecg * (torch.rand(size, 12, 1, generator=generator) > 0.3),
        ecg_target=ecg,
        text_ids=masked,
        text_padding=padding,
        mlm_labels=labels,
        mask_noise=torch.rand(size, model.ecg_token_count(), generator=generator),
        is_aligned=torch.from_numpy(deal.is_aligned),
        report_id=torch.from_numpy(report_id),
        text_report_id=torch.from_numpy(deal.text_id),
        entities=FindingTable(model.config.entities, reports).rows(report_id),
    )
