"""croissant.json: mlcroissant finds nothing wrong in it, and reads by it alone what cmelt reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.shards.croissant import COLUMNS, version
from cmelt.shards.format import INDEX_SCHEMA
from cmelt.shards.read import ShardFolder
from cmelt.verify import verify
from tests.conftest import MakeRaw

THEIRS = ["ignore:ConjunctiveGraph is deprecated:DeprecationWarning", "ignore:The inplace keyword in DataFrame"]
"""Warnings of mlcroissant's own making."""


@pytest.fixture
def folder(make_raw: MakeRaw, tmp_path: Path) -> ShardFolder:
    """Return a shard folder of 7 recordings in two shards."""
    recipe = load_recipe("ingest", "clinical", ["signal.duration_s=2", "signal.fs_hz=100", "shards.samples_per_shard=4"])
    ingest("ptbxl", make_raw(7), tmp_path / "out", recipe, workers=1)
    return ShardFolder(tmp_path / "out")


@pytest.mark.filterwarnings(*THEIRS)
def test_mlcroissant_validates_it_and_reads_the_index_by_it(folder: ShardFolder, caplog: pytest.LogCaptureFixture) -> None:
    import mlcroissant

    dataset = mlcroissant.Dataset(str(folder.path / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert {warning.split("] ")[1] for warning in issues.warnings} == {  # 7 made-up recordings, nowhere published
        'Property "https://schema.org/datePublished" is recommended, but does not exist.',
        'Property "https://schema.org/version" is recommended, but does not exist.',
    }
    assert "not standard" not in caplog.text
    read = {row["index/key"].decode(): row for row in dataset.records("index")}
    for number, row in enumerate(folder.index.to_pylist()):
        found = {name.removeprefix("index/"): value for name, value in read.pop(row["key"]).items()}
        found = {name: [plain(v) for v in value] if isinstance(value, list) else plain(value) for name, value in found.items()}
        assert found == row
        array = np.fromfile(folder.path / found["shard"], "<i2", found["ecg_bytes"] // 2, offset=found["ecg_offset"])
        np.testing.assert_array_equal(array.reshape(12, -1), folder.ecg([number])[0])
    assert not read


def plain(value: object) -> object:
    """Return text as text: mlcroissant has it as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def test_it_says_licence_citation_files_and_hashes(folder: ShardFolder) -> None:
    told = json.loads((folder.path / "croissant.json").read_text(encoding="utf-8"))
    assert told["license"] == "https://creativecommons.org/licenses/by/4.0/"
    assert (told["url"], "10.1038/s41597-020-0495-6" in told["citeAs"]) == ("https://physionet.org/content/ptb-xl/", True)
    hashes = {entry["name"]: entry["sha256"] for entry in told["distribution"] if "sha256" in entry}
    wanted = {shard["name"]: shard["sha256"] for shard in folder.manifest["shards"]}
    assert hashes == wanted | {"index.parquet": folder.manifest["index_sha256"]}
    assert "units of 1 µV" in told["description"]
    verify(folder.path)


def test_every_column_is_described_and_versions_have_three_numbers() -> None:
    assert list(COLUMNS) == INDEX_SCHEMA.names
    assert [version(published) for published in ("1.0.3", "1.0", "unknown")] == ["1.0.3", "1.0.0", ""]
