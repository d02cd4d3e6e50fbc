"""Ingest every family on real recordings, and say what was read, kept, refused by which reason, and flagged.

    python -m tests.benchmarks.families

reads the folder of real recordings (CMELT_REALDATA); families whose recordings lie elsewhere are given their published layout, built
from real signals (tests/datasets/layouts.py), INCART a simulated one. Writes docs/results/families.json, which
docs/results.md shows. Fails where rows of the table ∪ recordings found are not kept + refused, or a folder does not verify.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.record import LEADS
from cmelt.verify import verify
from tests.benchmarks.results import write_result
from tests.datasets import exports, layouts

REALDATA = Path(os.environ.get("CMELT_REALDATA", Path(__file__).parents[3] / "shared" / "realdata"))


def code_test(raw: Path) -> None:
    """Write CODE-test's layout: all its annotations, and tracings for the first twenty."""
    layouts.write_tracings(raw / "data/ecg_tracings.hdf5", [signal[:, :4000] for signal in layouts.real_mv(REALDATA, 20)])
    for name in ("annotations/gold_standard.csv", "attributes.csv"):
        (raw / "data" / name).parent.mkdir(exist_ok=True)
        (raw / "data" / name).write_bytes((REALDATA / "code_test" / name).read_bytes())


def exported(raw: Path) -> None:
    """Write one recording in each format that hospitals export."""
    for (ending, write), mv in zip(EXPORTS.items(), layouts.real_mv(REALDATA, len(EXPORTS)), strict=True):
        raw.mkdir(exist_ok=True)
        write(raw / f"{write.__name__}.{ending}", mv)


def npy(file: Path, mv: np.ndarray) -> None:
    """Write an array of µV, and the layout that describes it."""
    np.save(file, np.rint(mv * 1000).astype("<i2"))
    file.with_suffix(".json").write_text(f'{{"fs_hz": 500, "unit": "uV", "leads": {list(LEADS)}}}'.replace("'", '"'))


EXPORTS: dict[str, Callable[..., Any]] = {
    "xml": exports.muse,
    "XML": exports.aecg,
    "dcm": exports.dicom,
    "edf": exports.edf,
    "scp": exports.scp,
    "npy": npy,
}

Layout = Callable[[Path], object]
FAMILIES: list[tuple[str, str, str | Layout, dict[str, Any]]] = [
    ("ptbxl", "PTB-XL 1.0.1, 637 of its files at 500 Hz", "ptbxl", {}),
    ("ptbxl", "PTB-XL 1.0.1, 500 of its files at 100 Hz", "ptbxl", {"records100": True}),
    ("cinc2021", "seven databases, 2021", "cinc2021", {}),
    ("cinc2021", "headers of 2020", "cinc2020_header_variants", {}),
    ("wfdb", "headers of 2020", "cinc2020_header_variants", {}),
    ("cinc2021", "INCART, simulated: 257 Hz, 30 min", layouts.incart, {}),
    ("cpsc2018", "7 of its files", "cpsc2018", {}),
    ("csn", "published layout, real signals", lambda raw: layouts.csn(REALDATA, raw), {}),
    ("mimic-iv-ecg", "published layout, real signals", lambda raw: layouts.mimic(REALDATA, raw), {}),
    ("code15", "published layout, real signals", lambda raw: layouts.code15(REALDATA, raw), {}),
    ("code-test", "published layout, 20 real signals", code_test, {}),
    ("wfdb", "PTB: 15 leads, 1000 Hz", "ptbdb", {}),
    ("files", "MUSE, aECG, DICOM, EDF, SCP-ECG, .npy of real signals", exported, {}),
]
"""Family, what of it, its folder of real recordings or what writes its layout, its options."""


def measure(work: Path) -> list[dict[str, Any]]:
    """Return what became of each of FAMILIES, a row each."""
    rows = []
    for number, (dataset, what, source, options) in enumerate(FAMILIES):
        raw, out = work / f"raw{number}", work / f"out{number}"
        if isinstance(source, str):
            raw = REALDATA / source
        else:
            source(raw)
        recipe = load_recipe("ingest", "clinical", ["signal.fs_hz=100"] if options.get("records100") else [])
        counts = ingest(dataset, raw, out, recipe, workers=1, **options).manifest["counts"]
        assert counts["kept"] + sum(counts["refused"].values()) == counts["rows"]
        verify(out)
        rows.append({"family": dataset, "what": what, **{name: counts[name] for name in ("rows", "kept", "refused", "flags")}})
    return rows


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not REALDATA.is_dir():
        sys.exit(f"no real recordings at {REALDATA}; set CMELT_REALDATA")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(write_result("families", {"families": found}))
