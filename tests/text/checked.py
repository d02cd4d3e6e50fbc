"""Reports of PTB-XL whose findings were written down by hand (``entities_checked.csv``: numbers and statements, no text).

Two draws by `random.Random`: 240 of all records (seed 20261122), and 80 of the others whose report occurs once and has more than 60
letters (seed 20261123). One reader labelled them before there were rules. The first half of each draw is ``tuned``: the rules were
mended by it. The second is ``held``: its mistakes were never looked at.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from cmelt.text.entities import Status, entities
from cmelt.text.reports import clean_report

TABLE = Path(__file__).with_name("entities_checked.csv")
MARKS = {"?": Status.UNCERTAIN, "-": Status.ABSENT}


class Checked(NamedTuple):
    """A report's number, the draw and the half that it is of, and what it says by a reader."""

    ecg_id: int
    draw: str
    half: str
    says: dict[str, Status]


def checked() -> list[Checked]:
    """Return the rows of the table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [
            Checked(int(row["ecg_id"]), row["draw"], row["half"], dict(map(parse, row["statements"].split())))
            for row in csv.DictReader(file)
        ]


def parse(statement: str) -> tuple[str, Status]:
    """Return the code and status of ``LVH?`` (uncertain), ``LVH-`` (absent), ``LVH`` (present)."""
    return statement.rstrip("?-"), MARKS.get(statement[-1], Status.PRESENT)


def clean_reports(ptbxl: Path) -> dict[int, str]:
    """Return the cleaned report of each record of PTB-XL's folder `ptbxl`, by its number."""
    with (ptbxl / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        return {int(float(row["ecg_id"])): clean_report(row["report"], "ptbxl") for row in csv.DictReader(file)}


def scores(rows: list[Checked], reports: dict[int, str]) -> dict[str, Any]:
    """Return precision, recall and F1 of the rules' statements (finding and status right): over all, by status, by finding."""
    right: Counter[str] = Counter()
    told: Counter[str] = Counter()
    true: Counter[str] = Counter()
    exact = 0
    for row in rows:
        found = entities(reports[row.ecg_id])
        exact += found == row.says
        for statements, counts in ((found, told), (row.says, true), (dict(found.items() & row.says.items()), right)):
            for code, status in statements.items():
                counts.update(("all", f"status {status.name.lower()}", code))
    return {"reports": len(rows), "wholly_right": exact} | {
        name: {
            "statements": true[name],
            "precision": ratio(right[name], told[name]),
            "recall": ratio(right[name], true[name]),
            "f1": ratio(2 * right[name], told[name] + true[name]),
        }
        for name in sorted(true | told, key=lambda name: (name != "all", not name.startswith("status"), -true[name], name))
    }


def ratio(part: int, whole: int) -> float | None:
    """Return part of whole to four digits, None where there is none."""
    return round(part / whole, 4) if whole else None
