"""croissant.json: mlcroissant finds nothing wrong in it, and reads with it alone what cmelt reads."""

from __future__ import annotations

import io
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

THEIRS = [
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning",
    "ignore:The inplace keyword in DataFrame",
    "ignore:unclosed file <_io.BufferedReader name=.*ecg.npy:ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",  # the same file, seen by pytest
]
"""Warnings of mlcroissant's own making."""


@pytest.fixture
def folder(make_raw: MakeRaw, tmp_path: Path) -> ShardFolder:
    """Return a shard folder of 7 recordings in two shards."""
    recipe = load_recipe("ingest", "clinical", ["signal.duration_s=2", "signal.fs_hz=100", "shards.samples_per_shard=4"])
    ingest("ptbxl", make_raw(7), tmp_path / "out", recipe, workers=1)
    return ShardFolder(tmp_path / "out")


@pytest.mark.filterwarnings(*THEIRS)
def test_mlcroissant_validates_it_and_reads_the_shards_by_it(folder: ShardFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlcroissant
    from etils import epath
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "unpacked"))
    dataset = mlcroissant.Dataset(str(folder.path / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert {warning.split("] ")[1] for warning in issues.warnings} == {  # 7 made-up recordings, nowhere published
        'Property "https://schema.org/datePublished" is recommended, but does not exist.',
        'Property "https://schema.org/version" is recommended, but does not exist.',
    }
    read = {row["index/key"].decode(): row for row in dataset.records("index")}
    for row in folder.index.to_pylist():
        found = {name.removeprefix("index/"): value for name, value in read.pop(row["key"]).items()}
        found = {name: [plain(v) for v in value] if isinstance(value, list) else plain(value) for name, value in found.items()}
        assert found == row
    assert not read
    arrays = {row["ecg/key"].decode(): np.load(io.BytesIO(row["ecg/array"])) for row in dataset.records("ecg")}
    np.testing.assert_array_equal([arrays[key] for key in folder.column("key")], folder.ecg(range(7)))


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
