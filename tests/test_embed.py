"""Embeddings leave as one Parquet table, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmelt.embed import embed
from cmelt.errors import CheckpointError, InputError, OutputError
from cmelt.models.cmelt import CMELT
from cmelt.shards.format import INDEX, MANIFEST
from cmelt.shards.manifest import file_sha256
from cmelt.shards.read import ShardFolder
from cmelt.tasks import features
from tests.pairs import small_model


def test_a_table_holds_what_the_model_says(tmp_path: Path, run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmelt.embed.BLOCK", 100)
    monkeypatch.setattr(features, "BLOCK", 100)
    other = Path(shutil.copytree(shards, tmp_path / "other"))
    index = pq.read_table(other / INDEX)
    report = ["" if number == 3 else text for number, text in enumerate(index["report"].to_pylist())]
    pq.write_table(index.set_column(index.column_names.index("report"), "report", [report]), other / INDEX)
    manifest = json.loads((other / MANIFEST).read_text()) | {"index_sha256": file_sha256(other / INDEX)}
    (other / MANIFEST).write_text(json.dumps(manifest))
    out = tmp_path / "made" / "emb.parquet"
    summary = embed([shards, other], out, run, "both", quiet=True)
    assert (summary["rows"], summary["columns"]) == (480, ["key", "dataset", "split", "ecg", "text"])
    table = pq.read_table(out)
    assert table.schema.field("ecg").type == pa.list_(pa.float32(), 16)
    assert pq.ParquetFile(out).num_row_groups == 6
    folder, model = ShardFolder(shards), CMELT.from_pretrained(run)
    assert table["key"].to_pylist() == folder.column("key") * 2
    assert table["split"].to_pylist() == folder.column("split") * 2
    ecg, text = (np.array(table[name].to_pylist()[:240]) for name in ("ecg", "text"))
    np.testing.assert_allclose(ecg, model.encode_ecg(folder.ecg_mv(np.arange(240))), atol=1e-5)
    np.testing.assert_allclose(text, model.encode_text(folder.column("report")), atol=1e-5)
    assert [number for number, value in enumerate(table["text"].to_pylist()) if value is None] == [243]
    facts = json.loads(table.schema.metadata[b"cmelt"])
    assert (facts["width"], facts["shards"]) == (16, [str(shards), str(other)])
    before = out.read_bytes()
    embed([shards, other], out, run, "both", quiet=True)
    assert out.read_bytes() == before, "the same again, from what was kept"
    assert embed([shards], out, run, split="test", quiet=True)["rows"] == 24
    assert set(pq.read_table(out)["split"].to_pylist()) == {"test"}
    assert embed([shards], out, run, where="fold = 3 and key > '00100'", quiet=True)["rows"] == 14


def test_what_cannot_be_embedded_leaves_nothing_behind(tmp_path: Path, run: Path, shards: Path) -> None:
    precious = tmp_path / "emb.parquet"
    precious.write_text("a diary")
    with pytest.raises(OutputError, match="no table of embeddings that cmelt made"):
        embed([shards], precious, run)
    assert precious.read_text() == "a diary"
    with pytest.raises(InputError, match="--what 'txt'; did you mean 'text'"):
        embed([shards], tmp_path / "a.parquet", run, "txt")
    with pytest.raises(InputError, match=r"--split 'training'.*known: train, val, test"):
        embed([shards], tmp_path / "a.parquet", run, split="training")
    small_model(samples=160).save_pretrained(tmp_path / "short")
    with pytest.raises(CheckpointError, match="reads 160 samples at 100 Hz"):
        embed([shards], tmp_path / "a.parquet", tmp_path / "short")
    broken = small_model(samples=320)
    broken.text_project.weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(CheckpointError, match="not finite"):
        embed([shards], tmp_path / "a.parquet", tmp_path / "broken", "both", quiet=True)
    assert not list(tmp_path.glob("a.parquet*")), "cut off while writing: no file, and no part of one"
