"""What the reports of a corpus say of each finding: the true report's, each read once, and how well the ECG answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.config import PretrainRecipe
from cmelt.errors import CheckpointError
from cmelt.text.entities import entity_matrix
from cmelt.training.corpus import Corpus
from cmelt.training.findings import FindingTable
from cmelt.training.loader import Loader
from cmelt.training.negatives import Dealer, report_embeddings
from cmelt.training.validation import entity_aurocs, validate
from tests.made import SAMPLES
from tests.pairs import small_model, some_reports


def test_a_report_is_read_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FindingTable(("AFIB", "SR"), ["sinus rhythm.", "no atrial fibrillation.", "atrial fibrillation."])
    assert table.rows(np.array([1, 2, 1])).tolist() == [[0, -1], [1, -1], [0, -1]]
    assert table.is_read.tolist() == [False, True, True]
    monkeypatch.setattr("cmelt.training.findings.entity_matrix", None)  # what was read is not read again
    assert table.rows(np.array([2])).tolist() == [[1, -1]]
    assert FindingTable((), ["sinus rhythm."]).rows(np.array([0, 0])).shape == (2, 0)
    with pytest.raises(CheckpointError, match="no rule reads: XYZ"):
        FindingTable(("XYZ",), [])


def asking(folder: Path, entities: float) -> tuple[Loader, PretrainRecipe]:
    """Return a loader over `folder` whose reports are findings, and its recipe."""
    recipe = PretrainRecipe.model_validate(
        {
            "model": {"entity_heads": 2 * (entities > 0)},
            "objectives": {"entities": entities},
            "data": {"leaks": "keep"},
            "train": {"batch": 16, "validate_batches": 2},
        }
    )
    corpus = Corpus([folder], "train", data=recipe.data)
    said = some_reports(len(corpus.reports))
    corpus.reports = said
    model = small_model(SAMPLES, said, entity_heads=recipe.model.entity_heads)
    return Loader(corpus, model, recipe, Dealer(report_embeddings(said))), recipe


def test_a_batch_has_the_findings_of_the_true_reports(shards: Path) -> None:
    loader, _ = asking(shards, 1.0)
    batch = loader.batch(3)
    texts = [loader.corpus.reports[report] for report in batch.report_id]
    assert (batch.report_id != batch.text_report_id).any()
    assert batch.entities.tolist() == entity_matrix(texts).tolist()
    parts = [asking(shards, 1.0)[0].batch(3, rank, 2).entities for rank in range(2)]
    assert torch.equal(torch.cat(parts), batch.entities)
    off, _ = asking(shards, 0.0)
    assert off.batch(3).entities.shape == (16, 0)
    assert off.batch(3).to("cpu").entities.shape == (16, 0)


def test_validation_says_how_well_each_finding_is_told(shards: Path) -> None:
    loader, recipe = asking(shards, 1.0)
    model = small_model(SAMPLES, loader.corpus.reports, entity_heads=2)
    found = validate(model, loader, recipe)
    by_code = {name: value for name, value in found.items() if name.startswith("auroc_")}
    assert by_code.pop("auroc_entities") == pytest.approx(sum(by_code.values()) / len(by_code))
    assert "auroc_AFIB" in by_code
    assert "auroc_PERI" not in by_code  # no report states it
    assert found["entities"] > 0
    said = np.array([[1, 1], [1, -1], [-1, -1], [0, -1], [2, -1]], np.int8)
    score = np.array([[0.9, 0], [0.3, 0], [0.5, 0], [0.1, 0], [5.0, 0]], np.float32)
    assert entity_aurocs(["A", "B"], said, score) == {"auroc_entities": 0.625, "auroc_A": 0.75, "auroc_B": 0.5}
    assert entity_aurocs(["A"], said[2:3, :1], score[2:3, :1]) == {}
    assert all(math.isfinite(value) for value in found.values())
