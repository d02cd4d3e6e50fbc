"""Reading shards: rows in any order, many files, forks, and damage."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cmelt.config import load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.shards import read
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
