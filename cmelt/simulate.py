"""Simulated recordings, written as a raw folder in PTB-XL's own layout and formats.

Each record is drawn from its own id and its patient's number, so the folder is the same whatever the number of workers, and its
first records are the same however many follow.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmelt import __version__
from cmelt.errors import InputError, OutputError
from cmelt.shards.workers import available_cores, run_tasks
from cmelt.simulation import raw
from cmelt.simulation.cases import draw_case, draw_patient
from cmelt.simulation.trace import FS_HZ, decimate, record
from cmelt.simulation.wording import axis_name, draw_device, write_report

CHUNK = 250
"""Records that a worker makes at a time; fewer than this many a worker are not worth one."""
MARK_FILE = "SIMULATED"
STADIUMS = {"acute": "Stadium I", "recent": "Stadium II-III", "old": "Stadium III"}
"""The age of an infarct as PTB-XL writes it."""

Plan = list[tuple[int, int, int]]
Rows = list[dict[str, Any]]


def simulate(
    out: Path, records: int, seed: int = 0, workers: int | None = None, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Write `records` simulated recordings, at 500 and 100 Hz, into the new folder `out`, which appears whole or not at all.

    `workers` is a number of processes (None: one a core); `progress` is told how many records are done. Returns ``records,
    patients, codes`` (code → records), ``seconds``. Raises OutputError where `out` holds something already.
    """
    if records < 1:
        raise InputError(f"--records {records}: at least one record is needed")
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} holds something already; name a new folder")
    started = time.perf_counter()
    part = empty_part(out)
    plan = deal_patients(records, seed)
    for ecg_id, _, _ in plan:
        for name in raw.file_names(ecg_id):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
    tasks = [(part, seed, plan[start : start + CHUNK]) for start in range(0, records, CHUNK)]
    workers = min(workers or available_cores(), len(tasks))
    rows: Rows = []
    for made in map(make_records, tasks) if workers == 1 else run_tasks(make_records, tasks, workers):
        rows += made
        progress(len(rows))
    rows.sort(key=lambda row: row["ecg_id"])
    raw.write_statements(part / "scp_statements.csv")
    raw.write_table(part / "ptbxl_database.csv", ({**row, "scp_codes": repr(row["scp_codes"])} for row in rows))
    if out.exists():
        out.rmdir()
    part.rename(out)
    codes = Counter(code for row in rows for code in row["scp_codes"])
    patients = len({row["patient_id"] for row in rows})
    return {
        "records": records,
        "patients": patients,
        "codes": dict(codes.most_common()),
        "seconds": round(time.perf_counter() - started, 1),
    }


def empty_part(out: Path) -> Path:
    """Make the folder in which `out` grows, marked as simulated; one left by a simulation that was cut off is emptied."""
    part = out.with_name(out.name + ".part")
    if part.exists():
        if not (part / MARK_FILE).is_file():
            raise OutputError(f"{part} is in the way and was not made by cmelt simulate; move it")
        shutil.rmtree(part)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{part} cannot be made ({error.strerror}); name a folder that can be written") from None
    (part / MARK_FILE).write_text(raw.MARK.format(version=__version__, first=raw.FIRST_ID), encoding="utf-8")
    return part


def deal_patients(records: int, seed: int) -> Plan:
    """Return (ecg id, patient number, fold) of every record: some patients have several, all of them in one fold."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0)))
    plan: Plan = []
    patient = raw.FIRST_ID - 1
    folds: list[int] = []
    while len(plan) < records:
        patient += 1
        folds = folds or (rng.permutation(10) + 1).tolist()
        fold = folds.pop()
        how_many = int(rng.choice([1, 2, 3, 4, 5], p=[0.888, 0.085, 0.018, 0.006, 0.003]))
        plan += [(raw.FIRST_ID + len(plan) + k, patient, fold) for k in range(how_many)]
    return plan[:records]


def make_records(task: tuple[Path, int, Plan]) -> Rows:
    """Make and write the records of a part of the plan; returns their rows of the table, ``scp_codes`` as a dict."""
    folder, seed, plan = task
    return [make_record(folder, seed, *entry) for entry in plan]


def make_record(folder: Path, seed: int, ecg_id: int, number: int, fold: int) -> dict[str, Any]:
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
        "age": f"{patient.age}.0",
        "sex": 0 if patient.male else 1,
        "height": f"{rng.normal(175 if patient.male else 163, 7):.1f}" if rng.random() < 0.32 else "",
        "weight": f"{max(rng.normal(79 if patient.male else 68, 14), 38):.1f}" if rng.random() < 0.43 else "",
        "nurse": f"{rng.integers(12)}.0",
        "site": f"{int(rng.choice(3, p=[0.42, 0.32, 0.26]))}.0",
        "device": device.name,
        "recording_date": day.isoformat(sep=" "),
        "report": report,
        "scp_codes": likelihoods,
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
