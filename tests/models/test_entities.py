"""Entity queries: a model without them is as it was; one with them knows its findings, and learns them from the ECG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.config import ObjectiveSettings, load_recipe
from cmelt.errors import CheckpointError, RecipeError
from cmelt.models.cmelt import CMELT
from cmelt.models.heads import EntityHead
from cmelt.objectives import total_loss
from cmelt.text.entities import known_entities
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports()
CODES = tuple(entity.code for entity in known_entities())


def test_the_rest_of_the_model_is_as_without_them() -> None:
    plain, asking = small_model(reports=REPORTS), small_model(reports=REPORTS, entity_heads=2)
    weights, more = plain.state_dict(), asking.state_dict()
    assert {name for name in more if not name.startswith("entity_head.")} == set(weights)
    assert all(torch.equal(more[name], value) for name, value in weights.items())
    assert plain.config.entities == ()
    with pytest.raises(CheckpointError, match="no entity queries"):
        plain.entity_probabilities(np.zeros((12, 160), np.float32))


@pytest.mark.parametrize("read", ["heads", "direct", "mean"])
def test_a_checkpoint_knows_its_findings_and_begins_with_how_common_they_are(tmp_path: Path, read: str) -> None:
    model = small_model(reports=REPORTS, entity_heads=2, entity_read=read)
    model.save_pretrained(tmp_path)
    again = CMELT.from_pretrained(tmp_path)
    assert again.config.entities == CODES
    ecg = np.random.default_rng(0).normal(size=(3, 12, 160)).astype(np.float32)
    probable = again.entity_probabilities(ecg, batch=2)
    torch.testing.assert_close(probable, model.entity_probabilities(ecg))
    assert probable.shape == (3, len(CODES))
    assert again.entity_head is not None
    share = dict(zip(CODES, again.entity_head.bias.sigmoid().tolist(), strict=True))
    stated = sum("atrial fibrillation" in report for report in REPORTS) / len(REPORTS)
    assert share["AFIB"] == pytest.approx(stated, rel=1e-3)
    assert share["PERI"] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("read", ["heads", "direct", "mean"])
def test_hidden_tokens_are_not_read(read: str) -> None:
    head = EntityHead(16, 2, 5, read)
    tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(2, 7, dtype=torch.bool)
    hidden[:, 5:] = True
    other = tokens.clone()
    other[:, 5:] = 9.0
    torch.testing.assert_close(head(tokens, hidden), head(other, hidden))
    torch.testing.assert_close(head(tokens, hidden), head(tokens[:, :5]))
    assert not torch.allclose(head(tokens), head(other))


def test_it_learns_the_findings_of_a_batch() -> None:
    model = small_model(reports=REPORTS, entity_heads=2)
    batch = small_batch(model, REPORTS, 12)
    settings = ObjectiveSettings(mlm=0, mem=0, etm=0, ets=0, entities=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss, _ = total_loss(model, model(batch, {"entities"}), batch, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.25 * losses[0]


def test_nothing_removed_leaves_nothing_to_rebuild() -> None:
    with pytest.raises(RecipeError, match=r"model\.mem_prob"):
        load_recipe("pretrain", "few-records", ["objectives.mem=1"])
    assert load_recipe("pretrain", "few-records", ["objectives.mem=1", "model.mem_prob=0.5"]).objectives.mem == 1


def test_loss_and_queries_go_together() -> None:
    assert load_recipe("pretrain", "tiny", ["objectives.entities=1", "model.entity_heads=2"]).model.entity_heads == 2
    for change in ("objectives.entities=1", "model.entity_heads=2"):
        with pytest.raises(RecipeError, match="both are 0, or neither") as error:
            load_recipe("pretrain", "tiny", [change])
        assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match=r"model\.entity_heads = 3 does not divide 16"):
        small_model(reports=REPORTS, entity_heads=3)
