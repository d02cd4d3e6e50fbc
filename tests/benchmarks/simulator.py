"""Measure the simulator: how well each finding is told from its signal, records a second, and how near it is to real records.

python -m tests.benchmarks.simulator [--realdata PTBXL] [--json] [--keep]: real records are those of folds 1-8 in a raw PTB-XL folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmelt.datasets import open_dataset
from cmelt.labels import load_vocabulary
from cmelt.metrics import auroc
from cmelt.raw import Raw
from cmelt.record import Source
from cmelt.simulate import deal_patients, make_records
from cmelt.simulation import raw
from cmelt.simulation.cases import draw_case, draw_patient, draw_severity, rows
from cmelt.simulation.trace import decimate, record
from tests.benchmarks.results import write_result
from tests.simulation.measures import ALSO, FINDINGS, MEASURES, Measured, auc, measured
from tests.test_simulate import plain_numbers, random_convolutions

PATIENTS = 20
COMPARED = ("rate, per min", "axis, degrees", "Sokolow-Lyon, mV", "R V5, mV", "Q aVF, mV", "ST V5, mV", "T V5, mV", "T aVF, mV")
Signals = NDArray[np.int16]


def findings() -> list[dict[str, Any]]:
    """Return, for every finding: its measure, the median without and with it, and how well it tells, marked and at drawn severities."""
    least = {row.code: row.least for row in rows()}
    told = []
    for code, measure, sign in [*((code, *how) for code, how in FINDINGS.items()), *ALSO]:
        rng = np.random.default_rng(0)
        graded = [round(draw_severity(rng, least[code]), 1) for _ in range(PATIENTS)]
        without, marked, drawn = (
            np.array([MEASURES[measure](measured(name, n, s)) for n, s in enumerate(severities)])
            for name, severities in (("NORM", [0.9] * PATIENTS), (code, [0.9] * PATIENTS), (code, graded))
        )
        told.append(
            {
                "code": code,
                "measure": measure,
                "without": round(float(np.median(without)), 3),
                "with": round(float(np.median(marked)), 3),
                "auc": round(auc(sign * marked, sign * without), 3),
                "auc_drawn": round(auc(sign * drawn, sign * without), 3),
            }
        )
    return told


def speed(records: int = 150) -> float:
    """Return records a processor second: drawn, reported and written at both rates; the best of four runs."""
    with tempfile.TemporaryDirectory() as folder:
        plan = deal_patients(records, 0)
        for ecg_id, _, _ in plan:
            for name in raw.file_names(ecg_id):
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        seconds = []
        for _ in range(4):
            began = time.process_time()
            make_records((Path(folder), 0, plan))
            seconds.append(time.process_time() - began)
    return round(records / min(seconds))


def simulated(records: int) -> tuple[Signals, list[list[str]]]:
    """Return `records` simulated recordings (N, 12, 5000) µV and their codes."""
    signals, codes = [], []
    for number in range(1, records + 1):
        rng = np.random.default_rng(np.random.SeedSequence((11, number)))
        case = draw_case(draw_patient(11, number), rng)
        signals.append(record(case, rng).uv)
        codes.append(list(case.named))
    return np.stack(signals), codes


def real(folder: Path) -> tuple[Signals, list[list[str]]]:
    """Return the recordings of folds 1 to 8 that lie in a raw PTB-XL folder, (N, 12, 5000) µV, and their codes."""
    signals, codes = [], []
    for source in open_dataset("ptbxl", Raw(folder)).sources():
        if isinstance(source, Source) and source.split == "train":
            signals.append(wfdb.rdrecord(str((folder / source.path).with_suffix("")), physical=False).d_signal.T.astype(np.int16))
            codes.append(list(source.codes))
    return np.stack(signals), codes


def compared(ours: tuple[Signals, list[list[str]]], theirs: tuple[Signals, list[list[str]]]) -> dict[str, Any]:
    """Return 10th, 50th and 90th percentiles per class, real and simulated; how well they are told apart; and what transfers."""
    vocabulary = load_vocabulary("superclass")
    truth = [vocabulary.targets(codes) for _, codes in (theirs, ours)]
    table: dict[str, Any] = {}
    for k, name in enumerate(vocabulary.classes):
        table[name] = {}
        groups = [beating(signals[of[:, k] == 1][:80]) for (signals, _), of in zip((theirs, ours), truth, strict=True)]
        for measure in COMPARED:
            found = (np.percentile([MEASURES[measure](one) for one in group], (10, 50, 90)).round(2).tolist() for group in groups)
            table[name][measure] = dict(zip(("real", "simulated"), found, strict=True))
    slow = [np.stack([decimate(uv) for uv in signals]).astype(np.float32) / 1000 for signals, _ in (theirs, ours)]
    k = vocabulary.classes.index("NORM")
    normal = [plain_numbers(ecg[of[:, k] == 1][:250]) for ecg, of in zip(slow, truth, strict=True)]
    is_real = np.repeat([1, 0], [len(normal[0]), len(normal[1])])
    told = cross_told(np.concatenate(normal), is_real)
    shapes = [random_convolutions(ecg) for ecg in slow]
    scaler = StandardScaler().fit(shapes[1])
    score = Ridge(3000.0).fit(clipped(scaler, shapes[1]), truth[1]).predict(clipped(scaler, shapes[0]))
    transfer = dict(zip(vocabulary.classes, auroc(truth[0], score).round(3).tolist(), strict=True))
    return {"real": len(slow[0]), "simulated": len(slow[1]), "percentiles": table, "told_apart": told, "transfer": transfer}


def beating(signals: Signals) -> list[Measured]:
    """Return what can be measured on the recordings in which beats are found."""
    return [one for one in (Measured(uv / 1000) for uv in signals) if len(one.peaks) > 4]


def clipped(scaler: StandardScaler, features: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.clip(scaler.transform(features), -8, 8)


def cross_told(features: NDArray[np.float64], is_real: NDArray[np.int64]) -> float:
    """Return the area under the curve of a logistic regression that tells real from simulated, four-fold."""
    score = np.zeros(len(is_real))
    part = np.arange(len(is_real)) % 4
    for k in range(4):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=500)).fit(features[part != k], is_real[part != k])
        score[part == k] = model.decision_function(features[part == k])
    return round(auc(score[is_real == 1], score[is_real == 0]), 3)


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--realdata", type=Path, help="a raw PTB-XL folder; without it nothing is compared")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write docs/results/simulator.json")
    given = parser.parse_args()
    found: dict[str, Any] = {"patients": PATIENTS, "findings": findings(), "records_per_cpu_second": speed()}
    if given.realdata:
        found["nearness"] = compared(simulated(1000), real(given.realdata))
    if given.keep:
        write_result("simulator", found, data="simulated records; PTB-XL folds 1-8 (recordings of the check set) beside them")
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
