"""Ingest as a whole: counts, bytes that depend on nothing but the input, interruptions, bad input, and the real records."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import wfdb

from cmelt.config import IngestRecipe, load_recipe
from cmelt.errors import InputError, OutputError, ShardError
from cmelt.ingest import ingest
from cmelt.shards.read import ShardFolder

MakeRaw = Callable[..., Path]


def recipe(*changes: str, name: str = "clinical") -> IngestRecipe:
    """Return recipe `name` with 4 s windows and 5 samples a shard."""
    return load_recipe("ingest", name, ["signal.duration_s=4", "shards.samples_per_shard=5", *changes])


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file of `folder`, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rows_are_kept_or_refused_and_everything_agrees(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(12)
    (raw / "records500/00000/00003_hr.hea").unlink()
    dat = raw / "records500/00000/00004_hr.dat"
    dat.write_bytes(dat.read_bytes()[:-1])
    hea = raw / "records500/00000/00005_hr.hea"
    hea.write_text(hea.read_text().replace(" I\n", " I\n").replace("00005_hr.dat", "../00006_hr.dat"))
    summary = ingest("ptbxl", raw, tmp_path / "out", recipe(), workers=1)
    assert (summary.kept, summary.refused) == (9, {"missing_file": 1, "path_outside": 1, "truncated": 1})
    assert summary.classes == {"NORM": 4, "MI": 5, "STTC": 0, "CD": 0, "HYP": 0}
    rejects = {row["key"]: row for row in pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()}
    assert {key: row["reason"] for key, row in rejects.items()} == {
        "00003_hr": "missing_file",
        "00004_hr": "truncated",
        "00005_hr": "path_outside",
    }
    assert rejects["00004_hr"]["source"] == "records500/00000/00004_hr.hea"
    folder = ShardFolder(tmp_path / "out")
    assert folder.manifest["counts"]["rows"] == 12 == len(folder) + len(rejects)
    assert folder.manifest["counts"]["splits"] == dict(Counter(folder.column("split")))
    assert (folder.samples, folder.fs_hz) == (2000, 500)
    index_bytes = (tmp_path / "out/index.parquet").read_bytes()
    assert folder.manifest["index_sha256"] == hashlib.sha256(index_bytes).hexdigest()
    about = {"README.md", "croissant.json", "index.parquet", "manifest.json", "rejects.parquet"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == about | {shard["name"] for shard in folder.manifest["shards"]}


def test_the_bytes_do_not_depend_on_workers_or_places(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(23)
    ingest("ptbxl", raw, tmp_path / "one", recipe(), workers=1)
    shutil.copytree(raw, tmp_path / "elsewhere")
    ingest("ptbxl", tmp_path / "elsewhere", tmp_path / "two", recipe(), workers=2)
    one = files_of(tmp_path / "one")
    assert one == files_of(tmp_path / "two")
    assert not [name for name, data in one.items() if str(tmp_path).encode() in data]
    keys = ShardFolder(tmp_path / "one").column("key")
    assert keys != sorted(keys)
    ingest("ptbxl", raw, tmp_path / "seed", recipe("shards.seed=1"), workers=1)
    assert ShardFolder(tmp_path / "seed").column("key") != keys


def test_the_signal_hash_names_the_recording_not_the_recipe(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(6)
    hashes = []
    for name, changes in (("clinical", ["signal.fs_hz=250"]), ("paper", ["signal.duration_s=2"])):
        ingest("ptbxl", raw, tmp_path / name, recipe(*changes, name=name), workers=1)
        folder = ShardFolder(tmp_path / name)
        hashes.append(dict(zip(folder.column("key"), folder.column("signal_sha1"), strict=True)))
    assert hashes[0] == hashes[1]
    samples = wfdb.rdrecord(str(raw / "records500/00000/00002_hr")).p_signal.T
    assert hashes[0]["00002_hr"] == hashlib.sha1(np.rint(samples * 1000).astype("<i4").tobytes()).hexdigest()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # webdataset closes late
def test_webdataset_and_tar_read_the_shards(make_raw: MakeRaw, tmp_path: Path) -> None:
    import webdataset

    ingest("ptbxl", make_raw(7), tmp_path / "out", recipe(), workers=1)
    folder = ShardFolder(tmp_path / "out")
    urls = [str(tmp_path / "out" / shard["name"]) for shard in folder.manifest["shards"]]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    gc.collect()
    assert [sample["__key__"].rpartition("/")[2] for sample in samples] == folder.column("key")
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["ecg.npy"], folder.ecg([row])[0])
        index = folder.index.slice(row, 1).to_pylist()[0]
        assert sample["txt"] == index["report"]
        assert {name: sample["json"][name] for name in index if name in sample["json"]} == {
            name: value for name, value in index.items() if name not in ("shard", "ecg_offset", "ecg_bytes", "report")
        }
    subprocess.run(["tar", "xf", urls[0], "-C", str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / f"{folder.column('key')[0]}.ecg.npy"), folder.ecg([0])[0])


def test_a_rerun_finds_its_own_work(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    first = ingest("ptbxl", raw, out, recipe(), workers=1)
    again = ingest("ptbxl", raw, out, recipe(), workers=1)
    assert (first.done_before, again.done_before, again.kept) == (False, True, 12)
    with pytest.raises(OutputError, match=r"recipe\.signal\.fs_hz is 500\.0 there, 250\.0 now"):
        ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1)
    (raw / "records500/00000/00003_hr.hea").unlink()
    with pytest.raises(OutputError, match=r"recordings in the raw folder: 1 changed \(records500/00000/00003_hr.hea: missing_file\)\)"):
        ingest("ptbxl", raw, out, recipe(), workers=1)


def test_an_interrupted_ingest_goes_on(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(23), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    real, calls = sys.modules["cmelt.ingest"].make_windows, []

    def dies_at_the_thirteenth(*args: object) -> object:
        calls.append(args)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("cmelt.ingest.make_windows", dies_at_the_thirteenth)
    with pytest.raises(KeyboardInterrupt):
        ingest("ptbxl", raw, out, recipe(), workers=1)
    assert not (out / "manifest.json").exists()
    assert sorted(path.name for path in out.glob("*.tar*")) == ["ptbxl-000000.tar", "ptbxl-000001.tar"]
    with pytest.raises(ShardError, match="unfinished"):
        ShardFolder(out)
    with pytest.raises(OutputError, match="unfinished from another plan"):
        ingest("ptbxl", raw, out, recipe("signal.highpass_hz=1"), workers=1)
    (out / "ptbxl-000002.tar.part").write_bytes(b"half")
    calls.extend([()] * 20)
    ingest("ptbxl", raw, out, recipe(), workers=1)
    assert len(calls) == 13 + 20 + 13  # two shards were not done again
    assert files_of(out) == files_of(tmp_path / "whole")


def test_killed_at_any_moment_the_rerun_ends_in_the_same_bytes(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(40), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    code = "import sys; from cmelt.ingest import *; from cmelt.config import load_recipe; ingest('ptbxl', sys.argv[1], sys.argv[2], "
    code += "load_recipe('ingest', 'clinical', ['signal.duration_s=4', 'shards.samples_per_shard=5']), workers=1)"
    for shards in (0, 4):  # killed once this many are there
        child = subprocess.Popen([sys.executable, "-c", code, str(raw), str(out)])
        while len(list(out.glob("*.tar"))) < shards or not (out / ".cmelt").exists():
            if child.poll() is not None:
                break
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL) if child.poll() is None else None
        child.wait()
    ingest("ptbxl", raw, out, recipe(), workers=1)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_a_place_that_holds_something_else_is_left_alone(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for out, words in ((tmp_path / "full", "holds something else"), (tmp_path / "file", "is a file"), (raw, "holds something else")):
        before = files_of(tmp_path)
        with pytest.raises(OutputError, match=words):
            ingest("ptbxl", raw, out, recipe(), workers=1)
        assert files_of(tmp_path) == before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/manifest.json").write_text('{"name": "web app"}')
    with pytest.raises((OutputError, ShardError)):
        ingest("ptbxl", raw, tmp_path / "foreign", recipe(), workers=1)


def test_a_raw_folder_without_its_table_leaves_no_output(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match=r"ptbxl_database\.csv"):
        ingest("ptbxl", tmp_path / "raw", tmp_path / "out", recipe(), workers=1)
    assert not (tmp_path / "out").exists()


def test_all_records_missing_is_a_folder_without_samples(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(4)
    for file in raw.rglob("*_hr.dat"):
        file.write_bytes(b"")
    summary = ingest("ptbxl", raw, tmp_path / "out", recipe(), workers=1)
    assert (summary.kept, summary.refused, len(ShardFolder(tmp_path / "out"))) == (0, {"truncated": 4}, 0)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_full_disk_is_one_clear_error(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(4), tmp_path / "out"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cmelt.files.os.fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            ingest("ptbxl", raw, out, recipe(), workers=1)
    assert not [path for path in out.rglob("*") if path.is_file()]
    assert ingest("ptbxl", raw, out, recipe(), workers=1).kept == 4


def test_simulated_input_is_called_so(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw = make_raw(3)
    (raw / "SIMULATED").touch()
    ingest("ptbxl", raw, tmp_path / "out", recipe(), workers=1)
    folder = ShardFolder(tmp_path / "out")
    assert folder.manifest["dataset"] == "ptbxl-simulated"
    assert folder.manifest["shards"][0]["name"] == "ptbxl-simulated-000000.tar"
    assert "SIMULATED" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(("records100", "kept"), [(False, 637), (True, 500)])
def test_the_real_records(realdata: Path, tmp_path: Path, records100: bool, kept: int) -> None:
    raw = realdata / "ptbxl"
    paper = load_recipe("ingest", "paper", ["signal.fs_hz=100"] if records100 else [])
    summary = ingest("ptbxl", raw, tmp_path / "out", paper, workers=1, records100=records100)
    assert (summary.kept, summary.refused) == (kept, {"missing_file": 21_837 - kept})
    folder = ShardFolder(tmp_path / "out")
    sources = folder.column("source")
    ecg = folder.ecg_mv(range(kept))
    for row in range(0, kept, 5):
        truth = wfdb.rdrecord(str(raw / sources[row]).removesuffix(".hea")).p_signal.T
        assert np.abs(ecg[row] - truth).max() <= 0.0005
    assert folder.manifest["dataset_version"] == "1.0.1"
    with tarfile.open(tmp_path / "out" / folder.manifest["shards"][0]["name"]) as tar:
        first = np.load(io.BytesIO(tar.extractfile(tar.next()).read()))
    np.testing.assert_array_equal(first, folder.ecg([0])[0])
    assert json.loads((tmp_path / "out/manifest.json").read_bytes())["counts"]["kept"] == kept
