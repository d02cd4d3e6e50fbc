"""The result files of runs as lines of one table, and that table as CSV, Markdown and LaTeX.

A number stands with its protocol and its source in every form: numbers of different protocols are never joined into one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import groupby
from typing import Any

from cmelt.labels import TASKS, read_table

OURS = "measured"
"""The source of a number that a run's result file tells."""
OURS_MODEL, TUNED = "pre-trained", "fine-tuned"
"""What stands for the run's own model in the column of models; baselines and published models have their names there."""
MEAN = "all"
"""What stands in the place of a class where a number is of all of them."""
MANY_CLASSES = "macro AUC"
ONE_CLASS = "AUC"
ZERO_SHOT, OF_LABELS = "zero-shot", " of labels"
"""What stands where no label was learnt from, and how a share of them ends: ``10 % of labels``."""
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
    leads: str = ""
    """Which were seen, where not all; the protocol says it too."""


def lines_of(
    run: str,
    protocol: str,
    result: dict[str, Any],
    label: Callable[[float], str],
    measures: Mapping[str, str],
    of_class: Mapping[str, str],
    leads: str = "",
) -> list[Line]:
    """Return the lines of one result file of `run`; `protocol` with all that is not the default, `label` words a fraction.

    `measures` and `of_class` say what else is told of a share of the labels and of a class: key of the file → its words. `leads` are
    those that were seen, where not all.
    """
    lines: list[Line] = []
    ours = TUNED if result["protocol"] == "finetune" else OURS_MODEL
    for entry in result["fractions"]:
        head = (result["task"], protocol, label(entry["fraction"]))
        if "not_computed" in entry:
            lines.append(Line(run, ours, *head, MEAN, MANY_CLASSES, None, note=entry["not_computed"]))
            continue
        n = entry["n_test"]
        models = {ours: entry} | {name.replace("_", " "): base for name, base in entry["baselines"].items()}
        for name, numbers in models.items():
            lines.append(Line(run, name, *head, MEAN, MANY_CLASSES, numbers["macro_auc"], *_ends(numbers["ci95"]), n))
            more = ((words, numbers.get(key)) for key, words in measures.items())
            lines += [Line(run, name, *head, MEAN, words, value, n_test=n) for words, value in more if value is not None]
        for kind, groups in entry.get("subgroups", {}).items():
            for group, of in groups.items():
                value, ends = of.get("macro_auc"), _ends(of.get("ci95"))
                lines.append(Line(run, ours, *head, f"{kind}: {group}", MANY_CLASSES, value, *ends, of["n"]))
        for one, of in entry["per_class"].items():
            told = {"n_test": n, "positives": of["positives"]}
            note = entry.get("left_out", {}).get(one, "")
            lines.append(Line(run, ours, *head, one, ONE_CLASS, of["auc"], *_ends(of["ci95"]), **told, note=note))
            for name, base in entry["baselines"].items():
                if "per_class" in base:
                    value = base["per_class"][one]
                    lines.append(Line(run, name.replace("_", " "), *head, one, ONE_CLASS, value, **told, note=note))
            lines += [Line(run, ours, *head, one, words, of[key], **told) for key, words in of_class.items() if of.get(key) is not None]
    return [replace(line, leads=leads) for line in lines]


def identity_lines(run: str, result: dict[str, Any], leads: str = "") -> list[Line]:
    """Return the lines of a result of `cmelt identify`: top-1, top-5 and EER by each set of features; `leads` where not all are seen."""
    lines = []
    pairs = result["pairs"]
    for name, scores in result["scores"].items():
        protocol = "; ".join(filter(None, [f"cosine of {name}", pairs.get("from"), leads]))
        for measure in ("top1", "top5", "eer"):
            ends = _ends(scores.get(f"{measure}_ci95"))
            lines.append(Line(run, OURS_MODEL, IDENTITY, protocol, "none", MEAN, measure, scores.get(measure), *ends, pairs.get("probes")))
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
WORDY = frozenset({"protocol", "source"})
"""Columns whose cells may take several lines."""


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


OF_ROW = ("run", "model", "protocol", "source")
"""What the rows of a Matrix are told apart by."""


@dataclass(frozen=True)
class Matrix:
    """A table as papers have it: `columns` are (task, share of the labels), `rows` what OF_ROW names and for each column a line, if any."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[tuple[str, str, str, str], list[Line | None]]]

    @property
    def spans(self) -> list[tuple[str, int]]:
        """Return each task and over how many columns it stands."""
        return [(task, len(list(of))) for task, of in groupby(task for task, _ in self.columns)]

    @property
    def shares(self) -> list[tuple[str, bool]]:
        """Return each column's share, and whether it is the first of its task."""
        tasks = [task for task, _ in self.columns]
        return [(labels.removesuffix(OF_LABELS), number == tasks.index(task)) for number, (task, labels) in enumerate(self.columns)]

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads of a table without spans."""
        return (*OF_ROW, *(f"{task}, {share}" for (task, _), (share, _) in zip(self.columns, self.shares, strict=True)))

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """Return the cells of a table without intervals."""
        return [(*head, *("–" if line is None else f"{line.value:.3f}" for line in row)) for head, row in self.rows]


def matrices(lines: Iterable[Line]) -> list[Matrix]:
    """Return macro AUC as papers table it: with labels, with fewer leads, zero-shot. A row is one model by one protocol, a column a task
    and a share.
    """
    order = list(TASKS)
    kept = [line for line in lines if line.of == MEAN and line.measure == MANY_CLASSES and line.value is not None]
    out = []
    for title, wanted in (
        ("Trained on labels", (False, False)),
        ("Trained on labels, fewer leads", (False, True)),
        ("Zero-shot", (True, False)),
    ):
        here = [line for line in kept if (line.labels == ZERO_SHOT, bool(line.leads)) == wanted]
        columns = sorted({(order.index(line.task), line.labels) for line in here}, key=lambda one: (one[0], _percent(one[1])))
        rows: dict[tuple[str, str, str, str], list[Line | None]] = {}
        for line in here:
            row = rows.setdefault((line.run, line.model, line.protocol, line.source), [None] * len(columns))
            row[columns.index((order.index(line.task), line.labels))] = line
        if any(row[0] for row in rows):  # published numbers alone are nobody's table
            out.append(Matrix(title, [(order[task], labels) for task, labels in columns], list(rows.items())))
    return out


def _percent(labels: str) -> float:
    """Return the percentage that a share of the labels is worded with, 0 for none."""
    found = re.match(r"[\d.]+", labels)
    return float(found[0]) if found else 0.0


NOTE = "Intervals: bootstrap over test patients. Numbers of different protocols or sources cannot be compared. Not for clinical use."


def brief(lines: Iterable[Line]) -> list[Line]:
    """Return the lines that a table to be read holds: of a class AUC alone."""
    return [line for line in lines if line.of == MEAN or line.measure in (ONE_CLASS, MANY_CLASSES)]


def to_markdown(lines: Sequence[Line], title: str, warning: str = "") -> str:
    """Return a Markdown page: macro AUC as papers table it, then a table a task with every number but those of a class that are not AUC."""
    out = [f"# {_markdown(title)}", *([f"**{_markdown(warning)}**"] if warning else []), NOTE]
    for matrix in matrices(lines):
        out += [f"## {_markdown(matrix.title)}: macro AUC", _grid(matrix.heads, matrix.cells, set(matrix.heads[len(OF_ROW) :]))]
    for task, rows in tables(brief(lines)):
        out += [f"## {_markdown(task)}", _grid(HEADS, rows, NUMBERS)]
    return "\n\n".join(out) + "\n"


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str]) -> str:
    """Return one table of Markdown; `numbers` are the heads of columns that are set to the right."""
    rule = "|".join("---:" if head in numbers else "---" for head in heads)
    body = (f"| {' | '.join(map(_markdown, cells))} |" for cells in (heads, *rows))
    return "\n".join([next(body), f"|{rule}|", *body])


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


def to_latex(lines: Sequence[Line], title: str, warning: str = "") -> str:
    """Return what `to_markdown` does as longtables, to be read by \\input; it needs the packages booktabs and longtable."""
    out = [rf"% {' '.join(title.split())}: \usepackage[T1]{{fontenc}}, \usepackage{{booktabs,longtable}}"]
    said = " ".join(filter(None, [f"{warning}." if warning else "", NOTE]))
    for matrix in matrices(lines):
        out += _longtable(f"{matrix.title}: macro AUC. {said}", matrix.heads, matrix.cells, set(matrix.heads[len(OF_ROW) :]))
    for task, rows in tables(brief(lines)):
        out += _longtable(f"{task}. {said}", HEADS, rows, NUMBERS)
    return "\n".join(out) + "\n"


def _longtable(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str]) -> list[str]:
    """Return the lines of one longtable; `numbers` are the heads of columns that are set to the right."""
    form = "".join("r" if head in numbers else "p{25mm}" if head in WORDY else "l" for head in heads)
    body = [" & ".join(map(_latex, cells)) + r" \\" for cells in rows]
    head = [rf"\caption{{{_latex(caption)}}} \\", r"\toprule", " & ".join(map(_latex, heads)) + r" \\", r"\midrule", r"\endhead"]
    small = r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}"
    return ["", small, rf"\begin{{longtable}}{{{form}}}", *head, *body, r"\bottomrule", r"\end{longtable}", r"\endgroup"]


def _latex(text: str) -> str:
    """Return `text` so that LaTeX sets it as it is."""
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
