"""Measure what wrong reports give away and what drawing them costs: ``python -m tests.benchmarks.negatives PTBXL_FOLDER``.

The folder holds ptbxl_database.csv. Blind readers (cmelt.training.controls) score the matching task on the training reports under each
way of drawing, batches of 128; embeddings and the table of opposites are timed for 180,000 distinct reports, made by putting
sentences of real ones together. Written to docs/results/negatives.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmelt.text.reports import clean_report
from cmelt.training.controls import controls, deal_epochs
from cmelt.training.negatives import Dealer, antipodal_table, report_embeddings
from tests.benchmarks.results import peak_mb, write_result

BATCH = 128


def training_reports(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return PTB-XL's distinct training reports, and of each training row its report and its device's family, as numbers."""
    with (folder / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["strat_fold"]) <= 8]
    told = [(text, (row["device"].split() or [""])[0]) for row in rows if (text := clean_report(row["report"], "ptbxl"))]
    reports, report_id = np.unique([text for text, _ in told], return_inverse=True)
    return reports.tolist(), report_id, np.unique([device for _, device in told], return_inverse=True)[1]


def recombined(reports: list[str], count: int, seed: int = 0) -> list[str]:
    """Return `count` distinct texts, each of one to six sentences of `reports`, the commoner ones oftener."""
    sentences = [part.strip() for report in reports for part in report.split(".") if part.strip()]
    rng = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        made[". ".join(sentences[i] for i in rng.integers(len(sentences), size=rng.integers(1, 7))) + "."] = None
    return list(made)


def readers(folder: Path, epochs: int) -> dict[str, dict[str, float]]:
    """Return what blind readers score under each way of drawing."""
    reports, report_id, device = training_reports(folder)
    embeddings = report_embeddings(reports)
    ways = {
        "balanced": (Dealer(embeddings), device),
        "balanced, without groups": (Dealer(embeddings), np.zeros_like(device)),
        "antipodal": (Dealer(embeddings, "antipodal"), device),
        "random": (Dealer(embeddings, "random"), device),
    }
    told = {}
    for name, (dealer, group) in ways.items():
        dealt = deal_epochs(dealer, report_id, group, BATCH, epochs)
        told[name] = controls(dealt, reports, report_id, device, embeddings)
    return told


def costs(folder: Path, count: int) -> dict[str, float]:
    """Return how long embeddings and the table of opposites take for `count` distinct reports, and a deal of a batch."""
    reports = recombined(training_reports(folder)[0], count)
    told = {"reports": float(count)}
    start, worked = time.perf_counter(), time.process_time()
    embeddings = report_embeddings(reports)
    told |= {"embeddings_s": time.perf_counter() - start, "embeddings_cpu_s": time.process_time() - worked}
    start, worked = time.perf_counter(), time.process_time()
    antipodal_table(embeddings)
    told |= {"table_s": time.perf_counter() - start, "table_cpu_s": time.process_time() - worked}
    rng = np.random.default_rng(0)
    dealer, took = Dealer(embeddings), []
    for _ in range(200):
        report_id, group = rng.integers(count, size=BATCH), rng.integers(8, size=BATCH)
        start = time.perf_counter()
        dealer.deal(report_id, group, rng)
        took.append(time.perf_counter() - start)
    return told | {
        "deal_ms": 1e3 * statistics.median(took),
        "peak_memory_mb": peak_mb(),
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--reports", type=int, default=180_000)
    parser.add_argument("--only", choices=["negatives", "negatives-cost"], default="", help="one of the two results")
    arguments = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "negatives-cost": lambda: costs(arguments.folder, arguments.reports),
        "negatives": lambda: {"batch": BATCH, "epochs": arguments.epochs, "blind_readers": readers(arguments.folder, arguments.epochs)},
    }
    for name, measure in parts.items():
        if arguments.only in ("", name):
            figures = json.loads(json.dumps(measure()), parse_float=lambda text: round(float(text), 4))
            print(json.dumps(figures, indent=1))
            print(write_result(name, figures))


if __name__ == "__main__":
    main()
