"""The result files of runs as lines of one table, and that table as CSV, Markdown and LaTeX.

A number stands with its protocol and its source in every form: numbers of different protocols are never joined into one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from cmelt.labels import read_table

OURS = "measured"
"""The source of a number that a run's result file tells."""
MEAN = "all"
"""What stands in the place of a class where a number is of all of them."""
MANY_CLASSES = "macro AUC"
ONE_CLASS = "AUC"
IDENTITY = "identification"
"""The task of finding a patient again."""


@dataclass(frozen=True)
class Line:
    """One number: whose, on what, by which protocol, of which class, in what measure, its 95 % interval, and where it is from."""

    run: str
    model: str
    task: str
    protocol: str
    labels: str
    """The share of the training labels, or ``zero-shot``."""
    of: str
    """A class, or MEAN."""
    measure: str
    value: float | None
    """None where the result says why there is none, in `note`."""
    low: float | None = None
    high: float | None = None
    n_test: int | None = None
    positives: int | None = None
    source: str = OURS
    note: str = ""


def lines_of(run: str, protocol: str, result: dict[str, Any], label: Callable[[float], str]) -> list[Line]:
    """Return the lines of one result file of `run`; `protocol` with all that is not the default, `label` words a fraction."""
    lines: list[Line] = []
    for entry in result["fractions"]:
        head = (result["task"], protocol, label(entry["fraction"]))
        if "not_computed" in entry:
            lines.append(Line(run, "pre-trained", *head, MEAN, MANY_CLASSES, None, note=entry["not_computed"]))
            continue
        models = {"pre-trained": entry} | {name.replace("_", " "): base for name, base in entry["baselines"].items()}
        for name, numbers in models.items():
            lines.append(Line(run, name, *head, MEAN, MANY_CLASSES, numbers["macro_auc"], *_ends(numbers["ci95"]), entry["n_test"]))
        for one, of in entry["per_class"].items():
            more = {"n_test": entry["n_test"], "positives": of["positives"], "note": entry.get("left_out", {}).get(one, "")}
            lines.append(Line(run, "pre-trained", *head, one, ONE_CLASS, of["auc"], *_ends(of["ci95"]), **more))
            for name, base in entry["baselines"].items():
                if "per_class" in base:
                    lines.append(Line(run, name.replace("_", " "), *head, one, ONE_CLASS, base["per_class"][one], **more))
    return lines


def identity_lines(run: str, result: dict[str, Any]) -> list[Line]:
    """Return the lines of a result of `cmelt identify`: top-1, top-5 and EER by each set of features."""
    lines = []
    pairs = result.get("pairs", {})  # a result of another version may tell neither
    for name, scores in result.get("scores", {}).items():
        protocol = "; ".join(filter(None, [f"cosine of {name}", pairs.get("from")]))
        for measure in ("top1", "top5", "eer"):
            ends = _ends(scores.get(f"{measure}_ci95"))
            lines.append(
                Line(run, "pre-trained", IDENTITY, protocol, "none", MEAN, measure, scores.get(measure), *ends, pairs.get("probes"))
            )
    return lines


def published(tasks: Collection[str]) -> list[Line]:
    """Return the numbers of the literature on `tasks` (``vocab/published.csv``), each with its own protocol and source."""
    rows = [row for row in read_table("published") if row["task"] in tasks]
    return [
        Line("", row["model"], row["task"], row["protocol"], row["labels"], MEAN, row["measure"], float(row["value"]), source=row["source"])
        for row in rows
    ]


def _ends(bounds: Sequence[float] | None) -> tuple[float | None, float | None]:
    """Return an interval's ends, two Nones where there is none."""
    return (bounds[0], bounds[1]) if bounds else (None, None)


def to_csv(lines: Iterable[Line]) -> str:
    """Return every line in full: a number stands in its own column, as it was measured; missing ones are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Line))
    writer.writerows(map(astuple, lines))
    return out.getvalue()


HEADS = ("run", "model", "protocol", "labels", "class", "measure", "value", "95 %", "test", "source")
NUMBERS = frozenset({"value", "95 %", "test"})
"""Columns that are set to the right."""


def tables(lines: Iterable[Line]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return (task, cells in the order of HEADS) for each task; a class is one row, and its positives stand beside the test recordings."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        test = "" if line.n_test is None else f"{line.n_test}" if line.positives is None else f"{line.positives} of {line.n_test}"
        value = "–" if line.value is None else f"{line.value:.3f}"
        bounds = "" if line.low is None or line.high is None else f"{line.low:.3f}–{line.high:.3f}"
        source = f"{line.source}; {line.note}" if line.note else line.source
        cells = (line.run, line.model, line.protocol, line.labels, line.of, line.measure, value, bounds, test, source)
        found.setdefault(line.task, []).append(cells)
    return list(found.items())


NOTE = "Intervals: bootstrap over test patients. Numbers of different protocols or sources cannot be compared. Not for clinical use."


def to_markdown(lines: Iterable[Line], title: str, warning: str = "") -> str:
    """Return a Markdown page with one table a task."""
    out = [f"# {_markdown(title)}", *([f"**{_markdown(warning)}**"] if warning else []), NOTE]
    rule = "|".join("---:" if head in NUMBERS else "---" for head in HEADS)
    for task, rows in tables(lines):
        body = [" | ".join(map(_markdown, cells)) for cells in rows]
        out += [f"## {_markdown(task)}", "\n".join([f"| {' | '.join(HEADS)} |", f"|{rule}|", *(f"| {row} |" for row in body)])]
    return "\n\n".join(out) + "\n"


def _markdown(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, on one line of a table."""
    escaped = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    "·": r"\textperiodcentered{}",
}
"""Sign → what LaTeX sets it with; a few need the T1 encoding, which the first line of the file names."""


def to_latex(lines: Iterable[Line], title: str, warning: str = "") -> str:
    """Return one longtable a task, to be read by \\input; it needs the packages booktabs and longtable."""
    out = [rf"% {' '.join(title.split())}: \usepackage[T1]{{fontenc}}, \usepackage{{booktabs,longtable}}"]
    form = "".join("r" if head in NUMBERS else "l" for head in HEADS)
    heads = " & ".join(map(_latex, HEADS)) + r" \\"
    for task, rows in tables(lines):
        said = " ".join(filter(None, [f"{task}.", f"{warning}." if warning else "", NOTE]))
        out += ["", rf"\begin{{longtable}}{{{form}}}", rf"\caption{{{_latex(said)}}} \\", r"\toprule", heads, r"\midrule", r"\endhead"]
        out += [" & ".join(map(_latex, cells)) + r" \\" for cells in rows]
        out += [r"\bottomrule", r"\end{longtable}"]
    return "\n".join(out) + "\n"


def _latex(text: str) -> str:
    """Return `text` so that LaTeX sets it as it is."""
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
