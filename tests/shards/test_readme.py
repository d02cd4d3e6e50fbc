"""README.md of a shard folder is a data card, and with it Hugging Face's `datasets` loads the shards, offline."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.shards.read import ShardFolder
from tests.conftest import COLUMNS, MakeRaw


@pytest.fixture
def folder(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShardFolder:
    """Return a folder whose first samples have neither age nor codes: types cannot be guessed from them. There is no network."""
    raw = make_raw(12)
    with (raw / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:6] + rows[7:]:
        row.update(age="", scp_codes="{}")
    with (raw / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    recipe = load_recipe("ingest", "clinical", ["signal.duration_s=2", "signal.fs_hz=100", "shards.samples_per_shard=6", "shards.seed=1"])
    ingest("ptbxl", raw, tmp_path / "out", recipe, workers=1)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("the network was asked"))
    return ShardFolder(tmp_path / "out")


def test_the_card_is_one(folder: ShardFolder) -> None:
    card = DatasetCard.load(folder.path / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.size_categories == ["n<1K"]
    assert "PTB-XL" in card.data.pretty_name
    assert card.text.lstrip().startswith("# ptbxl")


def test_datasets_loads_the_folder(folder: ShardFolder, tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = load_dataset(str(folder.path), split="samples", cache_dir=str(tmp_path / "cache")).with_format("numpy")
    assert list(rows["__key__"][:]) == folder.column("key")
    assert list(rows["txt"][:]) == folder.column("report")
    np.testing.assert_array_equal(rows["ecg.npy"][:], folder.ecg(range(12)))
    told = [row["json"] for row in rows]
    assert [row["split"] for row in told] == folder.column("split")
    assert [row["age"] for row in told].count(None) == 11
    assert [list(row["codes"]) for row in told] == folder.column("codes")


def test_datasets_streams_the_tars_as_webdataset(folder: ShardFolder) -> None:
    from datasets import load_dataset

    features = load_dataset(str(folder.path), split="samples", streaming=True).features
    tars = sorted(str(file) for file in folder.path.glob("*.tar"))
    rows = list(load_dataset("webdataset", data_files=tars, features=features, split="train", streaming=True))
    assert [row["__key__"] for row in rows] == folder.column("key")
    np.testing.assert_array_equal([row["ecg.npy"] for row in rows], folder.ecg(range(12)))
