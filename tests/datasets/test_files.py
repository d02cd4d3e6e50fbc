"""Exported files, each written by another hand than the one that reads it: samples to one bit, who was recorded, and what is wrong."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cmelt.config import load_recipe
from cmelt.datasets import list_datasets, open_dataset
from cmelt.datasets.splits import seeded_fold
from cmelt.errors import InputError, MissingExtra, RecordError
from cmelt.exports import lead_name
from cmelt.ingest import ingest
from cmelt.raw import Raw
from cmelt.record import LEADS, Refused, Source
from cmelt.shards.read import ShardFolder
from cmelt.signal.exports import decode_export
from tests.conftest import beats
from tests.datasets import exports


@pytest.fixture
def mv() -> np.ndarray:
    return beats(np.random.default_rng(5), 10, 500) / 1000


def write_npy(file: Path, mv: np.ndarray) -> None:
    np.save(file, np.rint(mv.T * 200).astype("<i2"))
    about = {"fs_hz": 500, "gain_adu_per_mv": 200, "patient": "N-1", "age": 33, "sex": "f", "report": "Normal ECG.", "labels": ["SR"]}
    file.with_suffix(".json").write_text(json.dumps(about))


def write_csv(file: Path, mv: np.ndarray) -> None:
    lines = [";".join(["time", *LEADS]), *(";".join([f"{at / 500:.3f}", *(f"{v * 1000:.0f}" for v in row)]) for at, row in enumerate(mv.T))]
    file.write_text("\n".join(lines).replace(".", ","), encoding="utf-8-sig")
    file.with_suffix(".json").write_text('{"fs_hz": 500, "unit": "uV", "patient": "C-2"}')


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], object], float, int]] = {
    "muse": ("a.xml", exports.muse, 4.88, 8),
    "aecg": ("a.xml", exports.aecg, 2.5, 12),
    "dicom": ("1.2.840.10008", exports.dicom, 1.25, 12),
    "dicom-baseline": ("a.DCM", lambda file, mv: exports.dicom(file, mv, baseline_uv=130.0), 1.25, 12),
    "edf": ("a.edf", exports.edf, 10000 / 65535, 12),
    "scp": ("a.scp", exports.scp, 2.5, 8),
    "scp-plain": ("a.scp", lambda file, mv: exports.scp(file, mv[:, :2500], huffman=False), 2.5, 8),
    "npy": ("a.npy", write_npy, 5.0, 12),
    "csv": ("a.csv", write_csv, 1.0, 12),
}
"""Name → file, writer, µV of a bit, leads in the file."""


@pytest.mark.parametrize("kind", WRITERS)
def test_samples_are_right_to_a_bit(tmp_path: Path, mv: np.ndarray, kind: str) -> None:
    name, write, uv_per_bit, leads = WRITERS[kind]
    write(tmp_path / name, mv)
    decoded = decode_export(Raw(tmp_path), name)
    rows = sorted(decoded.present)
    assert (decoded.fs_hz, len(rows)) == (500, leads)
    expected = mv[rows, : decoded.signal.shape[1]]
    assert decoded.signal.shape[1] == (2500 if kind == "scp-plain" else mv.shape[1])
    bits = 1 if kind == "edf" else 0.5  # its writer cuts off, the others round
    assert np.abs(decoded.signal[rows] - expected).max() * 1000 <= uv_per_bit * bits + 1e-3


def test_folder_to_shards_with_a_table(tmp_path: Path, mv: np.ndarray) -> None:
    raw = tmp_path / "raw"
    for kind, (name, write, *_) in WRITERS.items():
        if kind != "scp-plain":
            (raw / kind).mkdir(parents=True)
            write(raw / kind / name, mv)
    (raw / "note.txt").write_text("no recording")
    table = raw / "table.csv"
    table.write_text("key,report,labels,patient\nedf/a,written by hand,SR;AF,P1\nnowhere,x,,\n")
    summary = ingest("files", raw, tmp_path / "out", load_recipe("ingest", "paper", []), workers=1, table=table)
    folder = ShardFolder(tmp_path / "out")
    assert summary.refused == {"missing_file": 1}
    assert "patient id" in folder.manifest["split_rule"]
    rows = {row["source"].partition("/")[0]: row for row in folder.index.to_pylist()}
    about = {kind: (row["patient_id"], row["age"], row["sex"], row["device"], row["report_raw"]) for kind, row in rows.items()}
    assert about == {
        "muse": ("M-17", 61, "female", "MAC55", "Sinus rhythm. Possible left atrial enlargement"),
        "aecg": ("A-9", 69, "male", "ELI 350", "Atrial fibrillation. Abnormal ECG <1>"),
        "dicom": ("D-3", 72, "female", "PageWriter TC50", "Left bundle branch block"),
        "dicom-baseline": ("D-3", 72, "female", "PageWriter TC50", "Left bundle branch block"),
        "edf": ("P1", 59, "female", "holter 7", "written by hand"),
        "scp": ("S-8", 55, "male", "ELI250", "Sinus rhythm"),
        "npy": ("N-1", 33, "female", "", "Normal ECG"),
        "csv": ("C-2", None, "", "", ""),
    }
    assert rows["edf"]["codes"] == ["SR", "AF"]
    assert rows["npy"]["codes"] == ["SR"]
    assert rows["dicom"]["fold"] == rows["dicom-baseline"]["fold"] == seeded_fold("D-3")
    assert {kind for kind, row in rows.items() if "leads_derived" in row["flags"]} == {"muse", "scp"}
    order = [row["source"].partition("/")[0] for row in folder.index.to_pylist()]
    for kind, ecg in zip(order, folder.ecg_mv(range(len(folder))), strict=True):
        assert np.abs(ecg - mv).max() * 1000 < 2 * WRITERS[kind][2] + 1, kind  # two leads' roundings in a derived one
    assert not any("Doe" in str(row) or "Björk" in str(row) for row in rows.values())


def test_it_is_listed_and_read_from_a_zip(tmp_path: Path, mv: np.ndarray) -> None:
    assert "files" in [row["name"] for row in list_datasets()]
    (tmp_path / "raw").mkdir()
    exports.scp(tmp_path / "raw/x.1.scp", mv)
    exports.muse(tmp_path / "raw/x.1.xml", mv)
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as out:
        for file in sorted((tmp_path / "raw").iterdir()):
            out.write(file, f"raw/{file.name}")
    found = list(open_dataset("files", Raw(tmp_path / "raw.zip")).sources())
    assert [source.key for source in found if isinstance(source, Source)] == ["x_1_scp", "x_1_xml"]
    assert decode_export(Raw(tmp_path / "raw.zip"), "x.1.scp").fs_hz == 500
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds none of"):
        list(open_dataset("files", Raw(tmp_path / "none")).sources())


BOMB = '<!DOCTYPE RestingECG [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><RestingECG>&b;</RestingECG>'
OUTSIDE = '<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "file:///etc/hostname">]><RestingECG>&a;</RestingECG>'


def test_bad_files_are_refused_with_their_reason(tmp_path: Path, mv: np.ndarray) -> None:
    raw = tmp_path / "raw"
    for kind, (name, write, *_) in WRITERS.items():
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / name, mv)

    def damaged(kind: str, file: str, old: bytes, new: bytes, count: int = 1) -> None:
        data = (tmp_path / kind / WRITERS[kind][0]).read_bytes()
        assert old in data, (kind, old)
        (raw / file).write_bytes(data.replace(old, new, count))

    raw.mkdir()
    (raw / "bomb.xml").write_text(BOMB)
    (raw / "outside.xml").write_text(OUTSIDE)
    (raw / "other.xml").write_text("<html/>")
    (raw / "cut.xml").write_bytes((tmp_path / "muse/a.xml").read_bytes()[:50_000])
    damaged("muse", "claims.xml", b"<LeadSampleCountTotal>5000<", b"<LeadSampleCountTotal>1000000000000<")
    damaged("muse", "unit.xml", b"MICROVOLTS", b"ACORNS", 99)
    damaged("muse", "rate.xml", b"<SampleExponent>0<", b"<SampleExponent>-9<", 2)
    damaged("muse", "base64.xml", b"<WaveFormData>\n", b"<WaveFormData>\n!", 99)
    damaged("aecg", "digits.xml", b"<digits>", b"<digits>x", 1)
    damaged("aecg", "unequal.xml", b"<digits>", b"<digits>7 ", 1)
    damaged("aecg", "few.xml", b"MDC_ECG_LEAD_V", b"MDC_ECG_LEAD_U", 99)
    (raw / "cut.dcm").write_bytes((tmp_path / "dicom/1.2.840.10008").read_bytes()[:60_000])
    damaged("dicom", "claims.dcm", (5000).to_bytes(4, "little"), (4_000_000_000).to_bytes(4, "little"))
    damaged("dicom", "deflated.dcm", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99")
    damaged("dicom", "unit.dcm", b"uV", b"mm", 99)
    (raw / "cut.edf").write_bytes((tmp_path / "edf/a.edf").read_bytes()[:30_000])
    damaged("edf", "claims.edf", b"10      1 ", b"99999999" + b"1 ")
    (raw / "cut.scp").write_bytes((tmp_path / "scp/a.scp").read_bytes()[:9_000])
    damaged("scp", "claims.scp", (5000).to_bytes(4, "little"), (4_000_000_000).to_bytes(4, "little"), 8)
    np.save(raw / "objects.npy", np.array([{}], object), allow_pickle=True)
    (raw / "cut.npy").write_bytes((tmp_path / "npy/a.npy").read_bytes()[:1000])
    damaged("npy", "claims.npy", b"(5000, 12), }", b"(9999999999, 12), }")
    shutil.copy(tmp_path / "npy/a.npy", raw / "silent.npy")
    (raw / "words.csv").write_text("I,II\n1,2\nx,3\n")
    for name in ("objects", "cut", "claims", "words"):
        (raw / f"{name}.json").write_text('{"fs_hz": 500, "unit": "mV"}')
    (raw / "empty.edf").write_bytes(b"")
    (raw / "badlayout.npy").write_bytes((tmp_path / "npy/a.npy").read_bytes())
    (raw / "badlayout.json").write_text("[" * 100_000)
    summary = ingest("files", raw, tmp_path / "out", load_recipe("ingest", "paper", []), workers=1)
    reasons = {row["source"]: row["reason"] for row in pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()}
    assert summary.kept == 0, ShardFolder(tmp_path / "out").column("source")
    other = {
        "claims.xml": "truncated",
        "unit.xml": "bad_header",
        "rate.xml": "bad_header",
        "few.xml": "missing_leads",
        "cut.dcm": "truncated",
        "claims.dcm": "truncated",
        "unit.dcm": "bad_header",
        "cut.edf": "truncated",
        "claims.edf": "truncated",
        "cut.npy": "truncated",
        "claims.npy": "truncated",
        "silent.npy": "bad_header",
        "badlayout.npy": "bad_header",
    }
    assert reasons == dict.fromkeys(sorted(file.name for file in raw.iterdir() if file.suffix != ".json"), "unreadable") | other


def test_an_error_says_which_extra_is_missing(tmp_path: Path, mv: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, module, extra in (
        ("muse", "defusedxml.ElementTree", "xml"),
        ("dicom", "pydicom", "dicom"),
        ("edf", "edfio", "edf"),
        ("scp", "ecgdatakit.parsing.parsers.scp_ecg", "scp"),
    ):
        (tmp_path / kind).mkdir()
        WRITERS[kind][1](tmp_path / kind / WRITERS[kind][0], mv)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtra, match=rf"cmelt\[{extra}\]"):
            list(open_dataset("files", Raw(tmp_path / kind)).sources())


def test_damaged_at_random_every_file_is_a_recording_or_a_reason(tmp_path: Path, mv: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    refused = 0
    for name, write, *_ in WRITERS.values():
        write(tmp_path / name, mv[:, :1500])
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            data = bytearray(whole[: int(rng.integers(len(whole)))] if rng.random() < 0.3 else whole)
            for at in rng.integers(0, min(len(data), 3000) or 1, rng.integers(1, 6)):
                data[at : at + 1] = bytes([int(rng.integers(256))])
            (tmp_path / name).write_bytes(data)
            found = [item for item in open_dataset("files", Raw(tmp_path)).sources() if item.path == name]
            refused += any(isinstance(item, Refused) for item in found)
            try:
                decode_export(Raw(tmp_path), name)
            except RecordError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("said", "name"),
    [("MDC_ECG_LEAD_AVR", "aVR"), ("Lead II (Einthoven)", "II"), ("EKG avl", "aVL"), ("ECG_V3", "V3"), ("-aVR", "-aVR"), ("MLII", "MLII"),
     ("V7", "V7"), ("EEG Fp1", "EEG Fp1"), ("ECGI", "I")],
)  # fmt: skip
def test_leads_are_known_by_their_names(said: str, name: str) -> None:
    assert lead_name(said) == name
