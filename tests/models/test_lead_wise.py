"""The encoder `lead-wise`: a lead that is not there is not read, not pooled, not fused and not rebuilt, whatever stands in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.config import MaskingSettings, ObjectiveSettings
from cmelt.errors import CheckpointError, InputError
from cmelt.models.cmelt import CMELT
from cmelt.models.heads import mean_token
from cmelt.models.masking import keep_leads, mask_ecg_tokens
from cmelt.models.published import export_published
from cmelt.objectives import total_loss
from cmelt.objectives.masked_ecg import mem_target
from cmelt.record import LEADS
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports()
SEEN = ([0, 1], [7], list(range(12)))


def lead_wise(**changes: object) -> CMELT:
    """Return a small model whose tokens stand for 32 of a lead's 160 samples: five a lead."""
    return small_model(reports=REPORTS, ecg_encoder="lead-wise", lead_token_s=0.32, **changes).eval()


def noise_ecg(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 12, 160, generator=torch.Generator().manual_seed(0)).cumsum(-1) * 0.1


def only(ecg: torch.Tensor, leads: list[int]) -> torch.Tensor:
    """Return `ecg` with the other leads absent."""
    return torch.where(torch.isin(torch.arange(12), torch.tensor(leads))[:, None], ecg, 0)


@pytest.mark.parametrize("pool", ["cls", "mean"])
@torch.no_grad()
def test_absent_leads_are_absent_tokens(pool: str) -> None:
    model, ecg = lead_wise(pool=pool, entity_heads=2), noise_ecg()
    assert model.ecg_token_count() == 12 * 5
    ragged = torch.cat([only(ecg[row : row + 1], leads) for row, leads in enumerate(SEEN)])
    embedding, mean = model.ecg_features(ragged)  # three sets of leads in one batch
    probable, head = model.entity_probabilities(ragged), model.require_entities()
    for row, leads in enumerate(SEEN):
        places = torch.tensor([5 * lead + time for lead in leads for time in range(5)])[None]
        other = torch.where(only(torch.ones(12, 160), leads).bool(), ecg[row : row + 1], 9.0)  # something else in the absent leads' place
        encoded = model.ecg_encoder.encode(model.ecg_encoder.tokens(other, places))  # these leads' tokens, and no others
        torch.testing.assert_close(mean[row : row + 1], mean_token(encoded, None), rtol=1e-4, atol=1e-5)
        tokens = model.ecg_project(encoded)
        torch.testing.assert_close(embedding[row : row + 1], model.pool_ecg(tokens), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probable[row : row + 1], head(tokens).sigmoid(), rtol=1e-4, atol=1e-5)
    assert float((embedding[0] - model.encode_ecg(ecg[:1])).abs().max()) > 1e-3  # the others are read where they are there
    assert torch.isfinite(model.encode_ecg(torch.zeros(12, 160))).all()


@torch.no_grad()
def test_tokens_that_fill_up_a_row_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lead_wise(pool="mean", entity_heads=2)
    batch = small_batch(model, REPORTS, 6)
    batch.ecg = torch.cat([only(batch.ecg_target[row : row + 1], SEEN[row % 3]) for row in range(6)])
    mine, encode = model(batch), model.ecg_encoder.encode

    def disturbed(tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return encode(torch.where(hidden[:, 1:, None], 50 * torch.randn_like(tokens), tokens), hidden)

    monkeypatch.setattr(model.ecg_encoder, "encode", disturbed)
    again = model(batch)
    for name in ("ecg_pooled", "mlm_logits", "mem_patches", "etm_logits", "entity_logits"):
        torch.testing.assert_close(getattr(again, name), getattr(mine, name), rtol=1e-4, atol=1e-5, msg=name)


def test_the_same_share_of_every_lead_set_is_kept() -> None:
    noise = torch.rand(4, 60, generator=torch.Generator().manual_seed(1))
    present = torch.zeros(4, 12, 5, dtype=torch.bool)
    for row, leads in enumerate((*SEEN, [])):
        present[row, leads] = True
    present = present.flatten(1)
    keep, removed, hidden = mask_ecg_tokens(noise, 0.75, present)
    assert hidden is not None
    assert not hidden[:, 0].any()
    assert (~hidden[:, 1:]).sum(1).tolist() == [2, 1, 15, 0]  # a quarter of 10, 5 and 60 tokens; at least one of those there are
    assert torch.equal(torch.cat([keep, removed], 1).sort(1).values, torch.arange(60).expand(4, -1))
    kept = torch.zeros(4, 60, dtype=torch.bool)
    for row in range(4):
        kept[row, keep[row][~hidden[row, 1:]]] = True
        assert present[row][kept[row]].all()
        if kept[row].any() and (present[row] & ~kept[row]).any():
            assert noise[row][kept[row]].max() < noise[row][present[row] & ~kept[row]].min()
    assert torch.equal(present.gather(1, removed).sum(1), (present & ~kept).sum(1)), "a token that was there and went is rebuilt"
    assert torch.equal(mask_ecg_tokens(noise, 0.75, torch.ones_like(present))[0], mask_ecg_tokens(noise, 0.75)[0])


@torch.no_grad()
def test_removed_stretches_of_single_leads_are_rebuilt_and_unrecorded_leads_are_not() -> None:
    model = lead_wise()
    batch = small_batch(model, REPORTS, 6)
    batch.ecg_target = batch.ecg_target * (torch.arange(12) != 4)[:, None]  # aVL was never recorded
    batch.ecg = batch.ecg * (torch.arange(12) != 4)[:, None]
    out, settings = model(batch, {"mem"}), ObjectiveSettings(mlm=0, etm=0, ets=0)
    target = mem_target(model.ecg_encoder, batch.ecg_target)
    torch.testing.assert_close(target[1, 5 * 2 + 3, :], model.ecg_encoder.unpatched(target)[1, 2, 96:128])  # lead III, its fourth token
    torch.testing.assert_close(model.ecg_encoder.unpatched(target)[:, 2].mean(-1), torch.zeros(6), rtol=0, atol=1e-5)
    errors = [
        (out.mem_patches[row, at] - target[row, place]).square().mean()
        for row in range(6)
        for at, place in enumerate(out.removed[row].tolist())
        if place // 5 != 4
    ]
    assert float(total_loss(model, out, batch, settings)[0]) == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    codes = model.ecg_encoder.codes(60, 12)
    assert len(codes.unique(dim=0)) == 61  # no two places look alike


def test_any_number_of_leads_is_seen_as_often_as_any_other() -> None:
    rng = np.random.default_rng(0)
    noise, share = rng.random((6000, 12), np.float32), rng.random((6000, 1), np.float32)
    seen = keep_leads(noise, share, MaskingSettings(leads="dynamic"))
    count = np.bincount(seen.sum(1), minlength=13)
    assert count[0] == 0
    assert (np.abs(count[1:] - 500) < 100).all()
    assert np.ptp(seen.mean(0)) < 0.05  # no lead is favoured
    assert (keep_leads(noise, share, MaskingSettings(lead_prob=0.3)) == (noise >= np.float32(0.3))).all()


@torch.no_grad()
def test_leads_come_by_name_and_others_may_be_absent(tmp_path: Path) -> None:
    model, ecg = lead_wise(), noise_ecg()
    some = [6, 1]
    torch.testing.assert_close(model.encode_ecg(ecg[:, some], leads=["V1", "II"]), model.encode_ecg(only(ecg, some)))
    pair = model.encode_ecg(ecg[:, :2], leads=["I", "II"])  # which give the other limb leads
    limbs = torch.stack([ecg[:, 1] - ecg[:, 0], -ecg[:, :2].mean(1), ecg[:, 0] - ecg[:, 1] / 2, ecg[:, 1] - ecg[:, 0] / 2], 1)
    torch.testing.assert_close(pair, model.encode_ecg(only(torch.cat([ecg[:, :2], limbs, ecg[:, 6:]], 1), list(range(6)))))
    with pytest.raises(InputError, match="missing V6"):
        small_model(reports=REPORTS).encode_ecg(ecg[:, :11], leads=LEADS[:11])
    model.save_pretrained(tmp_path / "run")
    assert torch.equal(CMELT.from_pretrained(tmp_path / "run").encode_ecg(ecg), model.encode_ecg(ecg))
    with pytest.raises(CheckpointError, match="its ECG encoder is 'lead-wise'"):
        export_published(tmp_path / "run", tmp_path / "out.safetensors")
