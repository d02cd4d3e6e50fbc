"""The bytes of one sample: the standard library and numpy are the referees."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cmelt.record import Record, Source
from cmelt.shards.format import INDEX_SCHEMA, member, npy_header, quantise, shard_name
from cmelt.shards.write import write_shard

COLUMNS = """key shard ecg_offset ecg_bytes source patient_id fold split age sex device fs_raw_hz raw_duration_s start_s
    report report_raw codes likelihoods flags signal_sha1""".split()  # noqa: SIM905 - as the contract prints them


def record(key: str = "a-1_b", samples: int = 50, report: str = "sinus rhythm") -> Record:
    signal = np.random.default_rng(len(key)).normal(0, 1, (12, samples)).astype(np.float32)
    return Record(signal, 500.0, Source(key, f"x/{key}.hea", report_raw="Sinusrhythmüs"), 500.0, 10.0, report=report)


def test_the_columns_are_the_contracts() -> None:
    assert INDEX_SCHEMA.names == COLUMNS
    assert shard_name("ptbxl", 12) == "ptbxl-000012.tar"


@pytest.mark.parametrize("samples", [1, 77, 1000, 5000, 123_456])
def test_npy_header_is_numpys(samples: int) -> None:
    array = np.zeros((12, samples), "<i2")
    buffer = io.BytesIO()
    np.save(buffer, array)
    assert npy_header(samples) + array.tobytes() == buffer.getvalue()


@pytest.mark.parametrize(("name", "size"), [("00001_hr.ecg.npy", 120_128), ("k" * 80 + ".json", 0)])
def test_tar_header_is_the_standard_librarys(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert member(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_values_are_rounded_and_what_does_not_fit_is_clipped() -> None:
    mv = np.array([[0.0014, -0.0016, 32.767, -32.767]], np.float32)
    assert quantise(mv)[0].tolist() == [[1, -2, 32767, -32767]]
    assert not quantise(mv)[1]
    values, clipped = quantise(np.array([[40, -40, 1]], np.float32))
    assert (values.tolist(), clipped) == ([[32767, -32767, 1000]], True)


def test_a_shard_is_a_plain_tar_and_rows_say_where_samples_lie(tmp_path: Path) -> None:
    records = [record("a", 50), record("b2", 50, "ünïcode\nlines"), record("c", 50, "")]
    records[2].signal[0, 0] = 99
    shard, rows = write_shard(tmp_path / "x-000000.tar", iter(records))
    data = (tmp_path / "x-000000.tar").read_bytes()
    assert (shard.samples, shard.bytes, len(data) % 512) == (3, len(data), 0)
    with tarfile.open(tmp_path / "x-000000.tar") as tar:
        assert tar.getnames() == [f"{key}.{kind}" for key in ("a", "b2", "c") for kind in ("ecg.npy", "txt", "json")]
        for row, of in zip(rows, records, strict=True):
            array = np.load(io.BytesIO(tar.extractfile(f"{row['key']}.ecg.npy").read()))
            assert data[row["ecg_offset"] :][: row["ecg_bytes"]] == array.tobytes()
            assert np.abs(array / 1000 - of.signal.clip(-32.767, 32.767)).max() <= 0.00051
            assert tar.extractfile(f"{row['key']}.txt").read().decode() == of.report
    assert [row["flags"] for row in rows] == [[], [], ["clipped"]]


def test_parquet_keeps_the_schema(tmp_path: Path) -> None:
    from cmelt.shards.commit import finish_shard
    from cmelt.shards.store import Store

    shard, rows = write_shard(tmp_path / "x-000000.tar", iter([record()]))
    store = Store(tmp_path)
    store.make()
    finish_shard(store, "x-000000.tar", shard, rows, [])
    assert pq.read_schema(tmp_path / ".cmelt/x-000000.tar.parquet").equals(INDEX_SCHEMA)
