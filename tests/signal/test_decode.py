"""Decoding: wfdb is the referee; the hash is computed anew from the format's words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import wfdb

from cmelt.errors import RecordError
from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.decode import decode

UPPER = [lead.upper() for lead in LEADS]


def sha1_of(mv: np.ndarray) -> str:
    """Return the hash of mV (12, samples) as docs/concepts/shard-format.md says it."""
    uv = np.where(np.isnan(mv), -(2.0**31), np.rint(mv * 1000))
    return hashlib.sha1(uv.astype("<i4").tobytes(order="C")).hexdigest()


def write(folder: Path, mv: np.ndarray, names: list[str], fmt: str = "16", gain: float = 1000, baseline: int = 0) -> None:
    """Write mV (samples, leads) with wfdb as record r."""
    count = len(names)
    wfdb.wrsamp(
        "r",
        500,
        ["mV"] * count,
        names,
        p_signal=mv,
        fmt=[fmt] * count,
        adc_gain=[gain] * count,
        baseline=[baseline] * count,
        write_dir=str(folder),
    )


@pytest.mark.parametrize(
    ("fmt", "gain", "baseline"),
    [
        ("16", 1000, 0),
        ("16", 2000, 0),
        ("16", 4880, -300),
        ("16", 200, 12),
        ("516", 200, 0),
        ("24", 1000, 5),
        ("32", 1e6, 0),
        ("80", 40, 0),
    ],
)
def test_any_format_equals_wfdb(tmp_path: Path, fmt: str, gain: float, baseline: int) -> None:
    mv = np.random.default_rng(1).normal(0, 0.5, (999, 12)).clip(-2, 2)
    write(tmp_path, mv, UPPER, fmt, gain, baseline)
    truth = wfdb.rdrecord(str(tmp_path / "r")).p_signal.T
    decoded = decode(Raw(tmp_path), "r.hea")
    assert decoded.fs_hz == 500
    assert np.abs(decoded.signal - truth).max() <= 1e-6
    assert decoded.signal_sha1 == sha1_of(truth)


def test_leads_are_mapped_by_name_and_absent_ones_are_not_a_number(tmp_path: Path) -> None:
    mv = np.random.default_rng(2).normal(0, 0.5, (600, 5)).round(3)
    write(tmp_path, mv, ["v2", "MLII", "aVR", "I", "-aVL"])
    decoded = decode(Raw(tmp_path), "r.hea")
    expected = np.full((12, 600), np.nan)
    for row, channel, sign in ((7, 0, 1), (3, 2, 1), (0, 3, 1), (4, 4, -1)):
        expected[row] = sign * mv[:, channel]
    np.testing.assert_allclose(decoded.signal, expected, atol=1e-6)
    assert decoded.present == {0, 3, 4, 7}
    assert decoded.signal_sha1 == sha1_of(expected)


def test_the_order_of_leads_and_the_gain_do_not_change_the_hash(tmp_path: Path) -> None:
    mv = np.random.default_rng(3).integers(-2000, 2000, (600, 12)) / 1000
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a", mv, UPPER)
    order = np.random.default_rng(4).permutation(12)
    write(tmp_path / "b", mv[:, order], [UPPER[lead] for lead in order], "16", 3000, 50)
    assert decode(Raw(tmp_path), "a/r.hea").signal_sha1 == decode(Raw(tmp_path), "b/r.hea").signal_sha1


def test_invalid_samples_and_several_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    stored = rng.integers(-900, 900, (700, 12)).astype("<i2")
    stored[5, 3] = stored[699, 11] = -32768
    (tmp_path / "a.dat").write_bytes(b"x" * 24 + stored[:, :7].tobytes())
    (tmp_path / "b.dat").write_bytes(stored[:, 7:].tobytes())
    lines = [f"{'a.dat 16x1+24' if i < 7 else 'b.dat 16'} 1000/mV 16 0 0 0 0 {lead}" for i, lead in enumerate(LEADS)]
    (tmp_path / "r.hea").write_text("\n".join(["r 12 500 700", *lines]))
    decoded = decode(Raw(tmp_path), "r.hea")
    truth = np.where(stored == -32768, np.nan, stored / 1000).T
    np.testing.assert_allclose(decoded.signal, truth, atol=1e-6)
    assert decoded.signal_sha1 == sha1_of(truth)


def test_segments_equal_wfdb(tmp_path: Path) -> None:
    mv = np.random.default_rng(6).normal(0, 0.5, (1000, 12)).round(3)
    for part, name in ((mv[:600], "s1"), (mv[600:], "s2")):
        wfdb.wrsamp(
            name, 500, ["mV"] * 12, UPPER, p_signal=part, fmt=["16"] * 12, adc_gain=[1000] * 12, baseline=[0] * 12, write_dir=str(tmp_path)
        )
    (tmp_path / "r.hea").write_text("r/2 12 500 1000\ns1 600\ns2 400\n")
    np.testing.assert_allclose(decode(Raw(tmp_path), "r.hea").signal, mv.T, atol=1e-6)
    (tmp_path / "s2.hea").write_text((tmp_path / "s2.hea").read_text().replace("s2.dat", "../s2.dat"))
    with pytest.raises(RecordError, match="path_outside"):
        decode(Raw(tmp_path), "r.hea")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.dat 16 1000/mV 16 0 0 0 0 I", "truncated"),
        ("absent.dat 16 1000/mV 16 0 0 0 0 I", "missing_file"),
        ("a.dat 212 1000/mV 16 0 0 0 0 I", "truncated"),
        ("a.dat 516 1000/mV 16 0 0 0 0 I", "truncated"),
        ("a.dat 7 1000/mV 16 0 0 0 0 I", "truncated"),
        ("../a.dat 16 1000/mV 16 0 0 0 0 I", "path_outside"),
    ],
)
def test_a_record_that_is_not_there_is_refused_quickly(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(100))
    (tmp_path / "r.hea").write_text(f"r 1 500 1000000000000\n{line}\n")
    with pytest.raises(RecordError) as error:
        decode(Raw(tmp_path), "r.hea")
    assert error.value.reason == reason


def test_a_file_that_wfdb_cannot_decode_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(4000))
    (tmp_path / "r.hea").write_text("r 1 500 1000\na.dat 516 1000/mV 16 0 0 0 0 I\n")
    with pytest.raises(RecordError, match="unreadable"):
        decode(Raw(tmp_path), "r.hea")


def test_no_leads_no_samples_two_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(bytes(4000))
    (tmp_path / "e.dat").write_bytes(b"")
    for text, reason in (
        ("r 1 500 100\na.dat 16 1000/mV 16 0 0 0 0 MLII\n", "missing_leads"),
        ("r 1 500\ne.dat 16 1000/mV 16 0 0 0 0 I\n", "too_short"),
        ("r 2 500 100\na.dat 16 1000/mV 16 0 0 0 0 I\na.dat 16 1000/mV 16 0 0 0 0 i\n", "bad_header"),
    ):
        (tmp_path / "r.hea").write_text(text)
        with pytest.raises(RecordError) as error:
            decode(Raw(tmp_path), "r.hea")
        assert error.value.reason == reason


def test_real_records_equal_wfdb(realdata: Path) -> None:
    files = sorted((realdata / "cinc2021").rglob("*.hea"))[::9] + sorted((realdata / "ptbxl").rglob("*.hea"))[::100]
    for file in [*files, realdata / "ptbdb" / "s0010_re.hea"]:
        record = wfdb.rdrecord(str(file.with_suffix("")))
        rows = [UPPER.index(name.upper()) for name in record.sig_name if name.upper() in UPPER]
        truth = np.full((12, record.sig_len), np.nan)
        truth[rows] = record.p_signal.T[: len(rows)]
        decoded = decode(Raw(file.parent), file.name)
        assert np.nanmax(np.abs(decoded.signal - truth)) <= 1e-6
        assert decoded.signal_sha1 == sha1_of(truth)


@pytest.mark.parametrize(("samples", "said"), [(600, 600), (333, 333), (600, 0)])
def test_format_212_equals_wfdb(tmp_path: Path, samples: int, said: int) -> None:
    """What MIT's own databases use, decoded here: odd counts end in two bytes; -2048 is no number; a length may go unsaid."""
    stored = np.random.default_rng(7).integers(-2048, 2048, (samples, 3))
    stored[0, 0] = stored[-1, 2] = -2048
    values = np.pad(stored.ravel(), (0, stored.size % 2)) & 0xFFF
    low, high = values[::2], values[1::2]
    packed = np.stack([low & 0xFF, (low >> 8) | ((high >> 8) << 4), high & 0xFF], 1).astype(np.uint8).ravel()
    (tmp_path / "r.dat").write_bytes(bytes(7) + packed[: (3 * stored.size + 1) // 2].tobytes())
    lines = [f"r.dat 212+7 {gain}/mV 11 0 0 0 0 {lead}" for gain, lead in (("200(3)", "I"), ("200", "V5"), ("300", "II"))]
    (tmp_path / "r.hea").write_text("\n".join([f"r 3 360 {said}" if said else "r 3 360", *lines]) + "\n")
    truth = np.full((12, samples), np.nan)
    truth[[0, 10, 1]] = np.where(stored == -2048, np.nan, (stored - [3, 0, 0]) / [200, 200, 300]).T
    decoded = decode(Raw(tmp_path), "r.hea")
    np.testing.assert_allclose(decoded.signal, truth, atol=1e-6)
    assert decoded.signal_sha1 == sha1_of(truth)
    if said:
        np.testing.assert_array_equal(wfdb.rdrecord(str(tmp_path / "r")).p_signal.T, truth[[0, 10, 1]])
