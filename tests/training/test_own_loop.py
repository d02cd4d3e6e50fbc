"""The two ways into a training loop of one's own, and the page that tells of them."""

from __future__ import annotations

import gc
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import cmelt
from cmelt.errors import InputError
from cmelt.shards.read import ShardFolder
from tests.conftest import REPOSITORY
from tests.laid import lay

pytestmark = pytest.mark.filterwarnings(  # webdataset leaves its tars to the garbage collector
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

PAGE = REPOSITORY / "docs" / "guides" / "own-loop.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 40 samples in three shards."""
    return lay(tmp_path_factory.mktemp("own") / "ptbxl", [20, 3, 17])


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let what webdataset left be collected while it may be."""
    yield
    gc.collect()


def test_a_data_set_by_number(folder: Path) -> None:
    data, shards = cmelt.ShardDataset([folder, folder], split="", where="fold < 9"), ShardFolder(folder)
    rows = shards.rows(where="fold < 9")
    assert len(data) == 2 * len(rows) == 64
    for number in (0, 31, 32, -1):
        row = rows[number % 32]
        sample = data[number]
        torch.testing.assert_close(sample["ecg"], torch.from_numpy(shards.ecg_mv([row])[0]))
        assert {name: sample[name] for name in ("key", "report", "codes", "fold")} == {
            name: shards.index.slice(int(row), 1).to_pylist()[0][name] for name in ("key", "report", "codes", "fold")
        }
    assert len(set(data.shard_of)) == 6
    with pytest.raises(IndexError):
        data[64]
    with pytest.raises(InputError, match="split 'trian': known are train"):
        cmelt.ShardDataset(folder, split="trian")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes(folder: Path, start: str) -> None:
    data = cmelt.ShardDataset(folder)
    assert data[0]["key"] == "000000"  # a file is open when the workers start
    loader = DataLoader(data, batch_size=8, num_workers=1, multiprocessing_context=start, collate_fn=list)
    keys = [sample["key"] for batch in loader for sample in batch]
    assert keys == [sample["key"] for sample in (data[number] for number in range(len(data)))]


def test_a_webdataset_pipeline_gives_the_same_samples(folder: Path) -> None:
    data = cmelt.ShardDataset(folder, split="train")
    expected = {sample["key"]: sample for sample in (data[number] for number in range(len(data)))}
    found = list(cmelt.webdataset(folder, shuffle=5, seed=1))
    assert sorted(sample["key"] for sample in found) == sorted(expected)
    assert [sample["key"] for sample in found] != sorted(expected)
    for sample in found:
        other = expected[sample["key"]]
        torch.testing.assert_close(sample.pop("ecg"), other.pop("ecg"))
        assert {name: value for name, value in sample.items() if name in other} == other
    assert [sample["fold"] for sample in cmelt.webdataset(folder, split="", shuffle=0)] == [number % 10 + 1 for number in range(40)]
    with pytest.raises(InputError, match=r"take cmelt\.ShardDataset"):
        cmelt.webdataset(_at_url(folder))


def _at_url(folder: Path) -> str:
    """Return a URL under which `folder` lies."""
    import fsspec

    fsspec.filesystem("memory").put(str(folder), "/own/ptbxl", recursive=True)
    return "memory://own/ptbxl"


@pytest.mark.parametrize("number", range(3))
def test_the_code_of_the_page_runs(folder: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 3
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "ptbxl").symlink_to(folder)
    (tmp_path / "page.py").write_text(blocks[number])
    monkeypatch.chdir(tmp_path)
    runpy.run_path("page.py")
