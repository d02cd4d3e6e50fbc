"""Reading shards: rows in any order, many files, forks, and damage."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmelt.config import load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.shards import read
from cmelt.shards.format import INDEX
from cmelt.shards.read import ShardFolder


@pytest.fixture
def folder(make_raw: Callable[..., Path], tmp_path: Path) -> ShardFolder:
    """Return 9 recordings of 2 s at 100 Hz, one a shard."""
    changes = ["signal.duration_s=2", "signal.fs_hz=100", "shards.samples_per_shard=1"]
    ingest("ptbxl", make_raw(9), tmp_path / "out", load_recipe("ingest", "clinical", changes), workers=1)
    return ShardFolder(tmp_path / "out")


def test_rows_come_in_the_order_asked(folder: ShardFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_FILES", 3)
    everything = folder.ecg(range(9))
    assert (everything.shape, everything.dtype) == ((9, 12, 200), np.dtype("<i2"))
    assert len(np.unique(everything.reshape(9, -1), axis=0)) == 9
    order = np.array([8, 0, 3, 3, 7])
    np.testing.assert_array_equal(folder.ecg(order), everything[order])
    np.testing.assert_allclose(folder.ecg_mv([4])[0], everything[4] / 1000, atol=1e-6)
    assert folder.ecg([]).shape == (0, 12, 200)


def test_columns_and_splits(folder: ShardFolder) -> None:
    assert folder.column("age").dtype == float
    assert isinstance(folder.column("codes"), list)
    rows = {split: folder.rows(split) for split in ("train", "val", "test")}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(9))
    assert [folder.column("fold")[row] for row in rows["val"]] == [9]
    with pytest.raises(ShardError, match="no column 'signal'"):
        folder.column("signal")


def test_a_column_is_encoded_alike_however_the_index_is_cut(folder: ShardFolder) -> None:
    table = folder.index.take([8, 2, 2, 5, 0, 8, 1])
    reports = pa.array(["b", "a", None, "c", "a", "", None])
    table = table.set_column(table.schema.get_field_index("report"), "report", reports)
    for size in (1, 3, 7):
        pq.write_table(table, folder.path / INDEX, row_group_size=size)
        cut = ShardFolder(folder.path)
        assert cut.encoded("report").to_pylist() == reports.to_pylist()
        assert cut.encoded("fold").to_pylist() == [str(fold) for fold in table.column("fold").to_pylist()]
        assert [cut.names[shard] for shard in cut.shard_of(np.arange(7))] == table.column("shard").to_pylist()
        assert cut.names == list(dict.fromkeys(table.column("shard").to_pylist()))
    backwards = pa.DictionaryArray.from_arrays([3, 1, 1, 2, 4, 3, 0], folder.names[::-1])
    pq.write_table(table.set_column(table.schema.get_field_index("shard"), "shard", backwards), folder.path / INDEX)
    assert ShardFolder(folder.path).names == list(dict.fromkeys(backwards.to_pylist()))
    with pytest.raises(ShardError, match="no column 'signal'"):
        cut.encoded("signal")


def first_sample(folder: ShardFolder) -> int:
    """Return something that depends on a sample."""
    return int(folder.ecg([0]).astype(int).sum())


def test_a_folder_travels_to_other_processes(folder: ShardFolder) -> None:
    expected = first_sample(folder)
    assert first_sample(pickle.loads(pickle.dumps(folder))) == expected  # noqa: S301 - our own bytes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(first_sample, (folder,)) == expected


def test_a_shortened_or_missing_shard_is_said(folder: ShardFolder) -> None:
    first, second = (folder.path / folder.index.column("shard")[row].as_py() for row in (0, 1))
    with first.open("r+b") as file:
        file.truncate(1000)
    second.unlink()
    with pytest.raises(ShardError, match="ends inside a sample"):
        folder.ecg([0])
    with pytest.raises(ShardError, match="No such file"):
        folder.ecg([1])
