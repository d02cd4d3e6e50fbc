"""`cmelt simulate OUT --records N`: write a raw folder of simulated ECGs in PTB-XL's own layout and formats."""

from __future__ import annotations

import ast
import datetime
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmelt import __version__
from cmelt.errors import InputError, OutputError
from cmelt.simulation import raw
from cmelt.simulation.cases import draw_case, draw_patient
from cmelt.simulation.trace import FS_HZ, decimate, record
from cmelt.simulation.wording import axis_name, draw_device, write_report

CHUNK = 100
"""Records a worker makes at a time."""
MARK_FILE = "SIMULATED"
STADIUMS = {"acute": "Stadium I", "recent": "Stadium II-III", "old": "Stadium III"}
"""The age of an infarct as PTB-XL writes it."""


@dataclass(frozen=True, slots=True)
class SimulateSummary:
    """What was written: records, patients, records per code, seconds."""

    out: Path
    records: int
    patients: int
    codes: dict[str, int]
    seconds: float


def simulate(
    out: Path, records: int, seed: int = 0, workers: int = 1, progress: Callable[[int], None] = lambda done: None
) -> SimulateSummary:
    """Write `records` simulated recordings into the new folder `out`; `progress` is told how many are done.

    The same records and seed give the same files, whatever the number of workers: each record is drawn from its own id.
    """
    if records < 1:
        raise InputError(f"--records {records}: at least one record is needed")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} holds something already; name a new folder")
    started = time.perf_counter()
    part = out.with_name(out.name + ".part")
    if part.exists():
        if not (part / MARK_FILE).is_file():
            raise OutputError(f"{part} is in the way and is not ours; move it")
        shutil.rmtree(part)
    part.mkdir(parents=True)
    (part / MARK_FILE).write_text(raw.MARK.format(version=__version__, first=raw.FIRST_ID), encoding="utf-8")
    plan = deal_patients(records, seed)
    for ecg_id, _, _ in plan:
        for name in raw.file_names(ecg_id):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
    chunks = [(part, seed, plan[start : start + CHUNK]) for start in range(0, records, CHUNK)]
    rows: list[dict[str, object]] = []
    if workers <= 1:
        for chunk in chunks:
            rows += make_records(*chunk)
            progress(len(rows))
    else:
        with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=multiprocessing.get_context("spawn")) as pool:
            for made in pool.map(make_records, *zip(*chunks, strict=True)):
                rows += made
                progress(len(rows))
    raw.write_statements(part / "scp_statements.csv")
    raw.write_table(part / "ptbxl_database.csv", rows)
    if out.exists():
        out.rmdir()
    part.rename(out)
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(ast.literal_eval(str(row["scp_codes"])).keys())
    return SimulateSummary(out, records, len({number for _, number, _ in plan}), dict(counts.most_common()), time.perf_counter() - started)


def deal_patients(records: int, seed: int) -> list[tuple[int, int, int]]:
    """Return (ecg id, patient number, fold) of every record: some patients have several, all of them in one fold."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0)))
    plan: list[tuple[int, int, int]] = []
    patient = raw.FIRST_ID - 1
    folds: list[int] = []
    while len(plan) < records:
        patient += 1
        folds = folds or (rng.permutation(10) + 1).tolist()
        fold = folds.pop()
        how_many = int(rng.choice([1, 2, 3, 4, 5], p=[0.888, 0.085, 0.018, 0.006, 0.003]))
        plan += [(raw.FIRST_ID + len(plan) + k, patient, fold) for k in range(how_many)]
    return plan[:records]


def make_records(folder: Path, seed: int, plan: list[tuple[int, int, int]]) -> list[dict[str, object]]:
    """Make and write the records of a part of the plan; returns their rows of the table."""
    return [make_record(folder, seed, *entry) for entry in plan]


def make_record(folder: Path, seed: int, ecg_id: int, number: int, fold: int) -> dict[str, object]:
    """Make and write one record at both rates; returns its row."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, ecg_id)))
    patient = draw_patient(seed, number)
    case = draw_case(patient, rng)
    trace = record(case, rng)
    low, high = raw.file_names(ecg_id)
    raw.write_wfdb(folder / high, trace.uv, FS_HZ)
    raw.write_wfdb(folder / low, decimate(trace.uv), FS_HZ // 5)
    device = draw_device(case, rng)
    rate = 60 / float(np.median(trace.events.rr_s))
    report = write_report(case, device, trace.axis_deg, rate, rng)
    likelihoods = dict(sorted(case.named.items(), key=lambda item: -item[1]))
    named_infarct = any(code.endswith("MI") and likelihood > 50 for code, likelihood in case.named.items())
    automatic = bool(rng.random() < device.automatic)
    day = datetime.datetime(1985, 1, 1) + datetime.timedelta(seconds=int(rng.integers(15 * 365 * 86400)))
    return {
        "ecg_id": ecg_id,
        "patient_id": f"{number}.0",
        "age": f"{case.age}.0",
        "sex": 0 if patient.male else 1,
        "height": f"{rng.normal(175 if patient.male else 163, 7):.1f}" if rng.random() < 0.32 else "",
        "weight": f"{max(rng.normal(79 if patient.male else 68, 14), 38):.1f}" if rng.random() < 0.43 else "",
        "nurse": f"{rng.integers(12)}.0",
        "site": f"{int(rng.choice(3, p=[0.42, 0.32, 0.26]))}.0",
        "device": device.name,
        "recording_date": day.isoformat(sep=" "),
        "report": report,
        "scp_codes": repr(likelihoods),
        "heart_axis": axis_name(trace.axis_deg) if case.rhythm != "PACE" and rng.random() < 0.6 else "",
        "infarction_stadium1": STADIUMS[case.infarct_age] if named_infarct and rng.random() < 0.4 else "unknown" if named_infarct else "",
        "validated_by": f"{rng.integers(3)}.0" if rng.random() < 0.57 else "",
        "second_opinion": bool(rng.random() < 0.025),
        "initial_autogenerated_report": automatic,
        "validated_by_human": fold >= 9 or not automatic,
        "baseline_drift": " , V6 " if trace.noise["wander"] > 0.25 else "",
        "static_noise": " , alles, " if trace.noise["static"] > 0.035 else "",
        "burst_noise": "alles" if trace.noise["burst"] else "",
        "electrodes_problems": trace.problem,
        "extra_beats": "ES" if case.named.keys() & {"PVC", "PAC"} and rng.random() < 0.6 else "",
        "pacemaker": "ja, pacemaker" if case.rhythm == "PACE" else "",
        "strat_fold": fold,
        "filename_lr": low,
        "filename_hr": high,
    }
