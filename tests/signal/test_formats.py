"""Records whose channels differ in file, gain, format, skew or samples a frame are what wfdb says they are; in a zip too."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import wfdb

from cmelt.errors import RecordError
from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.decode import decode


def stored(seed: int, samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1500, 1500, (samples, channels)).astype("<i2")


def equal_to_wfdb(folder: Path, name: str = "r") -> None:
    record = wfdb.rdrecord(str(folder / name))
    decoded = decode(Raw(folder), f"{name}.hea")
    expected = dict(zip(record.sig_name, record.p_signal.T, strict=True))
    assert decoded.fs_hz == record.fs
    for row, lead in enumerate(LEADS):
        if lead in expected:
            np.testing.assert_allclose(decoded.signal[row], expected[lead], rtol=1e-6, atol=1e-6)
        else:
            assert np.isnan(decoded.signal[row]).all()


def equal_in_a_zip(folder: Path, name: str = "r") -> None:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"top/{file.name}")
    zipped, plain = (decode(Raw(raw), f"{name}.hea") for raw in (folder.with_suffix(".zip"), folder))
    assert zipped.signal_sha1 == plain.signal_sha1


def write(folder: Path, name: str, leads: list[str], samples: int, form: str = "16", seed: int = 0) -> None:
    """Write a record of noise with wfdb, each lead at its own gain; eight bits hold it."""
    mv = np.random.default_rng(seed).normal(0, 0.3, (samples, len(leads))).clip(-0.5, 0.5)
    folder.mkdir(exist_ok=True)
    gains = [200.0 + 10 * at for at in range(len(leads))]
    forms, zeros = [form] * len(leads), [0] * len(leads)
    units = ["mV"] * len(leads)
    wfdb.wrsamp(name, 500, units, leads, p_signal=mv, fmt=forms, adc_gain=gains, baseline=zeros, write_dir=str(folder))


@pytest.mark.parametrize("form", ["508", "516", "524"])
def test_flac(tmp_path: Path, form: str) -> None:
    write(tmp_path / "raw", "r", ["V1", "I", "II"], 1234, form)
    equal_to_wfdb(tmp_path / "raw")
    equal_in_a_zip(tmp_path / "raw")
    (tmp_path / "raw/r.dat").write_bytes((tmp_path / "raw/r.dat").read_bytes()[:300])
    with pytest.raises(RecordError, match=r"unreadable|truncated"):
        decode(Raw(tmp_path / "raw"), "r.hea")


def test_segments_with_a_gap_and_other_leads(tmp_path: Path) -> None:
    """A variable layout: a lead that a segment lacks, and a stretch without any, are not a number; a seam is where it was."""
    raw = tmp_path / "raw"
    write(raw, "s1", ["I", "II", "V1"], 500, seed=1)
    write(raw, "s2", ["V1", "I"], 700, seed=2)
    lines = ["layout 3 500 0", *(f"~ 0 200/mV 12 0 0 0 0 {lead}" for lead in ("I", "II", "V1"))]
    (raw / "layout.hea").write_text("\n".join(lines) + "\n")
    (raw / "r.hea").write_text("r/4 3 500 1500\nlayout 0\ns1 500\n~ 300\ns2 700\n")
    equal_to_wfdb(raw)
    equal_in_a_zip(raw)
    signal = decode(Raw(raw), "r.hea").signal
    gaps = {lead: int(np.isnan(signal[LEADS.index(lead)]).sum()) for lead in ("I", "II", "V1")}
    assert gaps == {"I": 300, "II": 1000, "V1": 300}


def test_a_file_a_gain_and_a_format_for_each_lead(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(stored(0, 500, 2).tobytes())
    (tmp_path / "b.dat").write_bytes(b"\0" * 24 + stored(1, 500).tobytes())
    (tmp_path / "c.dat").write_bytes(np.random.default_rng(2).bytes(500))
    lines = ["r 4 500 500", "a.dat 16 1000(10)/mV 16 0 0 0 0 II", "a.dat 16 200/uV 16 5 0 0 0 I", "b.dat 16+24 500/mV 16 0 0 0 0 V3"]
    (tmp_path / "r.hea").write_text("\n".join([*lines[:3], lines[3], "c.dat 80 100/mV 8 0 0 0 0 V1"]) + "\n")
    record = wfdb.rdrecord(str(tmp_path / "r"))
    record.p_signal[:, record.sig_name.index("I")] *= 1e-3  # wfdb leaves µV as they are
    decoded = decode(Raw(tmp_path), "r.hea")
    for lead, values in zip(record.sig_name, record.p_signal.T, strict=True):
        np.testing.assert_allclose(decoded.signal[LEADS.index(lead)], values, atol=1e-6)


def test_skew(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(stored(0, 500, 2).tobytes())
    (tmp_path / "r.hea").write_text("r 2 500 500\na.dat 16 1000/mV 16 0 0 0 0 I\na.dat 16:5 1000/mV 16 0 0 0 0 II\n")
    equal_to_wfdb(tmp_path)


def test_several_samples_a_frame(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(stored(0, 1500).tobytes())
    (tmp_path / "r.hea").write_text("r 2 250 500\na.dat 16x2 1000/mV 16 0 0 0 0 I\na.dat 16 1000/mV 16 0 0 0 0 II\n")
    equal_to_wfdb(tmp_path)


@pytest.mark.parametrize("form", ["8", "16", "24", "32", "61", "80", "160", "212", "310", "311"])
def test_formats_in_a_zip(tmp_path: Path, form: str) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.dat").write_bytes(np.random.default_rng(3).bytes(6000))
    lines = [f"a.dat {form} {1_000_000 if form == '32' else 200}/mV 12 0 0 0 0 {lead}" for lead in ("I", "II", "V1")]
    (tmp_path / "raw/r.hea").write_text("\n".join(["r 3 360 480", *lines]) + "\n")
    equal_to_wfdb(tmp_path / "raw")
    equal_in_a_zip(tmp_path / "raw")
