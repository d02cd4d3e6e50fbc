"""Masks have the rates they say, hide nothing that must be seen, and are pure functions of their noise."""

import pytest
import torch

from cmelt.models.batch import IGNORE
from cmelt.models.masking import mask_ecg_tokens, mask_leads, mask_text
from cmelt.text.tokenizer import ReportTokenizer
from tests.pairs import some_reports


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(some_reports(), 120, 24)


def test_text_is_masked_by_the_80_10_10_rule(tokenizer: ReportTokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, tokenizer.vocab_size, (400, 100), generator=generator)
    ids[:, 0] = 1  # an end mark in the middle of things is as special as elsewhere
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[:, 60:] = True
    masked, labels = mask_text(ids, padding, torch.rand(400, 3, 100, generator=generator), 0.15, tokenizer)
    scored = labels != IGNORE
    assert not scored[:, 0].any()
    assert not scored[:, 60:].any()
    assert torch.equal(labels[scored], ids[scored])
    assert torch.equal(masked[~scored], ids[~scored])
    assert float(scored[:, 1:60].float().mean()) == pytest.approx(0.15, abs=0.01)
    hidden = (masked == tokenizer.mask_id)[scored].float().mean()
    kept = (masked == ids)[scored].float().mean()
    assert float(hidden) == pytest.approx(0.8, abs=0.025)
    assert float(kept) == pytest.approx(0.1 + 0.1 / (tokenizer.vocab_size - 4), abs=0.02)
    replaced = masked[scored & (masked != tokenizer.mask_id) & (masked != ids)]
    assert not torch.isin(replaced, torch.tensor(tokenizer.special_ids)).any()
    assert len(replaced.unique()) > 0.7 * (tokenizer.vocab_size - 4)  # drawn from the whole vocabulary


def test_three_quarters_of_the_ecg_tokens_go() -> None:
    noise = torch.rand(5, 125, generator=torch.Generator().manual_seed(1))
    keep, removed, hidden = mask_ecg_tokens(noise, 0.75)
    assert hidden is None
    assert keep.shape == (5, 31)  # int(125 × 0.25)
    assert torch.equal(torch.cat([keep, removed], 1).sort(1).values, torch.arange(125).expand(5, -1))
    assert (noise.gather(1, keep).max(1).values < noise.gather(1, removed).min(1).values).all()
    assert mask_ecg_tokens(noise, 0.0)[1].shape == (5, 0)


def test_leads_are_zeroed_at_their_rate_and_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    masked = mask_leads(torch.ones(2000, 12, 3), torch.rand(2000, 12, generator=generator), 0.5)
    assert torch.isin(masked.sum(2), torch.tensor([0.0, 3.0])).all()
    assert float(masked.mean()) == pytest.approx(0.5, abs=0.02)
    untouched = torch.ones(2, 12, 3)
    assert mask_leads(untouched, torch.zeros(2, 12), 0.0) is untouched
