"""Published layouts, made small: from real signals where the real recordings lie elsewhere, and simulated where there are none."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.decode import decode

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


def real_mv(realdata: Path, count: int, folder: str = "ptbxl/records500/00000") -> list[np.ndarray]:
    """Return the first `count` real recordings of a folder, each (12, samples) in mV."""
    raw = Raw(realdata / folder)
    return [decode(raw, path).signal for path in list(raw.files(".hea"))[:count]]


def write_csv(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as CSV with the columns of the first."""
    rows = list(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def write_wfdb(
    stem: Path,
    mv: np.ndarray,
    fs_hz: float,
    leads: Sequence[str] = LEADS,
    gain: float = 1000,
    comments: Sequence[str] = (),
    mat: bool = False,
    form: str = "16",
) -> None:
    """Write (channels, samples) mV as WFDB format 16: ``stem.hea`` and ``stem.dat``, or ``stem.mat`` in MATLAB's version 4."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stored = np.where(np.isnan(mv), -32768, np.rint(np.nan_to_num(mv) * gain)).astype("<i2")
    data = stored.T.tobytes()
    suffix, offset = (".mat", "+24") if mat else (".dat", "")
    if mat:
        data = np.array([30, *stored.shape, 0, 4], "<i4").tobytes() + b"val\0" + data
    stem.with_name(stem.name + suffix).write_bytes(data)
    lines = [f"{stem.name} {len(leads)} {fs_hz:g} {stored.shape[1]}"]
    lines += [f"{stem.name}{suffix} {form}{offset} {gain:g}/mV 16 0 {row[0]} 0 0 {lead}" for row, lead in zip(stored, leads, strict=True)]
    stem.with_name(stem.name + ".hea").write_text("\n".join([*lines, *comments]) + "\n", encoding="utf-8")


def mimic(realdata: Path, raw: Path) -> list[np.ndarray]:
    """Write MIMIC-IV-ECG's layout: four studies of three patients, reports in another order; return the signals."""
    signals = real_mv(realdata, 4)
    signals[2][4, 100:105] = np.nan
    people = [(10000032, 40689238), (10000032, 44458630), (10000117, 45090959), (10001725, 41420867)]
    write_mimic(raw, [(*who, signal, f"*** Sinus rhythm {who[1]}") for who, signal in zip(people, signals, strict=True)])
    return signals


def write_mimic(raw: Path, studies: Iterable[tuple[int, int, np.ndarray, str]]) -> None:
    """Write MIMIC-IV-ECG's layout of subjects, studies, their signals at 500 Hz and first lines of reports; one listed file is absent."""
    order = [LEADS.index(lead) for lead in MIMIC_LEADS]
    listed, reports = [], []
    for subject, study, signal, report in studies:
        path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
        write_wfdb(raw / path, signal[order], 500, MIMIC_LEADS, gain=200)
        listed.append({"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": "2180-07-23 08:44:00", "path": path})
        lines = {f"report_{number}": "" for number in range(18)}
        lines |= {"report_0": report, "report_3": "Borderline EKG ==="}
        reports.append({"subject_id": subject, "study_id": study, "cart_id": 1, "ecg_time": "", **lines, "rr_interval": 29999})
    absent = {**listed[0], "study_id": 49999999, "path": "files/p1000/p10000032/s49999999/49999999"}
    write_csv(raw / "record_list.csv", [*listed, absent])
    write_csv(raw / "machine_measurements.csv", reports[::-1])


def csn(realdata: Path, raw: Path) -> list[str]:
    """Write CSN's layout from the JS recordings of CinC 2021; return their keys."""
    files = sorted((realdata / "cinc2021/training").glob("*/JS*"))
    for file in files:
        folder = raw / "WFDBRecords" / file.stem[2:4] / file.stem[2:5]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    (raw / "ConditionNames_SNOMED-CT.csv").write_bytes((realdata / "csn/ConditionNames_SNOMED-CT.csv").read_bytes())
    return sorted({file.stem for file in files})


def code15(realdata: Path, raw: Path) -> dict[str, np.ndarray]:
    """Write CODE-15's layout from the eight sample exams, padded with zeros on both sides; return exam → (12, samples) mV."""
    import h5py
    from scipy.io import loadmat

    raw.mkdir(parents=True, exist_ok=True)
    with (realdata / "code15/sample/meta.csv").open(newline="") as file:
        meta = list(csv.DictReader(file))
    keep = ("exam_id", "age", "is_male", "nn_predicted_age", "1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "patient_id", "normal_ecg")
    write_csv(raw / "exams.csv", [{**{name: row[name] for name in keep}, "trace_file": row["trace_file"]} for row in meta])
    signals = {
        file.stem.rpartition("_")[2]: loadmat(file)["feats"].astype(np.float32)
        for file in sorted((realdata / "code15/sample").glob("code_15_*.mat"))
    }
    write_tracings(raw / "exams_part0.hdf5", list(signals.values())[:5], [*map(int, list(signals)[:5]), 0])
    write_tracings(raw / "exams_part1.hdf5", list(signals.values())[5:], [*map(int, list(signals)[5:]), 999])
    assert h5py.is_hdf5(raw / "exams_part1.hdf5")
    return signals


def write_tracings(file: Path, signals: Sequence[np.ndarray], exams: Sequence[int] = (), leads: Sequence[str] = LEADS) -> None:
    """Write (12, samples) signals as CODE's HDF5: (n, 4096, 12), centred in zeros; an exam more than signals is all zeros."""
    import h5py

    tracings = np.zeros((max(len(signals), len(exams)), 4096, 12), np.float32)
    for row, signal in zip(tracings, signals, strict=False):
        start = (4096 - signal.shape[1]) // 2
        row[start : start + signal.shape[1]] = signal[[LEADS.index(lead) for lead in leads]].T
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as out:
        out["tracings"] = tracings
        if exams:
            out["exam_id"] = np.array(exams, np.int64)


def incart(raw: Path, minutes: float = 30) -> np.ndarray:
    """Write a simulated INCART recording of CinC 2021: 257 Hz, half an hour; return it, (12, samples) mV."""
    time = np.arange(round(minutes * 60 * 257)) / 257
    beat = np.exp(-((((time % 0.8) - 0.4) / 0.03) ** 2))
    mv = np.outer(np.linspace(0.4, 1.2, 12), beat) + 0.1 * np.sin(2 * np.pi * 0.2 * time)
    mv += np.random.default_rng(0).normal(0, 0.005, mv.shape)
    one, two = mv[0], mv[1]
    mv[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    comments = ["# Age: 65", "# Sex: Male", "# Dx: 427172004,59118001", "# Rx: Unknown"]
    write_wfdb(raw / "training/st_petersburg_incart/g1/I0001", mv, 257, comments=comments, mat=True, form="16x1")
    return mv
