"""The raw folder that `pipelines/paper.sh` reads, in miniature: real recordings where they are at hand, else simulated ones."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from cmelt.datasets import open_dataset
from cmelt.raw import Raw
from cmelt.record import LEADS, Source
from cmelt.signal.decode import decode
from cmelt.simulate import simulate
from tests.datasets import layouts

COUNT = 60
"""Recordings that stand for MIMIC-IV-ECG, and for each data set that is simulated."""
SNOMED = ("426783006", "164889003", "59118001", "426177001", "427084000", "164934002")
CODE_COLUMNS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")


def real_raw(realdata: Path, raw: Path) -> Path:
    """Lay out every data set of the paper from real recordings as folder `raw`; MIMIC-IV-ECG and CODE-test with PTB-XL's signals."""
    raw.mkdir()
    for folder, there in (("ptb-xl", "ptbxl"), ("cinc2021", "cinc2021"), ("cpsc2018", "cpsc2018")):
        (raw / folder).symlink_to(realdata / there)
    layouts.csn(realdata, raw / "csn")
    from_ptbxl(raw)
    (raw / "splits/identify").mkdir(parents=True)
    for name, there in (("gallery", "valid_gallery"), ("probes", "valid_probe"), ("train", "train")):
        (raw / f"splits/identify/{name}.csv").symlink_to(realdata / f"splits/patient_identification/{there}.csv")
    return raw


def simulated_raw(raw: Path) -> Path:
    """Lay out every data set of the paper from simulated recordings as folder `raw`."""
    raw.mkdir()
    simulate(raw / "ptb-xl", records=2 * COUNT, seed=3, workers=1)
    signals = from_ptbxl(raw)
    rng = np.random.default_rng(0)
    (raw / "cpsc2018").mkdir()
    rows = []
    for number, signal in enumerate(signals, 1):
        record = {"sex": "Male", "age": 50.0, "data": signal}
        savemat(raw / f"cpsc2018/A{number:04d}.mat", {"ECG": record})
        label = {"First_label": 1 + number % 3, "Second_label": "", "Third_label": ""}
        rows.append({"Recording": f"A{number:04d}", **label})
        codes = ",".join(rng.choice(SNOMED, size=2, replace=False))
        comments = ["# Age: 65", "# Sex: Female", f"# Dx: {codes}"]
        layouts.write_wfdb(raw / f"cinc2021/training/georgia/g1/E{number:05d}", signal, 500, comments=comments, mat=True)
        layouts.write_wfdb(raw / f"csn/WFDBRecords/01/010/JS{number:05d}", signal, 500, comments=comments, mat=True)
    layouts.write_csv(raw / "cpsc2018/REFERENCE.csv", rows)
    return raw


def from_ptbxl(raw: Path) -> list[np.ndarray]:
    """Write MIMIC-IV-ECG's and CODE-test's layouts into `raw` from the first recordings of PTB-XL there; return those, in mV."""
    there = Raw(raw / "ptb-xl")
    sources = [source for source in open_dataset("ptbxl", there).sources() if isinstance(source, Source)][:COUNT]
    signals = [decode(there, source.path).signal for source in sources]
    studies = zip(sources, signals, strict=True)
    layouts.write_mimic(raw / "mimic-iv-ecg", [(10000000 + n // 2, 40000000 + n, mv, of.report_raw) for n, (of, mv) in enumerate(studies)])
    code_test(raw / "code-test", [mv[:, :4000] for mv in signals[:24]])
    return signals


def code_test(raw: Path, signals: Sequence[np.ndarray]) -> None:
    """Write CODE-test's layout of `signals` (12, up to 4096 samples at 400 Hz) in mV, each with one of the six labels."""
    layouts.write_tracings(raw / "data/ecg_tracings.hdf5", signals, leads=LEADS)
    (raw / "data/annotations").mkdir()
    for name, columns, row in (
        ("annotations/gold_standard.csv", CODE_COLUMNS, lambda n: [int(n % 6 == of) for of in range(6)]),
        ("attributes.csv", ("age", "sex"), lambda n: [40 + n, "FM"[n % 2]]),
    ):
        with (raw / "data" / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *(row(n) for n in range(len(signals)))])
