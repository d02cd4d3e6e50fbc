"""Shards of a URL: fetched whole, once, ahead, within a limit; what arrives damaged is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from cmelt.errors import OutputError, ShardError
from cmelt.remote import Remote
from cmelt.shards.cache import ShardCache
from cmelt.shards.read import ShardFolder
from tests.laid import lay

URL = "memory://bucket/shards"
SIZES = (5, 4, 6, 1, 5, 5)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Path]:
    """Return a shard folder that lies at URL, too."""
    folder = lay(tmp_path / "shards", SIZES)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/shards", recursive=True)
    yield folder
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the downloads by name."""
    real, count = Remote.get, Counter[str]()

    def get(remote: Remote, path: str, file: Path) -> None:
        count[path] += 1
        real(remote, path, file)

    monkeypatch.setattr(Remote, "get", get)
    return count


def used(root: Path) -> int:
    """Return the bytes that a cache holds."""
    return sum(file.stat().st_size for file in root.glob("*"))


def test_a_folder_at_a_url_reads_as_a_local_one(local: Path, tmp_path: Path, fetched: Counter[str]) -> None:
    here, there = ShardFolder(local), ShardFolder(URL, ShardCache(root=tmp_path / "cache"))
    assert there.index.equals(here.index)
    assert there.bad_shards() == {}
    rows = np.random.default_rng(0).permutation(26)
    assert not fetched
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: there.ecg(rows), range(8)):
            np.testing.assert_array_equal(found, here.ecg(rows))
    assert set(fetched.values()) == {1}
    again = ShardFolder(URL, ShardCache(root=tmp_path / "cache"))  # another run
    np.testing.assert_array_equal(again.ecg_mv(rows), here.ecg_mv(rows))
    assert set(fetched.values()) == {1}
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".tar"}


def test_room_is_made_by_what_was_used_longest_ago(local: Path, tmp_path: Path, fetched: Counter[str]) -> None:
    sizes = [shard["bytes"] for shard in ShardFolder(local).manifest["shards"]]
    limit = sizes[0] + sizes[2] + sizes[4] + 1000
    folder = ShardFolder(URL, ShardCache(limit, tmp_path / "cache"))
    first = np.cumsum([0, *SIZES])
    for shard in (0, 1, 0, 2, 4, 0, 1):  # 4 takes the place of 1, which was used before 0 was again
        np.testing.assert_array_equal(folder.ecg([first[shard]]), ShardFolder(local).ecg([first[shard]]))
        assert used(tmp_path / "cache") <= limit
    assert dict(fetched) == {f"made-{n:06d}.tar": times for n, times in ((0, 1), (1, 2), (2, 1), (4, 1))}
    with pytest.raises(ShardError, match=r"made-000000\.tar does not fit into .* raise data\.cache_gb"):
        ShardFolder(URL, ShardCache(1000, tmp_path / "small")).ecg([0])


def test_what_is_expected_comes_ahead_and_stays(local: Path, tmp_path: Path, fetched: Counter[str]) -> None:
    sizes = [shard["bytes"] for shard in ShardFolder(local).manifest["shards"]]
    cache = ShardCache(sizes[0] + sizes[1] + sizes[3] + 1000, tmp_path / "cache")
    folder = ShardFolder(URL, cache)
    folder.ecg([20, 0])  # shards 4 and 0
    cache.expect(folder.wanted([3, 0, 1]))
    for future in list(cache._ahead.values()):
        future.result(10)
    assert sorted(fetched) == [f"made-{number:06d}.tar" for number in (0, 1, 3, 4)]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 3
    folder.ecg([0, 5, 15])
    assert fetched.total() == 4  # it was there
    cache.expect([])


def test_what_arrives_damaged_or_not_at_all_is_named(
    local: Path, tmp_path: Path, fetched: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    names = [f"/bucket/shards/made-{number:06d}.tar" for number in range(6)]
    content = memory.cat_file(names[0])
    memory.pipe_file(names[0], content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    memory.pipe_file(names[1], content[:-512])
    memory.rm_file(names[2])
    folder = ShardFolder(URL, ShardCache(root=tmp_path / "cache"))
    assert folder.bad_shards() == {"made-000001.tar": f"has {len(content) - 512} bytes of {folder.manifest['shards'][1]['bytes']}"} | {
        "made-000002.tar": "is missing"
    }
    for row, said in ((0, "has changed: its hash"), (5, r"has \d+ bytes of"), (9, "is missing")):
        with pytest.raises(ShardError, match=rf"memory://bucket/shards/made-00000\d\.tar {said}"):
            folder.ecg([row])
    assert fetched["made-000000.tar"] == 2  # it was tried again
    assert not list((tmp_path / "cache").iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(memory), "get_file", full)
    with pytest.raises(OutputError, match="No space left"):
        folder.ecg([15])


def test_a_folder_without_a_manifest_is_none(local: Path) -> None:
    fsspec.filesystem("memory").rm_file("/bucket/shards/manifest.json")
    with pytest.raises(ShardError, match=r"memory://bucket/shards has no manifest\.json"):
        ShardFolder(URL)
