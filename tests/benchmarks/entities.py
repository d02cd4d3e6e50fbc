"""Measure the findings read from reports: ``python -m tests.benchmarks.entities --realdata PTBXL --keep``.

Right or wrong beside the reports of ``tests/text/entities_checked.csv``, half by half; and reports a second of processor time over all of
PTB-XL's cleaned reports, each sentence seen for the first time, and again. And how often a recording of the training folds has the
superclass of a finding (its code, where it is of none), by what the report says of it: what the targets of the entity loss rest on.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cmelt.labels import load_vocabulary
from cmelt.text.entities import UNSAID, Status, cue_table, entities, entity_matrix, known_entities, wordings
from tests.benchmarks.results import write_result
from tests.text.checked import checked, clean_reports, scores


def rate(count: int, work: Callable[[], object]) -> int:
    """Return how many of `count` reports `work` does a second of processor time."""
    started = time.process_time()
    work()
    return round(count / (time.process_time() - started))


TRAINING = range(1, 9)
"""Folds whose labels are looked at."""
COMMON = 100
"""A finding counts that so many of their reports hedge."""


def coded(ptbxl: Path, reports: dict[int, str]) -> dict[str, dict[str, Any]]:
    """Return, for findings often hedged, the share of recordings with the superclass or code, and their number, by what is said."""
    with (ptbxl / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["strat_fold"]) in TRAINING]
    codes = [set(ast.literal_eval(row["scp_codes"])) for row in rows]
    superclass = load_vocabulary("superclass")
    classes = [some | superclass.classes_of(some) for some in codes]
    said = entity_matrix([reports[int(float(row["ecg_id"]))] for row in rows])
    found = {}
    for entity, column in zip(known_entities(), said.T, strict=True):
        has = np.array([(entity.superclass or entity.code) in some for some in classes])
        kinds = {"stated": Status.PRESENT, "hedged": Status.UNCERTAIN, "unsaid": UNSAID}
        if (column == Status.UNCERTAIN).sum() >= COMMON:
            found[entity.code] = {
                "of": entity.superclass or entity.code,
                **{kind: {"share": round(float(has[column == s].mean()), 3), "n": int((column == s).sum())} for kind, s in kinds.items()},
            }
    return found


def main() -> None:
    """Measure, print, and write the figures where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--realdata", type=Path, required=True, help="raw folder of PTB-XL")
    parser.add_argument("--keep", action="store_true", help="write the figures to docs/results")
    given = parser.parse_args()
    reports = clean_reports(given.realdata)
    texts = list(reports.values())
    wordings()  # compiled once a process
    cue_table()
    first = rate(len(texts), lambda: entity_matrix(texts))
    again = rate(len(texts), lambda: [entities(text) for text in texts])
    rows = checked()
    said = Counter(status for text in texts for status in entities(text).values())
    silent = sum(not entities(text) for text in texts)
    figures = {
        "findings": len(known_entities()),
        "held": scores([row for row in rows if row.half == "held"], reports),
        "tuned": scores([row for row in rows if row.half == "tuned"], reports),
        "held_once": scores([row for row in rows if row.half == "held" and row.draw == "once"], reports)["all"],
        "reports_per_cpu_second": {"first": first, "again": again},
        "coded": coded(given.realdata, reports),
        "corpus": {"reports": len(texts), "silent": silent, **{status.name.lower(): said[status] for status in Status}},
    }
    print(json.dumps(figures, indent=1))
    if given.keep:
        write_result("entities", figures, data=f"PTB-XL 1.0.1, {len(rows)} reports read by hand; speed over all {len(texts):,}")


if __name__ == "__main__":
    main()
