"""A simulated raw folder is PTB-XL's in every format, the same whoever makes it, and no easier than the real one."""

from __future__ import annotations

import ast
import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from numpy.typing import NDArray
from scipy.signal import butter, find_peaks, sosfiltfilt
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cmelt.errors import InputError, OutputError
from cmelt.labels import load_vocabulary
from cmelt.metrics import auroc
from cmelt.simulate import CHUNK, deal_patients, simulate
from cmelt.simulation.cases import draw_case, draw_patient
from cmelt.simulation.trace import decimate, record

RECORDS = CHUNK + 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "raw"
    simulate(out, RECORDS, seed=3, workers=1)
    return out


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): hashlib.sha1(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


def test_records_read_as_wfdb_at_both_rates(folder: Path, table: list[dict[str, str]]) -> None:
    for row in table[:25]:
        for column, fs_hz, samples in (("filename_hr", 500, 5000), ("filename_lr", 100, 1000)):
            read = wfdb.rdrecord(folder / row[column], physical=False)
            assert (read.fs, read.sig_len, read.n_sig) == (fs_hz, samples, 12)
            assert read.sig_name == ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]
            assert (set(read.fmt), set(read.adc_gain), set(read.units)) == ({"16"}, {1000.0}, {"mV"})
            assert [total % 65536 for total in read.checksum] == [total % 65536 for total in read.calc_checksum()]
            assert read.init_value == read.d_signal[0].tolist()
            assert (read.d_signal[:, 2] == read.d_signal[:, 1] - read.d_signal[:, 0]).all()


def test_the_table_looks_published(folder: Path, table: list[dict[str, str]]) -> None:
    assert (folder / "SIMULATED").is_file()
    assert [int(row["ecg_id"]) for row in table] == list(range(900_001, 900_001 + RECORDS))
    assert len(table[0]) == 28
    known = set(load_vocabulary("all").classes)
    for row in table:
        codes = ast.literal_eval(row["scp_codes"])
        assert codes.keys() <= known
        assert set(codes.values()) <= {0.0, 15.0, 35.0, 50.0, 80.0, 100.0}
        assert row["report"]
        assert row["sex"] in ("0", "1")
        assert 17 <= float(row["age"]) <= 95
    with (folder / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        statements = list(csv.DictReader(file))
    assert {row[""] for row in statements} == known
    assert sum(row["diagnostic"] == "1.0" for row in statements) == 44


def test_columns_are_those_of_the_published_tables(folder: Path, realdata: Path) -> None:
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        ours, theirs = ((f / name).read_text(encoding="utf-8").splitlines()[0] for f in (folder, realdata / "ptbxl"))
        assert ours == theirs


def test_patients_stay_in_one_fold() -> None:
    folds = defaultdict(set)
    per_fold = np.zeros(11)
    plan = deal_patients(3000, seed=0)
    for _, patient, fold in plan:
        folds[patient].add(fold)
        per_fold[fold] += 1
    assert all(len(of_one) == 1 for of_one in folds.values())
    assert len(plan) / len(folds) == pytest.approx(1.156, abs=0.04)
    assert per_fold[1:].min() > 250


def test_languages_and_lengths_are_those_of_ptbxl(table: list[dict[str, str]]) -> None:
    german = np.mean(["AT-6 " not in row["device"] for row in table])
    assert 0.52 < german < 0.78
    assert 60 < np.median([len(row["report"]) for row in table]) < 120
    reports = [row["report"] for row in table]
    assert 0.4 < len(set(reports)) / len(reports) < 0.95


def test_same_bytes_for_any_number_of_workers_and_other_bytes_for_another_seed(folder: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "two", RECORDS, seed=3, workers=2)
    assert digests(tmp_path / "two") == digests(folder)
    simulate(tmp_path / "other", 3, seed=4, workers=1)
    simulate(tmp_path / "short", 3, seed=3, workers=1)
    first = "records500/900000/900001_hr.dat"
    assert digests(tmp_path / "short")[first] == digests(folder)[first] != digests(tmp_path / "other")[first]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(OutputError, match="holds something"):
        simulate(tmp_path / "mine", 1)
    (tmp_path / "new.part").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        simulate(tmp_path / "new", 1)
    with pytest.raises(InputError, match="at least one"):
        simulate(tmp_path / "none", 0)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mine", "new.part"]
    assert (tmp_path / "mine" / "notes.txt").read_text(encoding="utf-8") == "keep"


def test_classes_are_as_frequent_as_in_ptbxl_and_not_trivially_separable() -> None:
    records = 1200
    signals, codes = [], []
    for number in range(1, records + 1):
        rng = np.random.default_rng(np.random.SeedSequence((11, number)))
        case = draw_case(draw_patient(11, number), rng)
        signals.append(decimate(record(case, rng).uv))
        codes.append(list(case.named))
    vocabulary = load_vocabulary("superclass")
    truth = vocabulary.targets(codes)
    for name, share in {"NORM": 0.44, "MI": 0.25, "STTC": 0.24, "CD": 0.22, "HYP": 0.12}.items():
        assert truth[:, vocabulary.classes.index(name)].mean() == pytest.approx(share, abs=0.04), name
    ecg = np.stack(signals).astype(np.float32) / 1000
    trivial = cross_validated(plain_numbers(ecg), truth, alpha=30.0)
    shapes = cross_validated(random_convolutions(ecg), truth, alpha=300.0)
    assert trivial <= 0.85
    assert shapes >= trivial + 0.03


def plain_numbers(ecg: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return per lead mean, sd, percentiles and RMS of differences, and the mean RR interval, (N, 12 x 10 + 1)."""
    parts = [ecg.mean(2), ecg.std(2), *np.percentile(ecg, (1, 5, 25, 50, 75, 95, 99), axis=2), np.sqrt((np.diff(ecg, axis=2) ** 2).mean(2))]
    rr = []
    for one in ecg:
        slope = np.convolve(np.abs(np.diff(one[[0, 1, 7, 9, 11]], axis=1)).sum(0), np.ones(5) / 5, "same")
        peaks, _ = find_peaks(slope, height=0.45 * np.quantile(slope, 0.98), distance=28)
        rr.append(np.diff(peaks).mean() / 100 if len(peaks) > 2 else 1.0)
    return np.concatenate([*parts, np.array(rr)[:, None]], axis=1)


def random_convolutions(ecg: NDArray[np.float32], kernels: int = 60) -> NDArray[np.float32]:
    """Return share above 0, largest value and mean of the positive part of random dilated convolutions, (N, 15 x kernels)."""
    highpass = butter(3, 0.5, "high", fs=100, output="sos")
    signal = torch.from_numpy(sosfiltfilt(highpass, ecg[:, [0, 1, 6, 7, 8, 9, 10, 11]], axis=2).astype(np.float32))
    draw = torch.Generator().manual_seed(0)
    parts = []
    for width, dilation in ((7, 1), (9, 2), (9, 4), (11, 8), (9, 16)):
        weight = torch.randn(kernels, 8, width, generator=draw)
        weight = (weight - weight.mean(2, keepdim=True)) * (torch.rand(kernels, 8, 1, generator=draw) < 0.35)
        weight /= weight.pow(2).sum((1, 2), keepdim=True).sqrt() + 1e-6
        bias = 0.3 * torch.randn(kernels, generator=draw)
        for batch in signal.split(100):
            out = torch.nn.functional.conv1d(batch, weight, bias, dilation=dilation)
            parts.append(torch.cat([(out > 0).float().mean(2), out.amax(2), out.relu().mean(2)], 1))
    batches = len(parts) // 5
    return torch.cat([torch.cat(parts[k * batches : (k + 1) * batches]) for k in range(5)], 1).numpy()


def cross_validated(features: NDArray[np.floating], truth: NDArray[np.int8], alpha: float) -> float:
    """Return the macro AUC of ridge regression, four-fold."""
    score = np.zeros(truth.shape)
    part = np.arange(len(truth)) % 4
    for k in range(4):
        scaler = StandardScaler().fit(features[part != k])
        train, test = (np.clip(scaler.transform(features[rows]), -8, 8) for rows in (part != k, part == k))
        score[part == k] = Ridge(alpha).fit(train, truth[part != k]).predict(test)
    return float(np.mean(auroc(truth, score)))
