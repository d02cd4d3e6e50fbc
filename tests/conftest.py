"""What tests share: where real recordings lie (never in the repository), and small raw folders in PTB-XL's layout."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
COLUMNS = ["ecg_id", "patient_id", "age", "sex", "device", "report", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]

MakeRaw = Callable[..., Path]
MakeShards = Callable[..., Path]


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real recordings, or skip, saying so: CMELT_REALDATA, default ../shared/realdata."""
    folder = Path(os.environ.get("CMELT_REALDATA", REPOSITORY.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder} (set CMELT_REALDATA)")
    return folder


@pytest.fixture
def make_raw(tmp_path: Path) -> MakeRaw:
    """Return a function that writes `records` small made-up recordings in PTB-XL's layout and returns their folder."""
    return lambda records=12, name="raw", **options: write_raw(tmp_path / name, records, **options)


@pytest.fixture(scope="session")
def make_shards() -> MakeShards:
    """Return a function that writes a finished shard folder of made-up recordings."""
    from tests.made import make  # it brings torch, which most tests do without

    return make


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, make_shards: MakeShards) -> Path:
    """Return a shard folder of 240 recordings: 192 for training, 24 for validation, 24 for test."""
    return make_shards(tmp_path_factory.mktemp("made") / "shards")


@pytest.fixture
def run(tmp_path: Path, shards: Path) -> Path:
    """Return a run folder with a small untrained model."""
    from tests.made import make_run

    return make_run(tmp_path / "runs" / "small", shards)


def write_raw(folder: Path, records: int, *, seconds: float = 4.0, rates: tuple[int, ...] = (500, 100), seed: int = 0) -> Path:
    """Write `records` recordings of `seconds` under `folder`, as ``make_raw`` promises."""
    rng = np.random.default_rng(seed)
    rows = []
    for ecg_id in range(1, records + 1):
        files = {rate: f"records{rate}/00000/{ecg_id:05d}_{'hr' if rate == 500 else 'lr'}" for rate in (500, 100)}
        for rate in rates:
            write_record(folder / files[rate], beats(rng, seconds, rate), rate)
        codes = "{'NORM': 100.0, 'SR': 0.0}" if ecg_id % 2 else "{'IMI': 50.0, 'AFIB': 0.0}"
        rows.append([ecg_id, f"{ecg_id // 2 + 100}.0", 50.0 + ecg_id, ecg_id % 2, "CS-12   E", f"sinusrhythmus {ecg_id}", codes])
        rows[-1] += [ecg_id % 10 + 1, files[100], files[500]]
    with (folder / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


def write_record(stem: Path, signal_uv: np.ndarray, rate: int) -> None:
    """Write (12, samples) µV as WFDB format 16 at 1000 adu/mV."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".dat").write_bytes(signal_uv.T.astype("<i2").tobytes())
    lines = [f"{stem.name} 12 {rate} {signal_uv.shape[1]}"]
    lines += [
        f"{stem.name}.dat 16 1000.0(0)/mV 16 0 {row[0]} {int(row.sum()) % 65536} 0 {lead}"
        for row, lead in zip(signal_uv, LEADS, strict=True)
    ]
    stem.with_name(stem.name + ".hea").write_text("\n".join(lines) + "\n", encoding="utf-8")


def beats(rng: np.random.Generator, seconds: float, rate: int) -> np.ndarray:
    """Return (12, samples) int µV: sharp beats, slow wander, mains and noise; the limb leads keep their relations."""
    time = np.arange(round(seconds * rate)) / rate
    shape = np.exp(-(((time[:, None] - np.arange(0.4, seconds, 0.8)) / 0.02) ** 2)).sum(1)
    lead = shape * rng.uniform(400, 1400, (12, 1)) + 300 * np.sin(0.9 * time + rng.uniform(0, 6, (12, 1)))
    lead += 15 * np.sin(2 * np.pi * 50 * time) + rng.normal(0, 15, (12, len(time)))
    lead[2], lead[3], lead[4], lead[5] = lead[1] - lead[0], -(lead[0] + lead[1]) / 2, lead[0] - lead[1] / 2, lead[1] - lead[0] / 2
    return np.rint(lead).astype(int)
