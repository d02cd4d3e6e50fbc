"""Verify: an untouched folder passes, and no single change goes unseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmelt.config import load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.shards.manifest import file_sha256
from cmelt.shards.read import ShardFolder
from cmelt.verify import verify


@pytest.fixture
def folder(make_raw: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a finished folder of 7 kept and 1 refused recordings in two shards."""
    raw = make_raw(8)
    (raw / "records500/00000/00002_hr.hea").unlink()
    recipe = load_recipe("ingest", "clinical", ["signal.duration_s=2", "signal.fs_hz=100", "shards.samples_per_shard=4"])
    ingest("ptbxl", raw, tmp_path / "out", recipe, workers=1)
    return tmp_path / "out"


def reseal(folder: Path) -> None:
    """Make the manifest's hashes agree with the files again, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["index_sha256"], manifest["rejects_sha256"] = file_sha256(folder / "index.parquet"), file_sha256(folder / "rejects.parquet")
    for shard in manifest["shards"]:
        shard["sha256"], shard["bytes"] = file_sha256(folder / shard["name"]), (folder / shard["name"]).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_untouched_folder_passes(folder: Path) -> None:
    assert verify(folder) == {
        "folder": str(folder),
        "dataset": "ptbxl",
        "samples": 7,
        "refused": 1,
        "shards": 2,
        "bytes": sum(file.stat().st_size for file in folder.glob("*.tar")),
    }


def test_any_changed_byte_is_seen(folder: Path, tmp_path: Path) -> None:
    for name in ("ptbxl-000000.tar", "ptbxl-000001.tar", "index.parquet", "rejects.parquet"):
        size = (folder / name).stat().st_size
        for at in (0, 300, 700, size // 2, size - 700, size - 1):
            shutil.copytree(folder, tmp_path / "copy")
            data = bytearray((folder / name).read_bytes())
            data[at] ^= 1
            (tmp_path / "copy" / name).write_bytes(data)
            with pytest.raises(ShardError, match=f"{name} has changed"):
                verify(tmp_path / "copy")
            shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize("name", ["ptbxl-000000.tar", "index.parquet", "rejects.parquet", "manifest.json"])
def test_missing_and_shortened_files_are_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match=name):
        verify(folder)
    (folder / name).unlink()
    with pytest.raises(ShardError, match=name):
        verify(folder)


def test_a_resealed_change_of_a_tar_is_seen(folder: Path) -> None:
    row = ShardFolder(folder).index.slice(1, 1).to_pylist()[0]
    data = (folder / row["shard"]).read_bytes()
    for before, after in ((row["key"].encode() + b".ecg", b"00009_hr.ecg"), (b"sinus", b"tinus"), (b'"fold": ', b'"fold":9')):
        assert before in data
        (folder / row["shard"]).write_bytes(data.replace(before, after))
        reseal(folder)
        with pytest.raises(ShardError, match=r"should be|is not the|cannot be read on"):
            verify(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[0].update(ecg_offset=rows[0]["ecg_offset"] + 2), "not where or what"),
        (lambda rows: rows[0].update(report="healthy"), "not the report"),
        (lambda rows: rows[0].update(age=1.0), "not the index's row"),
        (lambda rows: rows[0].update(flags=["pretty"]), "unknown flag 'pretty'"),
        (lambda rows: rows[0].update(key=rows[1]["key"]), "occurs 2 times"),
        (lambda rows: rows[1]["flags"].append("duplicate"), "flagged duplicate and is none"),
        (lambda rows: rows[1].update(signal_sha1=rows[0]["signal_sha1"]), "is one and is not flagged"),
        (lambda rows: rows.pop(), r"counts\.kept is wrong"),
        (lambda rows: rows[0].update(split="holdout"), "unknown split"),
    ],
)
def test_a_resealed_change_of_the_index_is_seen(folder: Path, change: Callable[[list[dict]], None], words: str) -> None:
    table = pq.read_table(folder / "index.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(type(table).from_pylist(rows, table.schema), folder / "index.parquet")
    reseal(folder)
    with pytest.raises(ShardError, match=words):
        verify(folder)


def test_what_is_too_much_is_named(folder: Path) -> None:
    (folder / "ptbxl-000007.tar").write_bytes(b"")
    with pytest.raises(ShardError, match=r"ptbxl-000007\.tar is not in the manifest"):
        verify(folder)


def test_unfinished_foreign_and_future_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="is not a folder"):
        verify(tmp_path / "absent")
    text = (folder / "manifest.json").read_text()
    for broken, words in (
        (text.replace('"format_version": 1', '"format_version": 2'), "shard format 2"),
        (text.replace('"index_sha256"', '"index"'), "lacks index_sha256"),
        ("[]", "shard format None"),
        ("{", "damaged"),
    ):
        (folder / "manifest.json").write_text(broken)
        with pytest.raises(ShardError, match=words):
            verify(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ShardError, match="unfinished"):
        verify(folder)
