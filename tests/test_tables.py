"""Tables of numbers: every line in every form, nothing of the data read as markup."""

from __future__ import annotations

import csv
import io
import re

from cmelt.labels import TASKS, read_table
from cmelt.tables import (
    HEADS,
    IDENTITY,
    MANY_CLASSES,
    MEAN,
    OURS,
    Line,
    identity_lines,
    lines_of,
    published,
    tables,
    to_csv,
    to_latex,
    to_markdown,
)

NASTY = r"a_b|c & 5 % $x$ #1 {y} \input{z} <i> *b* ~^" + "\nnext"


def result() -> dict:
    """Return a result as the tasks write it."""
    per_class = {
        "MI": {"auc": 0.9, "ci95": [0.8, 0.95], "positives": 7},
        "HYP": {"auc": None, "ci95": None, "positives": 0},
    }
    base = {"macro_auc": 0.6, "ci95": [0.5, 0.7], "per_class": {"MI": 0.6, "HYP": None}}
    entry = {
        "fraction": 1.0,
        "n_test": 50,
        "macro_auc": 0.9,
        "ci95": [0.8, 0.95],
        "per_class": per_class,
        "baselines": {"random_init": base},
    }
    too_small = {"fraction": 0.01, "n_train": 3, "not_computed": NASTY}
    return {"task": "superclass", "protocol": "strict", "fractions": [too_small, entry | {"left_out": {"HYP": "no positive recording"}}]}


def lines() -> list[Line]:
    return lines_of("run_1", "strict", result(), lambda fraction: f"{100 * fraction:g} % of labels")


def test_lines() -> None:
    found = lines()
    assert [(line.model, line.of, line.value) for line in found] == [
        ("pre-trained", MEAN, None),
        ("pre-trained", MEAN, 0.9),
        ("random init", MEAN, 0.6),
        ("pre-trained", "MI", 0.9),
        ("random init", "MI", 0.6),
        ("pre-trained", "HYP", None),
        ("random init", "HYP", None),
    ]
    assert found[0].note == NASTY
    assert found[1] == Line("run_1", "pre-trained", "superclass", "strict", "100 % of labels", MEAN, MANY_CLASSES, 0.9, 0.8, 0.95, 50)
    assert (found[5].note, found[5].positives) == ("no positive recording", 0)


def test_csv_holds_every_line_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(lines()))))
    assert len(rows) == 7
    assert [rows[3][name] for name in ("of", "value", "low", "high", "n_test", "positives")] == ["MI", "0.9", "0.8", "0.95", "50", "7"]
    assert rows[0]["value"] == ""
    assert rows[0]["note"] == NASTY


def test_markdown_shows_what_it_was_given() -> None:
    page = to_markdown(lines(), "runs", "simulated data")
    body = [line for line in page.splitlines() if line.startswith("| run")]
    assert len(body) == 8
    assert all(len(re.findall(r"(?<!\\)\|", line)) == len(HEADS) + 1 for line in body), "a cell broke its row"
    assert r"a\_b\|c &amp; 5 % $x$ \#1 \{y\} \\input\{z\} &lt;i&gt; \*b\* \~^ next" in page
    assert "**simulated data**" in page
    assert "0.900 | 0.800–0.950 | 7 of 50" in page


def test_latex_sets_what_it_was_given() -> None:
    page = to_latex(lines(), NASTY)
    rows = [line for line in page.splitlines() if line.startswith("run\\_1")]
    assert len(rows) == 7
    assert all(len(re.findall(r"(?<!\\)&", row)) == len(HEADS) - 1 and row.endswith(r" \\") for row in rows)
    assert r"a\_b\textbar{}c \& 5 \% \$x\$ \#1 \{y\} \textbackslash{}input\{z\} \textless{}i\textgreater{} *b* " in rows[0]
    assert not [line for line in page.splitlines() if "next" in line and not line.startswith(("%", "run"))]
    assert page.count(r"\begin{longtable}") == page.count(r"\end{longtable}") == len(tables(lines()))


def test_published_numbers_keep_their_protocol_and_source() -> None:
    rows = read_table("published")
    found = published({*TASKS, IDENTITY})
    assert len(found) == len(rows) > 20, "a row names no known task"
    assert all(line.protocol.startswith("published") and line.source and line.source != OURS and not line.run for line in found)
    assert all(0 < line.value < 1 for line in found if line.value is not None)
    assert len({(line.model, line.task, line.protocol, line.measure) for line in found}) == len(found)
    assert [line.value for line in published({"rhythm"})] == [0.785, 0.886, 0.957]
    mixed = dict(tables([*lines(), *published({"superclass"})]))["superclass"]
    assert [cells[HEADS.index("source")] for cells in mixed[-3:]] == ["secondary source"] * 2 + ["README of the PTB-XL benchmark"]


def test_identification() -> None:
    scores = {"mean": {"top1": 0.5, "top5": 0.75, "eer": 0.1, "top1_ci95": [0.4, 0.6]}}
    found = identity_lines("run_1", {"pairs": {"from": "patients", "probes": 9}, "scores": scores})
    assert [(line.measure, line.value, line.low, line.n_test) for line in found] == [
        ("top1", 0.5, 0.4, 9),
        ("top5", 0.75, None, 9),
        ("eer", 0.1, None, 9),
    ]
    assert found[0].task == IDENTITY
