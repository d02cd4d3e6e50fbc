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
from cmelt.errors import InputError, ShardError
from cmelt.files import write_whole
from cmelt.labels import load_vocabulary
from cmelt.models.store import SHIPPED
from cmelt.page import SIMULATED, about_classes, about_shards, auc, ecg_picture, number, picture, words, write_page
from cmelt.plots import plot_curves, plot_reconstruction
from cmelt.predictions import SHOWN, plane
from cmelt.sections import Found, Section, identified, lead_curve, read_json, read_results, section
from cmelt.shards.read import ShardFolder
from cmelt.tables import HEADS, MEAN, NUMBERS, OF_ROW, Line, matrices, published, tables, to_csv, to_latex, to_markdown
from cmelt.tasks.base import Run

if TYPE_CHECKING:
    from cmelt.models.cmelt import CMELT

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
        matrices=matrices(lines),
        row_heads=OF_ROW,
        compared=tables(line for line in lines if line.of == MEAN),
        heads=HEADS,
        numbers=NUMBERS,
    )


def _chapter(run: Path, with_pictures: bool) -> dict[str, Any]:
    """Gather what is told of one run; pictures only for the page."""
    run = SHIPPED if str(run) == SHIPPED.name and not run.exists() else run
    results = Run(run, ()).results
    bare = results.is_dir() or (run / "model.safetensors").exists()  # a checkpoint that was converted or came by itself has no recipe
    recipe = read_json(run / "recipe.json") if (run / "recipe.json").exists() or not bare else {}
    name = run.resolve().name
    found = read_results(results)
    folders, unread = [], list(found.unread)
    for place in recipe.get("shards") or found.shards:
        try:
            folders.append(ShardFolder(place))
        except ShardError as error:
            unread.append(f"shards that cannot be read are not told of, and no ECG is drawn: {error}")
    facts = {
        "name": name,
        "simulated": any(name.endswith(SIMULATED) for name in [*found.datasets, *(folder.manifest["dataset"] for folder in folders)]),
        "unread": unread,
        "lines": found.lines(name),
    }
    return facts | (_page_of(run, recipe, folders, found) if with_pictures else {})


def _page_of(run: Path, recipe: dict[str, Any], folders: Sequence[ShardFolder], found: Found) -> dict[str, Any]:
    """Gather what only the page tells of one run."""
    sections = [section(file, result) for file, result in found.results]
    tasks = list(dict.fromkeys(one.task for one in sections)) or ["superclass"]
    metrics = read_metrics(run / "metrics.jsonl")
    tuned = "finetuned_from" in recipe
    seen = not tuned and (run / "model.safetensors").exists()
    return {
        "facts": [*_facts(recipe, metrics), *_tiles(sections)],
        "finetuned_from": recipe.get("finetuned_from", ""),
        "shards": [(about_shards(folder.manifest), about_classes(list(folder.column("codes")), tasks)) for folder in folders],
        "sections": {kind: [one for one in sections if one.kind == kind] for kind in ("probe", "finetune", "zeroshot")},
        "lead_curves": [lead_curve(curve) for curve in found.curves],
        "people": identified(found.people),
        "pairs": list(dict.fromkeys(one["pairs"]["from"] for one in found.people if "from" in one["pairs"])),
        "recipe": json.dumps(recipe["recipe"], indent=2, ensure_ascii=False) if "recipe" in recipe else "",
        "curves": [
            picture(plot_curves(lines, title=title, level=level), f"{title} by step")
            for title, (lines, level) in panels_of(metrics).items()
        ],
        **(_seen_by_the_model(run, folders, tasks[0]) if seen else NOTHING_SEEN),
    }


def _facts(recipe: dict[str, Any], metrics: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (value, what it is) of how a run was trained."""
    facts = []
    if trained := recipe.get("counts", {}).get("train"):
        facts.append((number(trained), "labelled ECGs trained on" if "finetuned_from" in recipe else "ECG–report pairs trained on"))
    if "recipe" in recipe:
        facts.append((number(metrics[-1]["step"] if metrics else 0), "steps"))
    if "parameters" in recipe:
        facts.append((f"{recipe['parameters'] / 1e6:.1f} M", "parameters"))
    return facts


def _tiles(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return (macro AUC, of what) of the results by default rules."""
    tiles = []
    for one in sections:
        if one.is_default and one.best:
            others = [f"{words(name)} {auc(base['macro_auc'])}" for name, base in one.best["baselines"].items()]
            tuned = ["fine-tuned"] * (one.kind == "finetune")
            tiles.append((auc(one.best["macro_auc"]), ", ".join([f"{one.task} AUC", *tuned, one.share, *others])))
    return tiles


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
    first = picked[0][1]
    rebuilt = _rebuilt(model, ecg_mv[0], reports[first], keys[first]) if model.config.mem_prob else None
    return {"rebuilt": rebuilt, "examples": examples, "gallery": len(gallery), "map": _map(run, model, folder, task)}


def _map(run: Path, model: CMELT, folder: ShardFolder, task: str) -> dict[str, Any] | None:
    """Draw labelled test recordings where their embeddings lie on two principal axes; None where the run keeps no features."""
    from cmelt.tasks.features import features

    cache = Run(run, ()).results / "features"
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
    patches = model.ecg_token_count(ecg_mv.shape[1])
    return {
        "key": key,
        "hidden": round(float(hidden.mean()) * patches),
        "patches": patches,
        "error": float(((true - rebuilt)[hidden] ** 2).mean()),
        "blank": float((true[hidden] ** 2).mean()),
        "drawing": picture(plot_reconstruction(true, rebuilt, hidden, model.config.fs_hz), f"masked and rebuilt ECG {key}"),
    }
