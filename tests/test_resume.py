"""An ingest that goes on: limits, dry runs, overwriting, growing, one at a time; and what status says meanwhile."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.errors import InputError, OutputError
from cmelt.estimate import estimate
from cmelt.ingest import ingest
from cmelt.shards.read import ShardFolder
from cmelt.shards.store import Store
from cmelt.status import status
from cmelt.verify import verify
from tests.test_ingest import files_of, recipe

MakeRaw = Callable[..., Path]


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Interrupt the ingest at its `call`-th recording."""
    real, calls = sys.modules["cmelt.ingest"].make_windows, []

    def make_windows(*args: object) -> object:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("cmelt.ingest.make_windows", make_windows)


def test_a_limit_counts_recordings_that_are_there(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    (raw / "records500/00000/00002_hr.hea").unlink()
    summary = ingest("ptbxl", raw, out, recipe(), workers=1, limit=3)
    assert (summary.kept, summary.refused, summary.manifest["counts"]["rows"]) == (3, {"missing_file": 1}, 4)
    assert sorted(ShardFolder(out).column("key")) == ["00001_hr", "00003_hr", "00004_hr"]
    with pytest.raises(OutputError, match=r"limit is 3 there, not set now\); --extend adds"):
        ingest("ptbxl", raw, out, recipe(), workers=1)
    assert ingest("ptbxl", raw, out, recipe(), workers=1, extend=True).kept == 11


def test_a_dry_run_tells_and_writes_nothing(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    (raw / "records500/00000/00002_hr.hea").unlink()
    found = estimate("ptbxl", raw, out, recipe(), workers=1)
    assert not out.exists()
    assert (found.rows, found.recordings, found.shards, found.refused, found.tried) == (12, 11, 3, {"missing_file": 1}, 8)
    summary = ingest("ptbxl", raw, out, recipe(), workers=1)
    assert found.bytes == pytest.approx(sum(shard["bytes"] for shard in summary.manifest["shards"]), rel=0.05)
    assert found.seconds >= 0
    assert found.free_bytes
    assert (found.shards_done, found.obstacle) == (0, "")
    assert estimate("ptbxl", raw, out, recipe(), workers=1).shards_done == 3
    other = recipe("signal.fs_hz=250")
    assert "fs_hz is 500.0 there, 250.0 now" in estimate("ptbxl", raw, out, other, workers=1).obstacle
    assert estimate("ptbxl", raw, out, other, workers=1, overwrite=True).obstacle == ""
    with pytest.raises(OutputError, match="something else"):
        estimate("ptbxl", raw, raw, recipe())
    with pytest.raises(InputError, match="give one of them"):
        estimate("ptbxl", raw, out, recipe(), overwrite=True, extend=True)


@pytest.mark.parametrize("finished", [True, False])
def test_changed_input_is_refused_by_name(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    if finished:
        ingest("ptbxl", raw, out, recipe(), workers=1)
    else:
        with monkeypatch.context() as patch:
            stop_at(patch, 7)
            with pytest.raises(KeyboardInterrupt):
                ingest("ptbxl", raw, out, recipe(), workers=1)
    make_raw(13)  # the same ones, and another
    table, header = raw / "ptbxl_database.csv", raw / "records500/00000/00003_hr.hea"
    said = table.read_text()
    header.unlink()
    table.write_text(said.replace("sinusrhythmus 7,\"{'NORM': 100", "sinusrhythmus,\"{'NORM': 99").replace("00009_hr", "00009_hx"))
    for file in raw.glob("records500/00000/00009_hr.*"):
        file.rename(file.with_stem("00009_hx"))
    with pytest.raises(OutputError, match="another plan") as error:
        ingest("ptbxl", raw, out, recipe(), workers=1)
    for words in (
        "2 new (records500/00000/00009_hx.hea; records500/00000/00013_hr.hea)",
        "1 gone (records500/00000/00009_hr.hea)",
        "2 changed (records500/00000/00007_hr.hea: report_raw, likelihoods; records500/00000/00003_hr.hea: missing_file)",
    ):
        assert words in str(error.value)
    make_raw(12)
    for key in ("00009_hx", "00013_hr"):
        (raw / f"records500/00000/{key}.hea").unlink()
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert ingest("ptbxl", raw, out, recipe(), workers=1).kept == 12  # in another order: the same plan
    table.write_text(table.read_text().replace(",52.0,", ",53.0,"))
    with pytest.raises(OutputError, match=r"\(the raw folder's table\)"):
        ingest("ptbxl", raw, out, recipe(), workers=1)


def test_overwriting_removes_only_what_cmelt_made(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "fresh", recipe("signal.fs_hz=250"), workers=1)
    ingest("ptbxl", raw, out, recipe(), workers=1)
    (out / "notes.txt").write_text("mine")
    before = files_of(out)
    with pytest.raises(OutputError, match=r"notes\.txt"):
        ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1, overwrite=True)
    assert files_of(out) == before
    (out / "notes.txt").unlink()
    real = Store.remove

    def dies_at_a_shard(store: Store, name: str) -> None:
        if name == "ptbxl-000001.tar":
            raise KeyboardInterrupt
        real(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", dies_at_a_shard)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1, overwrite=True)
    ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1)  # goes on removing, then begins anew
    assert files_of(out) == files_of(tmp_path / "fresh")
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, out, recipe(), workers=1, overwrite=True)
    ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1, overwrite=True)  # an unfinished one too
    assert files_of(out) == files_of(tmp_path / "fresh")
    with pytest.raises(OutputError, match="something else"):
        ingest("ptbxl", raw, raw, recipe(), workers=1, overwrite=True)
    with pytest.raises(InputError, match="give one of them"):
        ingest("ptbxl", raw, out, recipe(), workers=1, overwrite=True, extend=True)


def test_a_folder_grows_and_its_finished_shards_stay(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    broken = raw / "records500/00000/00004_hr.dat"
    good, gone = broken.read_bytes(), raw / "records500/00000/00003_hr.hea"
    broken.write_bytes(good[:-1])
    header = gone.read_text()
    gone.unlink()
    ingest("ptbxl", raw, out, recipe(), workers=1)
    ingest("ptbxl", raw, tmp_path / "twin", recipe(), workers=1)
    old = files_of(out)
    assert ingest("ptbxl", raw, out, recipe(), workers=1, extend=True).done_before
    broken.write_bytes(good)
    gone.write_text(header)
    make_raw(19)  # the first twelve are the same, and are whole now
    assert files_of(out) == old
    with pytest.raises(OutputError, match="cannot grow by recordings made otherwise"):
        ingest("ptbxl", raw, out, recipe("signal.fs_hz=250"), workers=1, extend=True)
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, out, recipe(), workers=1, extend=True)
    assert len(ShardFolder(out)) == 10  # still what it was
    assert (status(out)["state"], status(out)["shards_done"]) == ("stopped, growing", 1)
    grown = ingest("ptbxl", raw, out, recipe(), workers=1, extend=True)
    assert (grown.kept, grown.refused, grown.manifest["counts"]["rows"]) == (17, {"missing_file": 1, "truncated": 1}, 19)
    assert {name: data for name, data in files_of(out).items() if name in old and name.endswith(".tar")} == {
        name: data for name, data in old.items() if name.endswith(".tar")
    }
    ingest("ptbxl", raw, tmp_path / "twin", recipe(), workers=1, extend=True)
    assert files_of(out) == files_of(tmp_path / "twin")
    assert ingest("ptbxl", raw, out, recipe(), workers=1, extend=True).done_before
    whole = ingest("ptbxl", raw, out, recipe(), workers=1, retry_failed=True)
    assert (whole.kept, whole.refused, whole.manifest["counts"]["rows"]) == (19, {}, 19)
    assert len(set(ShardFolder(out).column("key"))) == 19
    verify(out)


def test_a_kill_while_a_folder_is_committed_again_is_mended(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    for place in (out, tmp_path / "twin"):
        ingest("ptbxl", raw, place, recipe(), workers=1, limit=7)
    ingest("ptbxl", raw, tmp_path / "twin", recipe(), workers=1, extend=True)
    real = Store.write
    for dies_at in ("README.md", "croissant.json", "manifest.json"):

        def write(store: Store, name: str, data: bytes, dies_at: str = dies_at) -> None:
            if name == dies_at:
                raise KeyboardInterrupt
            real(store, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", write)
            with pytest.raises(KeyboardInterrupt):
                ingest("ptbxl", raw, out, recipe(), workers=1, extend=True)
        assert not (out / "manifest.json").exists()
    ingest("ptbxl", raw, out, recipe(), workers=1, extend=True)
    assert files_of(out) == files_of(tmp_path / "twin")


def test_refused_ones_are_tried_again_in_an_unfinished_folder_too(
    make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    damaged = sorted(raw.glob("records500/00000/*.dat"))
    good = {file: file.read_bytes() for file in damaged}
    for file in damaged:
        file.write_bytes(b"")
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, out, recipe(), workers=1)
    for file, data in good.items():
        file.write_bytes(data)
    ingest("ptbxl", raw, out, recipe(), workers=1, retry_failed=True)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_one_ingest_at_a_time(make_raw: MakeRaw, tmp_path: Path) -> None:
    raw, out = make_raw(6), tmp_path / "out"
    store = Store(out)
    store.make()
    with store.alone():
        assert store.is_led
        with pytest.raises(OutputError, match="another ingest is writing"):
            ingest("ptbxl", raw, out, recipe(), workers=1)
    assert not store.is_led
    assert ingest("ptbxl", raw, out, recipe(), workers=1).kept == 6
    assert not (out / ".cmelt").exists()


def test_status_tells_how_far_it_is(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = make_raw(12), tmp_path / "out"
    (raw / "records500/00000/00004_hr.dat").write_bytes(b"")
    with monkeypatch.context() as patch:
        stop_at(patch, 11)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", raw, out, recipe(), workers=1)
    found = status(out)
    assert (found["state"], found["shards_done"], found["shards_planned"]) == ("stopped", 2, 3)
    assert (found["done"], found["planned"], found["samples"] + sum(found["refused"].values())) == (10, 12, 10)
    assert found["shards"][0]["seconds"] > 0
    shown = CliRunner().invoke(app, ["status", str(out)])
    assert "2 of 3 shards, 10 of 12 recordings" in shown.output
    assert "Run the same cmelt ingest command again" in shown.output
    summary = ingest("ptbxl", raw, out, recipe(), workers=1)
    assert [shard.name for shard in summary.shards] == ["ptbxl-000002.tar"]
    done = json.loads(CliRunner().invoke(app, ["status", str(out), "--json"]).output)
    assert (done["state"], done["samples"], done["refused"]) == ("finished", 11, {"truncated": 1})
    with pytest.raises(InputError, match="no shard folder"):
        status(raw)
