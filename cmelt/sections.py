"""A run's result files as sections of its page: what each task found, in bars, tables and pictures. Reads ``RUN/results/`` only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmelt.errors import CheckpointError
from cmelt.labels import TASKS, load_vocabulary
from cmelt.page import Score, auc, number, percent, picture, words
from cmelt.plots import plot_steps
from cmelt.predictions import drawn, similarity
from cmelt.record import LEADS
from cmelt.tables import Line, identity_lines, lines_of
from cmelt.tasks.results import AVERAGES, MANY

ZERO_SHOT = "zero-shot"
KINDS = {"finetune": "finetune", "zeroshot": "zeroshot"}
"""Protocols that are no linear probe → the section of the page that tells of them."""

MEASURES = {
    f"macro_auc_at_least_{MANY}_positives": f"macro AUC of classes with {MANY} or more positives",
    **AVERAGES,
    "last_epoch_auc": "macro AUC of the last epoch",
    "best_minus_last": "best epoch on the test fold minus the last",
    "auc_at_best_validation_epoch": "macro AUC of the epoch that is best on validation",
    "sd_over_seeds": "sd over draws",
}
"""What a share of the labels also holds → how it is told."""

OF_A_CLASS = {"ap": "average precision", "f1": "F1", "ece": "calibration error"}
"""What a class also holds → how it is told."""

IN_AN_ENTRY = {"fraction", "n_train", "n_test", "seeds", "macro_auc", "ci95", "per_class", "baselines"}
IN_A_POINT = {"leads", "fraction", "macro_auc", "ci95", "baselines"}
"""What a share of the labels, and a point of a lead curve, must hold to be told."""


@dataclass(frozen=True)
class Found:
    """What a run's result files say, in the order of the page, and a line about each file that cannot be told."""

    results: list[tuple[Path, dict[str, Any]]]
    curves: list[dict[str, Any]]
    people: list[dict[str, Any]]
    unread: list[str]

    @property
    def shards(self) -> list[str]:
        """Return the shard folders that the results name."""
        return list(dict.fromkeys(place for _, result in self.results for place in result.get("shards", [])))

    @property
    def datasets(self) -> set[str]:
        """Return the data sets that the results are of."""
        return {name for _, result in self.results for name in result.get("datasets", [])}

    def lines(self, run: str) -> list[Line]:
        """Return every number as a line of the tables."""
        more = (share_of, MEASURES, OF_A_CLASS)
        told = [line for _, result in self.results for line in lines_of(run, protocol_of(result), result, *more, leads_of(result))]
        return told + [line for people in self.people for line in identity_lines(run, people, leads_of(people))]


@dataclass
class Section:
    """One result file on the page. `groups`: (kind, bars) of subgroups; `measures`: rows of a name and a value a share of the labels."""

    kind: str
    task: str
    what: str
    protocol: str
    is_default: bool
    macro: list[Score] = field(default_factory=list)
    classes: list[Score] = field(default_factory=list)
    groups: list[tuple[str, list[Score]]] = field(default_factory=list)
    by_share: dict[str, dict[str, Any]] = field(default_factory=dict)
    measures: list[list[str]] = field(default_factory=list)
    by_class: list[list[str]] = field(default_factory=list)
    retrieval: list[list[str]] = field(default_factory=list)
    rules: list[tuple[str, str]] = field(default_factory=list)
    share: str = ""
    """The largest share of the labels: of it the classes are told."""
    beside: str = ""
    left_out: str = ""
    drawn: dict[str, Any] | None = None
    heat: dict[str, Any] | None = None

    @property
    def best(self) -> dict[str, Any] | None:
        """Return the entry of the largest share of the labels; None where none was computed."""
        return self.by_share.get(self.share)

    @property
    def class_heads(self) -> list[str]:
        """Return the heads of `by_class`."""
        return ["class", "", "positives", "AUC", "95 %", *OF_A_CLASS.values()]

    @property
    def low(self) -> float:
        """Return where the scale of the bars begins: no bar, mark or whisker ends below it."""
        bars = [*self.macro, *self.classes, *(bar for _, of in self.groups for bar in of)]
        return lowest(bars)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a run folder; raises CheckpointError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); name a run folder that cmelt pretrain made") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error}); make it anew") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: not a JSON object; make it anew")
    return found


def read_results(folder: Path) -> Found:
    """Read the result files in `folder`, by task, all leads and protocol strict first; raises CheckpointError for one that is no JSON."""
    unread: list[str] = []

    def told(pattern: str, lacks: Callable[[dict[str, Any]], set[str]]) -> list[tuple[Path, dict[str, Any]]]:
        kept = []
        for file in sorted(folder.glob(pattern)):
            result = read_json(file)
            if result.get("task") == "generate":
                unread.append(f"{file.name} is not shown here: reports that a model wrote; cmelt generate score tells of them")
            elif missing := lacks(result):
                unread.append(f"{file.name} is left out: it has no {', '.join(sorted(missing))}; another version wrote it, make it anew")
            elif result.get("task", "all") not in TASKS:
                unread.append(f"{file.name} is left out: this version knows no task {result['task']}")
            else:
                kept.append((file, result))
        return kept

    results = told("*.json", _lacks)
    results.sort(key=lambda one: (list(TASKS).index(one[1]["task"]), -len(one[1].get("leads", LEADS)), one[1]["protocol"] != "strict"))
    curves = told("curves/*.json", lambda found: ({"task", "protocol", "points"} - set(found)) or _points_lack(found["points"]))
    people = told("people/*.json", lambda found: {"pairs", "scores"} - set(found))
    return Found(results, [curve for _, curve in curves], [one for _, one in people], unread)


def _lacks(result: dict[str, Any]) -> set[str]:
    """Return what a result file must hold and does not."""
    missing = {"task", "protocol", "fractions"} - set(result)
    for entry in result.get("fractions", []):
        missing |= ({"fraction"} if "not_computed" in entry else IN_AN_ENTRY) - set(entry)
    return missing


def _points_lack(points: Sequence[dict[str, Any]]) -> set[str]:
    """Return what the points of a lead curve must hold and do not."""
    return {name for point in points for name in IN_A_POINT - set(point)} if points else {"points"}


def share_of(fraction: float) -> str:
    """Word the share of the training labels that a result is at."""
    return f"{percent(fraction)} of labels" if fraction else ZERO_SHOT


def leads_of(result: Mapping[str, Any]) -> str:
    """Name the leads that a result is of; '' = all."""
    leads = result.get("leads", LEADS)
    return "" if set(leads) >= set(LEADS) else f"lead{'s' if len(leads) > 1 else ''} {', '.join(leads)}"


def differs(result: Mapping[str, Any]) -> list[str]:
    """Name what in a result, beside its protocol, is not the default."""
    layers = result.get("recipe", {}).get("tune", {}).get("layers", -1)
    parts = {
        "texts": f"texts: {result['rule']['texts']}, {result['rule']['similarity']}" if "rule" in result else "",
        "layers": {-1: "", 0: "head only", 1: "last layer"}.get(layers, f"last {layers} layers"),
        "leads": leads_of(result),
        "fold": f"scored: fold {result['fold']}" if "fold" in result else "",
        "where": f"where {result['where']}" if result.get("where") else "",
        "tested": f"learnt on {', '.join(result['trained_on'])}, tested on {', '.join(result['tested_on'])}"
        if "tested_on" in result
        else "",
        "split": "" if result.get("split", "as ingested") == "as ingested" else f"split files ({result['split']})",
    }
    return [part for part in parts.values() if part]


def protocol_of(result: Mapping[str, Any]) -> str:
    """Name a result's protocol, and all that is not the default."""
    return ", ".join([result["protocol"], *differs(result)])


def bounds(ci95: Sequence[float] | None) -> str:
    """Write an interval, '' where there is none."""
    return f"{auc(ci95[0])}–{auc(ci95[1])}" if ci95 else ""


def lowest(bars: Sequence[Score]) -> float:
    """Return where the scale of `bars` begins: a tenth, 0.4 at most."""
    ends = [end for bar in bars for end in (bar.auc, bar.mark, *(bar.ci95 or ())) if end is not None]
    return math.floor(10 * min([0.4, *ends])) / 10


def section(file: Path, result: dict[str, Any]) -> Section:
    """Turn a result file into a section, with the pictures of the predictions beside it."""
    vocabulary = load_vocabulary(result["task"])

    def describe(name: str) -> str:
        return vocabulary.describe(name) if name in vocabulary.classes else ""

    kind = KINDS.get(result["protocol"], "probe")
    shown = [result["protocol"]] if result["protocol"] not in ("strict", "zeroshot", "finetune") else []
    what = ", ".join([result["task"], *shown, *differs(result)])
    out = Section(kind, result["task"], what, protocol_of(result), file.stem == f"{kind}-{result['task']}")
    for entry in result["fractions"]:
        share = share_of(entry["fraction"])
        if "not_computed" in entry:
            out.macro.append(Score(f"{share}: not computed", entry["not_computed"], None))
            continue
        out.by_share[share] = entry
        out.macro += _macro(share, entry)
    out.share = max(out.by_share, key=lambda name: out.by_share[name]["fraction"], default="")
    rows = [[told, *(auc(entry.get(name)) for entry in out.by_share.values())] for name, told in MEASURES.items()]
    out.measures = [row for row in rows if set(row[1:]) > {"–"} or "–" not in row[1:]]
    of = result.get("retrieval", {})
    if of.get("pairs"):
        ways = {"ECG to report": "ecg_to_text", "report to ECG": "text_to_ecg"}
        out.retrieval = [[name, *(auc(of.get(f"{way}@{k}")) for k in (1, 5, 10))] for name, way in ways.items()]
    out.rules = [(rule, auc(value)) for rule, value in result.get("validation", {}).items()]
    best = out.best
    if best is None:
        return out
    beside, marks = next(((name, base["per_class"]) for name, base in best["baselines"].items() if "per_class" in base), ("", {}))
    out.beside = words(beside)
    reasons = best.get("left_out", {})
    for name, of_class in best["per_class"].items():
        if of_class["auc"] is None:
            continue
        label = f"{name} ({number(of_class['positives'])})"
        out.classes.append(Score(label, describe(name), of_class["auc"], of_class["ci95"], mark=marks.get(name)))
        more = [auc(of_class.get(key)) for key in OF_A_CLASS]
        out.by_class.append([name, describe(name), number(of_class["positives"]), auc(of_class["auc"]), bounds(of_class["ci95"]), *more])
    empty = [name for name, of_class in best["per_class"].items() if of_class["auc"] is None]
    out.left_out = _grouped({name: reasons.get(name, "no positives or no negatives") for name in empty})
    for by, groups in best.get("subgroups", {}).items():
        if len(groups) > 1:  # one group is everybody
            out.groups.append((by, [_of_group(name, entry) for name, entry in groups.items()]))
    predictions = file.with_suffix(".parquet")
    if leads_of(result):
        return out  # no pictures of these: what they tell, the lead curve does
    out.drawn = drawn(predictions, result, best["fraction"], beside)
    out.heat = similarity(predictions, result) if kind == "zeroshot" else None
    return out


def _macro(share: str, entry: dict[str, Any]) -> list[Score]:
    """Return the bars of one share of the labels: the model, then each baseline."""
    hint = f"{number(entry['n_test'])} test recordings"
    if entry["fraction"]:
        hint = f"{number(entry['n_train'])} training and {hint}; draws: {len(entry['seeds'])}"
    bars = [Score(share, hint, entry["macro_auc"], entry["ci95"])]
    for name, base in entry["baselines"].items():
        gain, ends = base.get("difference"), base.get("difference_ci95")
        paired = f"the model minus this, paired: {gain:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else share
        bars.append(Score(words(name), paired, base["macro_auc"], base["ci95"], is_baseline=True))
    return bars


def _of_group(name: str, entry: dict[str, Any]) -> Score:
    """Return the bar of a subgroup, or why it has none."""
    missing = entry.get("left_out", [])
    hint = f"{number(entry['classes'])} classes count" + (f"; not {', '.join(missing)}" if missing else "")
    label = f"{name} ({number(entry['n'])})"
    return Score(label, hint if "macro_auc" in entry else "no class has positives and negatives", entry.get("macro_auc"), entry.get("ci95"))


def _grouped(reasons: Mapping[str, str]) -> str:
    """Word which classes are left out and why, each reason once."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in found.items())


def lead_curve(curve: dict[str, Any]) -> dict[str, Any]:
    """Turn a lead curve into bars, a lead set each, and a picture."""
    points = curve["points"]
    share = share_of(points[0]["fraction"])
    bars: list[Score] = []
    for point in points:
        names = "all" if len(point["leads"]) == len(LEADS) else ", ".join(point["leads"])
        bars.append(Score(f"{len(point['leads'])} lead{'s' if len(point['leads']) > 1 else ''}", names, point["macro_auc"], point["ci95"]))
        bars += [Score(words(name), "", value, is_baseline=True) for name, value in point["baselines"].items()]
    lines = {"this model": [point["macro_auc"] for point in points]}
    for name in list(points[0]["baselines"])[:2]:
        lines[words(name)] = [point["baselines"][name] for point in points]
    steps, bounds = [str(len(point["leads"])) for point in points], [point["ci95"] for point in points]
    figure = plot_steps(lines, steps, bounds, title="macro AUC", x_label="leads that are seen")
    what = ", ".join([curve["task"], *([] if curve["protocol"] == "strict" else [curve["protocol"]]), share])
    title = f"{curve['task']}: macro AUC by number of leads"
    return {"what": what, "bars": bars, "low": lowest(bars), "drawing": picture(figure, title)}


def identified(people: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return rows of (features, leads, people known, sought, chance, top-1, its interval, top-5, EER), one a set of features."""
    rows = []
    for found in people:
        pairs = found["pairs"]
        known, sought = pairs.get("gallery"), pairs.get("probes")
        told = [leads_of(found) or "all", *(number(n) if n else "–" for n in (known, sought)), auc(1 / known if known else None)]
        for name, of in found["scores"].items():
            values = [auc(of.get("top1")), bounds(of.get("top1_ci95")), auc(of.get("top5")), auc(of.get("eer"))]
            rows.append([words(name), *told, *values])
    return rows
