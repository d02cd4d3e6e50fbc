"""Files are there whole or not at all, and what stops their writing is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import cmelt.files
from cmelt.errors import OutputError
from cmelt.files import open_whole, whole, write_json, write_whole


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x"
    with pytest.raises(TypeError), open_whole(target) as file:
        file.writelines([b"half", ""])  # type: ignore[list-item]
    assert list(target.parent.iterdir()) == []
    write_whole(target, b"old")
    with open_whole(target) as file:
        file.write(b"whole")
        file.flush()
        assert target.read_bytes() == b"old"
    with whole(target.with_name("y")) as part:
        part.write_text("by name")
    write_json(target.with_name("z"), {"a": "µ"})
    assert {path.name: path.read_text("utf-8") for path in target.parent.iterdir()} == {
        "x": "whole",
        "y": "by name",
        "z": '{\n "a": "µ"\n}\n',
    }


def test_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, str]] = []

    def fsync(handle: int) -> None:
        synced.append(((tmp_path / "x").exists(), Path(f"/proc/self/fd/{handle}").readlink().name[:2]))

    monkeypatch.setattr(cmelt.files.os, "fsync", fsync)
    write_whole(tmp_path / "x", b"data")
    assert synced == [(False, "x."), (True, tmp_path.name[:2])]


def test_only_what_stops_the_writing_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file/x", tmp_path / "folder", Path("/proc/nowhere/x"), Path("/proc/x")):
        with pytest.raises(OutputError, match=f"cannot write {path}: .* make room or rights there, or choose another place"):
            write_whole(path, b"")
    with pytest.raises(FileNotFoundError), open_whole(tmp_path / "x"):
        Path(tmp_path, "a raw file that is gone").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
