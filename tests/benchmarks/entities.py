"""Measure the findings read from reports: ``python -m tests.benchmarks.entities --realdata PTBXL --keep``.

Right or wrong beside the reports of ``tests/text/entities_checked.csv``, half by half; and reports a second of processor time over all of
PTB-XL's cleaned reports, each sentence seen for the first time, and again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cmelt.text.entities import Status, cue_table, entities, entity_matrix, known_entities, wordings
from tests.benchmarks.results import write_result
from tests.text.checked import checked, clean_reports, scores


def rate(count: int, work: Callable[[], object]) -> int:
    """Return how many of `count` reports `work` does a second of processor time."""
    started = time.process_time()
    work()
    return round(count / (time.process_time() - started))


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
        "corpus": {"reports": len(texts), "silent": silent, **{status.name.lower(): said[status] for status in Status}},
    }
    print(json.dumps(figures, indent=1))
    if given.keep:
        write_result("entities", figures, data=f"PTB-XL 1.0.1, {len(rows)} reports read by hand; speed over all {len(texts):,}")


if __name__ == "__main__":
    main()
