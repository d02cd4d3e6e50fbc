"""Write about one or more runs: what went in, how training went, what came out. Reads run folders and their shards only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmelt.charts import plot_map
from cmelt.curves import panels_of, read_metrics
from cmelt.errors import CheckpointError, InputError
from cmelt.files import write_whole
from cmelt.labels import TASKS, load_vocabulary
from cmelt.page import SIMULATED, Score, about_classes, about_shards, auc, ecg_picture, number, percent, picture, words, write_page
from cmelt.plots import plot_curves, plot_reconstruction
from cmelt.predictions import SHOWN, drawn, plane, similarity
from cmelt.record import LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tables import HEADS, MEAN, NUMBERS, Line, identity_lines, lines_of, published, tables, to_csv, to_latex, to_markdown

if TYPE_CHECKING:
    from cmelt.models.cmelt import CMELT

ZERO_SHOT = "zero-shot"

IN_AN_ENTRY = {"fraction", "n_train", "n_test", "seeds", "macro_auc", "ci95", "per_class", "baselines"}
"""What a share of the labels must hold to be told."""

NOTHING_SEEN: dict[str, Any] = {"rebuilt": None, "examples": [], "map": None}
"""What the page shows of a checkpoint that is not there, or of shards without a test fold."""

ON_THE_MAP = 500
"""At most this many test recordings lie on the map."""

GALLERY = 1000
"""At most this many distinct test reports are searched for the nearest ones."""


WRITERS: dict[str, Callable[[list[Line], str, str], str]] = {
    ".csv": lambda lines, title, warning: to_csv(lines),
    ".md": to_markdown,
    ".tex": to_latex,
}
"""Ending of a file → what writes the numbers alone."""


def report(runs: Sequence[Path], out: Path) -> Path:
    """Write about `runs` as `out`: .html is the page, .md, .csv and .tex the numbers alone; returns its path.

    Raises InputError for another ending or no run, CheckpointError, ShardError or OutputError.
    """
    if not runs:
        raise InputError("no run to report on; name a run folder")
    kind = out.suffix.lower()
    if kind not in (".html", ".htm", *WRITERS):
        raise InputError(f"{out}: a report is written as .html, {', '.join(WRITERS)}; name the file so")
    chapters = [_chapter(Path(run), kind not in WRITERS) for run in runs]
    title = "cmelt: " + ", ".join(chapter["name"] for chapter in chapters)
    simulated = any(chapter["simulated"] for chapter in chapters)
    lines = [line for chapter in chapters for line in chapter["lines"]]
    lines += published({line.task for line in lines})
    if kind in WRITERS:
        unread = [f"{chapter['name']}, {said}" for chapter in chapters for said in chapter["unread"]]
        write_whole(out, WRITERS[kind](lines, title, "; ".join(["simulated data"] * simulated + unread)).encode())
        return out
    return write_page(
        out,
        "report.html",
        title=title,
        simulated=simulated,
        chapters=chapters,
        compared=tables(line for line in lines if line.of == MEAN),
        heads=HEADS,
        numbers=NUMBERS,
        columns=list(dict.fromkeys(name for chapter in chapters for name in chapter["columns"])),
    )


def _chapter(run: Path, with_pictures: bool) -> dict[str, Any]:
    """Gather what is told of one run; pictures only for the page."""
    recipe = _json(run / "recipe.json")
    name = run.resolve().name
    folders = [ShardFolder(folder) for folder in recipe["shards"]]
    results, unread = _results(run)
    simulated = any(folder.manifest["dataset"].endswith(SIMULATED) for folder in folders)
    facts = {
        "name": name,
        "simulated": simulated,
        "unread": unread,
        "lines": [line for _, result in results for line in lines_of(name, _protocol(result), result, _share)]
        + [line for found in map(_json, sorted(run.glob("results/people/*.json"))) for line in identity_lines(name, found)],
    }
    return facts | (_page_of(run, recipe, folders, results) if with_pictures else {})


def _results(run: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """Return the result files of a run that hold what is told here, in the order of TASKS, and a line about each that does not."""
    found, unread = [], []
    for file in sorted(run.glob("results/*.json")):
        result = _json(file)
        lacks = {"task", "protocol", "fractions"} - set(result)
        for entry in result.get("fractions", []):
            lacks |= ({"fraction"} if "not_computed" in entry else IN_AN_ENTRY) - set(entry)
        if lacks:
            unread.append(f"{file.name} is left out: it has no {', '.join(sorted(lacks))}; another version wrote it, make it anew")
        else:
            found.append((file, result))
    return sorted(found, key=lambda one: list(TASKS).index(one[1]["task"])), unread


def _share(fraction: float) -> str:
    """Word the share of the training labels that a result is at."""
    return f"{percent(fraction)} of labels" if fraction else ZERO_SHOT


def _differs(result: dict[str, Any]) -> list[str]:
    """Name what in a result, beside its protocol, is not the default."""
    other = [f"texts: {result['rule']['texts']}, {result['rule']['similarity']}"] if "rule" in result else []
    other += [f"{len(result['leads'])} leads"] if len(result.get("leads", LEADS)) < len(LEADS) else []
    return other + ([f"tested on {', '.join(result['tested_on'])}"] if result.get("tested_on") else [])


def _what(result: dict[str, Any]) -> str:
    """Name what a result is about: its task, and all that is not the default."""
    other = [result["protocol"]] if result["protocol"] not in ("strict", "zeroshot") else []
    return ", ".join([result["task"], *other, *_differs(result)])


def _protocol(result: dict[str, Any]) -> str:
    """Name a result's protocol, and all that is not the default."""
    return ", ".join([result["protocol"], *_differs(result)])


def _page_of(
    run: Path, recipe: dict[str, Any], folders: Sequence[ShardFolder], files: Sequence[tuple[Path, dict[str, Any]]]
) -> dict[str, Any]:
    """Gather what only the page tells of one run."""
    results = [_scores(result) for _, result in files]
    for scores, (file, result) in zip(results, files, strict=True):
        if scores["best"]:
            predictions = file.with_suffix(".parquet")
            scores["drawn"] = drawn(predictions, result, scores["best"]["fraction"])
            scores["heat"] = similarity(predictions, result) if scores["share"] == ZERO_SHOT else None
    tasks = list(dict.fromkeys(result["task"] for result in results)) or ["superclass"]
    metrics = read_metrics(run / "metrics.jsonl")
    facts = [(number(recipe["counts"]["train"]), "ECG–report pairs trained on"), (number(metrics[-1]["step"] if metrics else 0), "steps")]
    if "parameters" in recipe:
        facts.append((f"{recipe['parameters'] / 1e6:.1f} M", "parameters"))
    for result in results:
        if result["best"]:
            others = [f"{words(name)} {auc(base['macro_auc'])}" for name, base in result["best"]["baselines"].items()]
            facts.append((auc(result["best"]["macro_auc"]), ", ".join([f"{result['task']} AUC", result["share"], *others])))
    return {
        "facts": facts,
        "shards": [(about_shards(folder.manifest), about_classes(list(folder.column("codes")), tasks)) for folder in folders],
        "probes": [result for result in results if result["share"] != ZERO_SHOT],
        "zeroshots": [result for result in results if result["share"] == ZERO_SHOT],
        "columns": {f"{result['what']}, {share}": entry for result in results for share, entry in result["by_share"].items()},
        "recipe": json.dumps(recipe["recipe"], indent=2, ensure_ascii=False),
        "curves": [
            picture(plot_curves(lines, title=title, level=level), f"{title} by step")
            for title, (lines, level) in panels_of(metrics).items()
        ],
        **(_seen_by_the_model(run, folders, tasks[0]) if (run / "model.safetensors").exists() else NOTHING_SEEN),
    }


def _json(file: Path) -> dict[str, Any]:
    """Read a JSON object of a run folder."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); name a run folder that cmelt pretrain made") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON ({error}); make it anew") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: not a JSON object; make it anew")
    return found


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    """Turn one result file into the bars of two charts: macro AUC by share of the labels, and AUC by class at the largest share."""
    describe = load_vocabulary(result["task"]).describe
    macro: list[Score] = []
    by_share: dict[str, Any] = {}
    for entry in result["fractions"]:
        share = _share(entry["fraction"])
        if "not_computed" in entry:
            macro.append(Score(f"{share}: not computed", entry["not_computed"], None))
            continue
        by_share[share] = entry
        hint = f"{number(entry['n_test'])} test recordings"
        if entry["fraction"]:
            hint = f"{number(entry['n_train'])} training and {hint}; draws: {len(entry['seeds'])}"
        macro.append(Score(share, hint, entry["macro_auc"], entry["ci95"]))
        for name, base in entry["baselines"].items():
            gain, bounds = base.get("difference"), base.get("difference_ci95")
            paired = f"pre-trained minus this, paired: {gain:+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else share
            macro.append(Score(words(name), paired, base["macro_auc"], base["ci95"], is_baseline=True))
    share = max(by_share, key=lambda name: by_share[name]["fraction"], default="")
    best = by_share.get(share, {"per_class": {}, "baselines": {}})
    beside, marks = next(((words(name), base["per_class"]) for name, base in best["baselines"].items() if "per_class" in base), ("", {}))
    reasons = best.get("left_out", {})
    known = {name: c for name, c in best["per_class"].items() if c["auc"] is not None}
    empty = [f"{name} ({reasons.get(name, 'no positives or no negatives')})" for name in best["per_class"] if name not in known]
    classes = [
        Score(f"{name} ({number(c['positives'])})", describe(name), c["auc"], c["ci95"], mark=marks.get(name)) for name, c in known.items()
    ]
    ends = [end for bar in macro + classes for end in (bar.auc, bar.mark, *(bar.ci95 or ())) if end is not None]
    return {
        "task": result["task"],
        "what": _what(result),
        "protocol": result["protocol"],
        "macro": macro,
        "classes": classes,
        "low": np.floor(10 * min([0.4, *ends])) / 10,
        "share": share,
        "best": by_share.get(share),
        "by_share": by_share,
        "beside": beside if classes else "",
        "left_out": ", ".join(empty),
        "drawn": None,
        "heat": None,
    }


def _seen_by_the_model(run: Path, folders: Sequence[ShardFolder], task: str) -> dict[str, Any]:
    """Draw what the checkpoint makes of a few test recordings: a masked one rebuilt, and the reports nearest to each."""
    from cmelt.models.cmelt import CMELT
    from cmelt.training.pictures import cosine

    folder = next((f for f in folders if len(f.rows(split="test"))), None)
    if folder is None:
        return NOTHING_SEEN
    model = CMELT.from_pretrained(run)
    rows = folder.rows(split="test")
    codes, reports, keys = folder.column("codes"), folder.column("report"), folder.column("key")
    vocabulary = load_vocabulary(task)
    chosen: dict[str, int] = {}  # class → the first test recording that has it and a report
    for row in rows:
        for name in sorted(vocabulary.classes_of(codes[row]), key=vocabulary.classes.index):
            if reports[row] and row not in chosen.values():
                chosen.setdefault(name, int(row))
    picked = list(chosen.items())[:5] or [("", int(row)) for row in rows[:4]]
    gallery = list(dict.fromkeys([*(reports[row] for _, row in picked), *(reports[row] for row in rows)]))
    gallery = [text for text in gallery if text][:GALLERY]
    ecg_mv = folder.ecg_mv([row for _, row in picked])
    examples = []
    if gallery:
        similarity = cosine(model.encode_ecg(ecg_mv).numpy(), model.encode_text(gallery).numpy())
        for (_, row), ecg, scores in zip(picked, ecg_mv, similarity, strict=True):
            order = np.argsort(-scores, kind="stable")
            own = reports[row]
            names = [vocabulary.describe(name) for name in vocabulary.classes if name in vocabulary.classes_of(codes[row])]
            examples.append({
                "title": f"{keys[row]}: {', '.join(names)}" if names else keys[row],
                "drawing": ecg_picture(ecg, folder.fs_hz, keys[row], folder.column("age")[row], folder.column("sex")[row]),
                "report": own or "(none)",
                "rank": int(np.flatnonzero(order == gallery.index(own))[0]) + 1 if own else 0,
                "nearest": [(float(scores[i]), gallery[i], gallery[i] == own) for i in order[:3]],
            })  # fmt: skip
    rebuilt = _rebuilt(model, ecg_mv[0], reports[picked[0][1]], keys[picked[0][1]])
    return {"rebuilt": rebuilt, "examples": examples, "gallery": len(gallery), "map": _map(run, model, folder, task)}


def _map(run: Path, model: CMELT, folder: ShardFolder, task: str) -> dict[str, Any] | None:
    """Draw labelled test recordings where their embeddings lie on two principal axes; None where the run keeps no features."""
    from cmelt.tasks.features import features

    cache = run / "results" / "features"
    vocabulary = load_vocabulary(task)
    codes = folder.column("codes")
    rows = np.array([row for row in folder.rows(split="test") if vocabulary.classes_of(codes[row])], np.int64)
    if not cache.is_dir() or len(rows) < 3:
        return None
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, ON_THE_MAP).round().astype(int))]
    points, kept = plane(features(model, folder, rows, cache=cache, quiet=True)["embedding"])
    truth = vocabulary.targets([codes[row] for row in rows]).astype(bool)
    shown = sorted(np.argsort(-truth.sum(0), kind="stable")[:SHOWN])
    groups = {f"{vocabulary.classes[c]} ({truth[:, c].sum()})": truth[:, c] for c in shown if truth[:, c].any()}
    return {
        "task": task,
        "points": len(rows),
        "kept": kept,
        "drawing": picture(plot_map(points, groups), f"embedding map by class, {task}"),
    }


def _rebuilt(model: CMELT, ecg_mv: NDArray[np.float32], report: str, key: str) -> dict[str, Any]:
    """Draw one ECG rebuilt, with the mean squared error on what was hidden, and what a flat line would get."""
    from cmelt.training.pictures import rebuild

    true, rebuilt, hidden = rebuild(model, ecg_mv, report)
    gone = np.repeat(hidden, true.shape[1] // len(hidden))
    return {
        "key": key,
        "hidden": int(hidden.sum()),
        "patches": len(hidden),
        "error": float(((true - rebuilt)[:, gone] ** 2).mean()),
        "blank": float((true[:, gone] ** 2).mean()),
        "drawing": picture(plot_reconstruction(true, rebuilt, hidden, model.config.fs_hz), f"masked and rebuilt ECG {key}"),
    }
