"""Tasks read shard folders at a URL as those on disk, and of any folder only the recordings that a filter names."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from rich.console import Console

from cmelt.config_tasks import FinetuneRecipe
from cmelt.embed import embed
from cmelt.errors import InputError, TaskError
from cmelt.search import search
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import Cohort, open_run
from cmelt.tasks.curve import lead_curve
from cmelt.tasks.finetune import finetune
from cmelt.tasks.identify import identify
from cmelt.tasks.probe import probe
from cmelt.tasks.split import see_only
from cmelt.tasks.zeroshot import table, zeroshot

HALF = "fold <= 4 or fold > 8"


@pytest.fixture
def url(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a copy of `shards`; what is fetched from there goes into a cache of its own."""
    monkeypatch.setenv("CMELT_CACHE", str(tmp_path / "cache"))
    place = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").put(str(shards), place, recursive=True)
    return place


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    """Return a gallery of two patients, and probes of the same."""
    files = tmp_path / "near.csv", tmp_path / "far.csv"
    for file, keys in zip(files, (("00002", "00004"), ("00003", "00005")), strict=True):
        file.write_text("\n".join(["key", *keys]) + "\n")
    return files


def test_a_probe_of_a_run_that_was_trained_at_a_url(run: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = probe(run, baselines=("trivial",), fractions=(1.0,), quiet=True)
    facts = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(facts | {"shards": [url]}))
    assert open_run(run, None).shards == (url,)
    monkeypatch.setattr("cmelt.shards.read.ShardFolder.expect", lambda *a: pytest.fail("features of these bytes were kept"))
    there = probe(run, baselines=("trivial",), fractions=(1.0,), quiet=True)
    assert there == here | {"shards": [url]}


def test_every_task_reads_a_url(run: Path, url: str, lists: tuple[Path, Path], tmp_path: Path) -> None:
    local = Cohort(open_run(run, None).shards, "superclass")
    cohort = Cohort([url], "superclass")
    see_only(cohort, ("II",))
    np.testing.assert_array_equal(cohort.ecg_mv(np.array([7]))[0, 1], local.ecg_mv(np.array([7]))[0, 1])
    recipe = FinetuneRecipe.model_validate({"tune": {"epochs": 1, "layers": 0}})
    tuned = finetune(recipe, run, [url], "superclass", tmp_path / "tuned", tested=[url], leads=("I",), quiet=True)
    assert tuned["recordings_in_training_and_test"] == 0
    assert json.loads((tmp_path / "tuned/recipe.json").read_text())["shards"] == [url]
    assert identify(run, [url], *lists, quiet=True)["scores"] == identify(run, None, *lists, quiet=True)["scores"]
    assert zeroshot(run, [url], quiet=True)["retrieval"] == zeroshot(run, quiet=True)["retrieval"]
    assert embed([url], tmp_path / "emb.parquet", run, "both", quiet=True)["rows"] == 240
    assert search("sinus rhythm", [url], run, top=1, quiet=True)["searched"] == 240


def test_a_filter_leaves_out_what_it_is_not_true_for(run: Path, shards: Path, tmp_path: Path) -> None:
    cohort = Cohort([shards], "superclass", where=HALF)
    assert set(np.array(ShardFolder(shards).column("fold"))[cohort.row_of]) == {1, 2, 3, 4, 9, 10}
    whole = probe(run, baselines=(), fractions=(1.0,), quiet=True)
    half = probe(run, baselines=(), fractions=(1.0,), where=HALF, quiet=True)
    (before,), (after,) = whole["fractions"], half["fractions"]
    assert (before["n_train"], after["n_train"], after["n_test"]) == (192, 96, 24)
    assert half["where"] == HALF
    assert "where" not in whole
    files = {json.loads(file.read_text()).get("where") for file in (run / "results").glob("probe-superclass*.json")}
    assert files == {None, HALF}, "one result wrote over the other"
    curve = lead_curve(run, baselines=(), fractions=(1.0,), where=HALF, quiet=True)
    assert curve["points"][0]["macro_auc"] == after["macro_auc"]
    assert "-where-" in curve["picture"]

    few = "key < '00100'"
    recipe = FinetuneRecipe.model_validate({"tune": {"epochs": 1, "layers": 0}})
    tuned = finetune(recipe, run, None, "superclass", tmp_path / "tuned", where=few, quiet=True)
    assert (tuned["fractions"][0]["n_train"], tuned["where"]) == (80, few)
    of_val = Console(width=100, record=True, file=io.StringIO())
    of_val.print(table(zeroshot(run, where=few, fold="val", quiet=True)))
    shown = of_val.export_text()
    assert "10 val recordings" in shown
    assert "10 val ECGs" in shown
    assert "test recordings" not in shown
    found = zeroshot(run, where=few, quiet=True)
    assert (found["fractions"][0]["n_test"], found["retrieval"]["pairs"], found["where"]) == (10, 10, few)


def test_a_filter_of_people(run: Path, lists: tuple[Path, Path]) -> None:
    assert identify(run, None, *lists, quiet=True)["pairs"]["probes"] == 2
    few = identify(run, None, *lists, where="key != '00005'", quiet=True)
    assert (few["pairs"]["probes"], few["pairs"]["not_in_the_shards"]) == (1, [0, 1])


def test_filters_that_cannot_be(run: Path) -> None:
    with pytest.raises(InputError, match="no column 'aeg'"):
        probe(run, where="aeg > 3", quiet=True)
    with pytest.raises(TaskError, match=r"no recording of .* where fold > 10 has a label of task 'superclass'"):
        probe(run, where="fold > 10", quiet=True)
    with pytest.raises(TaskError, match=r"no recording in the test split of .* where fold <= 9 has a label"):
        zeroshot(run, where="fold <= 9", quiet=True)
