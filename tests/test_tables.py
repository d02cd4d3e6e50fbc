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
    OF_ROW,
    OURS,
    ZERO_SHOT,
    Line,
    identity_lines,
    lines_of,
    matrices,
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
        "MI": {"auc": 0.9, "ci95": [0.8, 0.95], "positives": 7, "f1": 0.25},
        "HYP": {"auc": None, "ci95": None, "positives": 0},
    }
    base = {"macro_auc": 0.6, "ci95": [0.5, 0.7], "per_class": {"MI": 0.6, "HYP": None}}
    entry = {
        "fraction": 1.0,
        "n_test": 50,
        "macro_auc": 0.9,
        "macro_ap": 0.45,
        "ci95": [0.8, 0.95],
        "per_class": per_class,
        "subgroups": {"sex": {"female": {"n": 20, "classes": 1, "macro_auc": 0.88, "ci95": [0.7, 0.99]}, "male": {"n": 1, "classes": 0}}},
        "baselines": {"random_init": base},
    }
    too_small = {"fraction": 0.01, "n_train": 3, "not_computed": NASTY}
    return {"task": "superclass", "protocol": "strict", "fractions": [too_small, entry | {"left_out": {"HYP": "no positive recording"}}]}


def lines() -> list[Line]:
    return lines_of(
        "run_1", "strict", result(), lambda fraction: f"{100 * fraction:g} % of labels", {"macro_ap": "precision"}, {"f1": "F1"}
    )


def test_lines() -> None:
    found = lines()
    assert [(line.model, line.of, line.value) for line in found] == [
        ("pre-trained", MEAN, None),
        ("pre-trained", MEAN, 0.9),
        ("pre-trained", MEAN, 0.45),
        ("random init", MEAN, 0.6),
        ("pre-trained", "sex: female", 0.88),
        ("pre-trained", "sex: male", None),
        ("pre-trained", "MI", 0.9),
        ("random init", "MI", 0.6),
        ("pre-trained", "MI", 0.25),
        ("pre-trained", "HYP", None),
        ("random init", "HYP", None),
    ]
    assert found[0].note == NASTY
    assert found[1] == Line("run_1", "pre-trained", "superclass", "strict", "100 % of labels", MEAN, MANY_CLASSES, 0.9, 0.8, 0.95, 50)
    assert [line.measure for line in found[1:3]] == [MANY_CLASSES, "precision"]
    assert (found[3].n_test, found[4].n_test, found[8].measure) == (50, 20, "F1")
    assert (found[9].note, found[9].positives) == ("no positive recording", 0)


def test_csv_holds_every_line_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(lines()))))
    assert len(rows) == 11
    assert [rows[6][name] for name in ("of", "value", "low", "high", "n_test", "positives")] == ["MI", "0.9", "0.8", "0.95", "50", "7"]
    assert rows[0]["value"] == ""
    assert rows[0]["note"] == NASTY


def test_markdown_shows_what_it_was_given() -> None:
    page = to_markdown(lines(), "runs", "simulated data")
    body = [line for line in page.splitlines() if line.startswith("| run")]
    assert len(body) == 1 + 2 + 1 + 10, "heads, rows of the matrix; head, every line but F1 of a class"
    wide = [len(re.findall(r"(?<!\\)\|", line)) for line in body]
    assert wide == [len(OF_ROW) + 2] * 3 + [len(HEADS) + 1] * 11, "a cell broke its row"
    assert r"a\_b\|c &amp; 5 % $x$ \#1 \{y\} \\input\{z\} &lt;i&gt; \*b\* \~^ next" in page
    assert "**simulated data**" in page
    assert "0.900 | 0.800–0.950 | 7 of 50" in page


def test_latex_sets_what_it_was_given() -> None:
    page = to_latex(lines(), NASTY)
    rows = [line for line in page.splitlines() if line.startswith("run\\_1")]
    assert len(rows) == 2 + 10
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [len(OF_ROW)] * 2 + [len(HEADS) - 1] * 10
    assert all(row.endswith(r" \\") for row in rows)
    assert re.sub(r"\\[{}]", "", page).count("{") == re.sub(r"\\[{}]", "", page).count("}")
    assert r"a\_b\textbar{}c \& 5 \% \$x\$ \#1 \{y\} \textbackslash{}input\{z\} \textless{}i\textgreater{} *b* " in rows[2]
    assert not [line for line in page.splitlines() if "next" in line and not line.startswith(("%", "run"))]
    assert page.count(r"\begin{longtable}") == page.count(r"\end{longtable}") == len(tables(lines())) + len(matrices(lines()))


def test_published_numbers_keep_their_protocol_and_source() -> None:
    rows = read_table("published")
    found = published({*TASKS, IDENTITY})
    assert len(found) == len(rows) > 20, "a row names no known task"
    assert all(line.protocol.startswith("published") and line.source and line.source != OURS and not line.run for line in found)
    assert all(0 < line.value < 1 for line in found if line.value is not None)
    assert len({(line.model, line.task, line.protocol, line.labels, line.measure, line.source) for line in found}) == len(found)
    assert [line.value for line in published({"rhythm"}) if line.labels == ZERO_SHOT] == [0.785, 0.886]
    mixed = dict(tables([*lines(), *published({"superclass"})]))["superclass"]
    assert OURS not in {cells[HEADS.index("source")] for cells in mixed[11:]}


def test_a_matrix_is_what_papers_print_and_mixes_nothing() -> None:
    (found,) = matrices([*lines(), *published({"superclass", "rhythm"})])  # nothing of ours is zero-shot
    assert found.spans == [("superclass", 2), ("rhythm", 2)]
    assert found.shares == [("1 %", True), ("100 %", False), ("1 %", True), ("100 %", False)]
    assert found.heads == (*OF_ROW, "superclass, 1 %", "superclass, 100 %", "rhythm, 1 %", "rhythm, 100 %")
    rows = {cells[: len(OF_ROW)]: cells[len(OF_ROW) :] for cells in found.cells}
    assert len(rows) == len(found.rows), "two rows are told apart by nothing"
    assert rows["run_1", "pre-trained", "strict", OURS] == ("–", "0.900", "–", "–")
    of_merl = {head[2:]: cells for head, cells in rows.items() if head[1] == "MERL"}
    assert sorted(cells[2] for cells in of_merl.values()) == ["0.533", "0.849", "–"], "one model by two protocols: never one row"
    assert matrices(published({"superclass"})) == [], "published numbers alone"
    few = lines_of("run_1", "strict, lead II", result(), lambda share: f"{100 * share:g} % of labels", {}, {}, "lead II")
    assert [matrix.title for matrix in matrices([*lines(), *few])] == ["Trained on labels", "Trained on labels, fewer leads"]


def test_identification() -> None:
    scores = {"mean": {"top1": 0.5, "top5": 0.75, "eer": 0.1, "top1_ci95": [0.4, 0.6]}}
    found = identity_lines("run_1", {"pairs": {"from": "patients", "probes": 9}, "scores": scores}, "lead II")
    assert [(line.measure, line.value, line.low, line.n_test) for line in found] == [
        ("top1", 0.5, 0.4, 9),
        ("top5", 0.75, None, 9),
        ("eer", 0.1, None, 9),
    ]
    assert found[0].task == IDENTITY
    assert found[0].protocol == "cosine of mean; patients; lead II"
