"""Thirty-two pairs, fixed masks, no dropout: the model learns them by heart, in all four losses."""

import numpy as np
import torch

from cmelt.config import ObjectiveSettings
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports(32)
SIZES = {
    "conv_layers": [[32, 4, 4], [32, 2, 2]],
    "ecg_width": 48,
    "ecg_heads": 4,
    "ecg_ffn": 96,
    "position_kernel": 8,
    "text_config": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 1, "num_heads": 4, "feed_forward_proj": "gated-gelu"},
    "width": 48,
    "fusion_heads": 4,
    "decoder_width": 48,
    "decoder_heads": 4,
}


def waves(rows: int, samples: int) -> torch.Tensor:
    """Return (rows, 12, samples) of two waves each, seen by twelve leads."""
    rng = np.random.default_rng(0)
    time_s = np.arange(samples) / 100
    shapes = np.sin(2 * np.pi * rng.uniform(0.5, 2, (rows, 2, 1)) * time_s + rng.uniform(0, 6, (rows, 2, 1)))
    return torch.from_numpy(rng.normal(size=(12, 2)) @ shapes).float()


def test_thirty_two_pairs_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model: CMELT = small_model(200, REPORTS, **SIZES).eval()  # evaluation mode: no dropout
    batch = small_batch(model, REPORTS, 32)
    batch.ecg = batch.ecg_target = waves(32, 200)
    steps = 150
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, steps, pct_start=0.15)
    history = []
    for _ in range(steps):
        out = model(batch)
        loss, parts = total_loss(model, out, batch, ObjectiveSettings())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append({name: float(value) for name, value in parts.items()})
    with torch.no_grad():
        out = model(batch)
    first, last = history[0], history[-1]
    assert last["mlm"] <= 0.2 * first["mlm"]
    assert last["mem"] <= 0.2 * first["mem"]
    scored = batch.is_aligned >= 0
    assert scored.sum() >= 30
    matched = out.etm_logits.argmax(1)[scored] == batch.is_aligned[scored]
    assert float(matched.float().mean()) >= 0.95
    scores = out.ecg_pooled @ out.text_pooled.T
    found = batch.text_report_id[scores.argmax(1)] == batch.report_id
    assert float(found.float().mean()) >= 0.95
