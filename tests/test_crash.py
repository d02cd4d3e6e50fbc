"""What goes wrong costs nothing: killed leaders and workers, lost Dask workers, full disks; the rerun ends in the same bytes.

tests/benchmarks/kill_ingest.py does the same at twenty moments and more.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from cmelt.errors import InputError, MissingExtra, OutputError
from cmelt.ingest import ingest
from tests.benchmarks.crash_points import WAYS
from tests.benchmarks.kill_ingest import WORKER, cluster, disturb, spawned
from tests.test_ingest import files_of, recipe

MakeRaw = Callable[..., Path]

dask_warns = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)


def test_leader_and_workers_killed(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(40)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    told = disturb("two", raw, tmp_path / "out", 3, random.Random(4), 3.0)
    assert told["leader"] + told["worker"] == 3
    assert all(files_of(place) == files_of(tmp_path / "whole") for place in tmp_path.glob("out*"))


@pytest.mark.parametrize("way", WAYS)
def test_killed_before_a_change_of_the_folder(way: str) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.crash_points", "--every", "12", "--ways", way, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)  # a process of its own: it forks
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout)[way] > 3


def test_any_executor_makes_shards(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(23)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    asked: list[int] = []

    def threads(workers: int) -> Executor:
        asked.append(workers)
        return ThreadPoolExecutor(workers)

    made = ingest("ptbxl", raw, tmp_path / "out", recipe(), workers=3, executor=threads)
    assert asked == [3]
    assert [shard.planned for shard in made.shards] == [5, 5, 5, 5, 3]
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@dask_warns
def test_a_dask_worker_is_lost(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(60), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    lost: list[int] = []
    with cluster() as (address, below):

        def lose_one() -> None:
            while not lost and not done.is_set():
                if list(out.glob("*.tar")):
                    lost.append(random.choice(spawned(below, WORKER["dask"])))
                    os.kill(lost[0], signal.SIGKILL)
                done.wait(0.002)

        done = threading.Event()
        thread = threading.Thread(target=lose_one)
        thread.start()
        try:
            summary = ingest("ptbxl", raw, out, recipe(), cluster=address)
        finally:
            done.set()
            thread.join()
    assert lost
    assert (summary.kept, len(summary.shards)) == (60, 12)
    assert files_of(out) == files_of(tmp_path / "whole")


@dask_warns
def test_no_dask_is_told(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_raw(6)
    (tmp_path / "file.json").write_text("{}")
    for said in ("nonsense://x", "127.0.0.1", "tcp://10.0.0.1", str(tmp_path / "file.json")):
        with pytest.raises(InputError, match="is no Dask scheduler"):
            ingest("ptbxl", raw, tmp_path / "out", recipe(), cluster=said)
    with pytest.raises(InputError, match="no Dask scheduler answers at nonsense://x:1"):
        ingest("ptbxl", raw, tmp_path / "out", recipe(), cluster="nonsense://x:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"cmelt\[dask\]"):
        ingest("ptbxl", raw, tmp_path / "out", recipe(), cluster="local")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 160 kB, or skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_runs_full(make_raw: MakeRaw, tmp_path: Path, small_disk: Path, workers: int) -> None:
    raw, out = make_raw(12), small_disk / "out"  # three shards: two of 250 kB, one of 100 kB
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    for size in ("160k", "400k", "640k"):  # no shard fits; some; not the index beside them
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        with pytest.raises(OutputError, match=r"No space left on device; make room"):
            ingest("ptbxl", raw, out, recipe(), workers=workers)
        assert not (out / "manifest.json").exists()
        assert not list(out.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    ingest("ptbxl", raw, out, recipe(), workers=workers)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_file_may_not_grow_on(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (3_000, 120_000):  # not the plan; not a shard
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, was[1]))
        try:
            with pytest.raises(OutputError, match="File too large; make room"):
                ingest("ptbxl", raw, out, recipe(), workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, was)
    ingest("ptbxl", raw, out, recipe(), workers=1)
    assert files_of(out) == files_of(tmp_path / "whole")
