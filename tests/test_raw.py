"""A raw data set is read alike from its folder and from its zip, and never beyond either."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cmelt.errors import InputError, RecordError
from cmelt.raw import Raw

FILES = {"RECORDS": b"a/r1\n", "a/r1.hea": b"r1 1 500 4\n" * 40, "a/r1.dat": bytes(range(256)) * 64, "a/b/R2.HEA": b"", "æ/ö.hea": b"x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(data)
    return tmp_path / "raw"


@pytest.fixture(params=["folder", "stored", "deflated", "unpacked", "no top folder", "zip64"])
def raw(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Raw:
    if request.param == "folder":
        return Raw(folder)
    if request.param == "zip64":
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    if request.param == "unpacked":
        monkeypatch.setattr("cmelt.archive.IN_MEMORY", 100)
    kind = zipfile.ZIP_STORED if request.param == "stored" else zipfile.ZIP_DEFLATED
    top = "" if request.param == "no top folder" else "the-data-set-1.0.3/"
    file = folder.with_name("download.zip")
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in FILES.items():
            archive.writestr(top + name, data)
    return Raw(file)


def test_folder_and_zip_are_read_alike(raw: Raw) -> None:
    assert {name: raw.read(name) for name in FILES} == FILES
    assert {name: raw.size(name) for name in FILES} == {name: len(data) for name, data in FILES.items()}
    assert raw.read("a/r1.dat", 300) == FILES["a/r1.dat"][:300]
    with raw.open("a/r1.dat") as file:
        assert (file.seek(-3, 2), file.read()) == (16_381, FILES["a/r1.dat"][-3:])
        assert (file.seek(250), file.read(20), file.tell()) == (250, FILES["a/r1.dat"][250:270], 270)
        assert (file.seek(20_000), file.read(5)) == (20_000, b"")
    assert sorted(raw.files(".hea")) == ["a/b/R2.HEA", "a/r1.hea", "æ/ö.hea"]
    assert raw.exists("a/r1.hea")
    assert not raw.exists("a")
    assert not raw.exists("a/r9.hea")
    with raw.on_disk(["a/r1.hea", "a/r1.dat"]) as there:
        assert Path(there, "a/r1.dat").read_bytes() == FILES["a/r1.dat"]
    with pytest.raises(RecordError, match="missing_file"):
        raw.read("a/r9.hea")
    for path in ("../x", "/etc/hostname", "a/../../x", "a\\b", ""):
        with pytest.raises(RecordError, match="path_outside"):
            raw.read(path)


def test_damaged_zips_are_told(folder: Path) -> None:
    file = folder.with_name("download.zip")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("top/a.dat", b"a" * 1000)
    data = file.read_bytes()
    file.with_name("cut.zip").write_bytes(data[:-30])
    with pytest.raises(InputError, match="download it again"):
        Raw(file.with_name("cut.zip"))
    file.with_name("bit.zip").write_bytes(data.replace(b"a" * 500, b"a" * 499 + b"b", 1))
    with pytest.raises(RecordError, match="damaged"):
        Raw(file.with_name("bit.zip")).read("a.dat")
    with pytest.raises(InputError, match="not a folder"):
        Raw(folder / "nowhere")


def test_what_is_packed_is_unpacked_whole_or_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmelt.archive.IN_MEMORY", 100)
    file, data = folder.with_name("download.zip"), b"".join(bytes([n % 251]) * 50 for n in range(60_000))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("top/big.hdf5", data)
    with Raw(file).open("big.hdf5") as opened:
        assert opened.read() == data
    packed = bytearray(file.read_bytes())
    packed[len(packed) // 2] ^= 1
    file.with_name("bit.zip").write_bytes(packed)
    with pytest.raises(RecordError, match="unreadable"):
        Raw(file.with_name("bit.zip")).open("big.hdf5")
    monkeypatch.setattr("cmelt.archive.MOST_UNPACKED", 1000)
    with pytest.raises(RecordError, match="3,000,000 bytes, packed; unpack the zip first"):
        Raw(file).open("big.hdf5")


def test_a_link_to_a_folder_above_is_not_followed_for_ever(folder: Path) -> None:
    (folder / "a" / "up").symlink_to(folder)
    (folder / "side").symlink_to(folder / "a" / "b")
    assert list(Raw(folder).files(".hea")) == ["a/b/R2.HEA", "a/r1.hea", "side/R2.HEA", "æ/ö.hea"]
