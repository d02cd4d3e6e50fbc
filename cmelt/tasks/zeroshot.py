"""`cmelt zeroshot`: class an ECG by its similarity to a text for each class, or by entity queries; no label is learnt from.

N recordings, C classes, D embedding width.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group

from cmelt.config import did_you_mean
from cmelt.errors import InputError, TaskError
from cmelt.labels import class_texts, read_table
from cmelt.metrics import Floats, auroc, empty, macro, resample_weights, retrieval
from cmelt.models.cmelt import CMELT
from cmelt.record import LEADS
from cmelt.tasks import queries, results
from cmelt.tasks.base import Cohort, encoder_features, load_model, open_run
from cmelt.tasks.features import features, reports
from cmelt.tasks.results import Scored, evaluate, narrowed, plain, summary, write_results
from cmelt.tasks.split import scored, see_only

__all__ = ["table", "zeroshot"]

TEXTS = ("name", "templates", "description", "reports", "all")
"""A class by its plain name, by the name in several sentences, by a clinical description, by wordings as in reports, or by all of these."""
OWN = "file"
"""The kind of texts that are read from a file of the user's."""
SIMILARITIES = ("cosine", "dot", "softmax", "contrast")
"""Cosine; the raw dot product, as published; the share of the class among all classes, softmax of cosine / TEMPERATURE; the cosine less
that to the texts of a normal ECG (pairs of positive and negative texts, as CheXzero compares them)."""
TEMPERATURE = 0.1
BY = ("texts", "entities")
"""A class by the similarity to its texts, or by the findings that stand for it, asked of the checkpoint's entity queries."""
RULE = ("reports", "contrast")
"""What the texts and the similarity are where nothing else is asked for: chosen on real folds 6 to 9 (docs/concepts/protocols.md)."""


def zeroshot(
    run: Path | None = None,
    shards: Sequence[Path | str] | None = None,
    task: str = "superclass",
    texts: str = "",
    similarity: str = RULE[1],
    *,
    classes: Path | None = None,
    templates: Sequence[str] = (),
    leads: Sequence[str] = LEADS,
    where: str = "",
    fold: str = "test",
    by: str = BY[0],
    quiet: bool = False,
) -> dict[str, Any]:
    """Score the test `fold` of `shards` (default: the run's own), or val, by texts; write its results, return them.

    `texts` is a kind of TEXTS; with `classes`, a CSV of class and text, the texts are those, and only the classes it names count.
    `templates` are sentences with {} in the place of each, `where` filters recordings (``age > 60``). Every rule (texts × similarity) is
    also scored on the validation fold, where there is one, under ``validation``: choose there. ``retrieval`` is recall@k between the
    test fold's ECGs and reports. `by` entities, the checkpoint's entity queries score the classes that findings stand for.
    The files are ``RUN/results/zeroshot-TASK….json`` and ``.parquet``; their name says what is not the default. Raises
    CheckpointError, ShardError, InputError or TaskError where run, shards, task and texts do not fit.
    """
    texts = texts or (OWN if classes else "templates" if templates else RULE[0])
    if by == "entities" and (classes or templates):
        raise TaskError("entity queries read no texts: leave out --classes and --template, or take --by texts")
    kinds = (*TEXTS, *[OWN] * bool(classes))
    for value, known, what in ((by, BY, "way"), (texts, kinds, "texts"), (similarity, SIMILARITIES, "similarity")):
        if value not in known:
            raise TaskError(f"no {what} {value!r}{did_you_mean(value, known)}; known: {', '.join(known)}")
    opened = open_run(run, shards)
    cohort = Cohort(opened.shards, task, opened.cache, where)
    see_only(cohort, leads)
    words = {kind: prompts(task, kind, templates) for kind in TEXTS}
    names = list(cohort.classes)
    if classes:
        own = read_texts(classes, names)
        names = [name for name in names if name in own]
        words = {kind: {name: of[name] for name in names} for kind, of in words.items()}
        words[OWN] = {name: [fill(sentence, text) for sentence in templates or ["{}"] for text in own[name]] for name in names}
    model = load_model(opened, cohort)
    if by == "entities":
        model.require_entities()
        meant = queries.asked_for(task, model.config.entities)
        names = list(meant)
        words = {kind: {name: of[name] for name in names} for kind, of in words.items()}
    normal = {f"normal, {kind}": prompts("superclass", kind if kind != OWN else RULE[0], templates)["NORM"] for kind in words}
    if similarity == "softmax" and len(names) < 2:
        raise TaskError("the softmax over one class is always 1; name more classes, or take --similarity cosine")
    labels = cohort.truth[:, [cohort.classes.index(name) for name in names]]
    test, val = cohort.rows(scored(fold)), np.flatnonzero(cohort.split == "val")
    truth = labels[test]
    left_out = {name: f"{reason} in the {fold} fold" for name, reason in empty(truth, names).items()}
    usable = np.array([name not in left_out for name in names])
    if not usable.any():
        raise TaskError(f"no class of {task!r} has positive and negative recordings in the {fold} fold; add recordings")
    ecg = encoder_features(model, cohort, "embeddings", quiet, np.concatenate([test, val]))["embedding"]
    vectors = class_vectors(model, words | {kind: {"NORM": of} for kind, of in normal.items()})

    def scores(ecg: NDArray[np.floating], kind: str, how: str) -> Floats:
        return similarities(ecg, vectors[kind], how, vectors[f"normal, {kind}"])

    score, rule, said = scores(ecg[: len(test)], texts, similarity), {"texts": texts, "similarity": similarity}, words[texts]
    if by == "entities":
        probable = encoder_features(model, cohort, "entities", quiet, np.concatenate([test, val]), side="entities")["entities"]
        asked = queries.any_of(probable, model.config.entities, list(meant.values()))
        score, rule, said = asked[: len(test)], queries.RULE, queries.words(meant)
    found = evaluate(truth, [score], resample_weights(cohort.patients[test]), usable)
    entry = {"fraction": 0, "seeds": [0], "n_train": 0, "n_test": len(test)}
    why = "no finding stands for it" if by == "entities" else f"not in {classes}"
    left_out |= {name: why for name in cohort.classes if name not in names}
    entry |= summary(found, truth, names) | {"left_out": left_out, "baselines": {}}
    result = {"task": task, "protocol": "zeroshot", **opened.facts(), "datasets": cohort.datasets, "leads": list(leads)}
    result |= ({"where": where} if where else {}) | ({"fold": fold} if fold != "test" else {})
    result |= {"fractions": [entry], "rule": rule, "texts": said}
    result["validation"] = {
        f"{kind}, {how}": plain(macro(auroc(labels[val], scores(ecg[len(test) :], kind, how))))
        for kind in words
        for how in SIMILARITIES
        if len(val)
    }
    if by == "entities" and len(val):
        result["validation"]["entities"] = plain(macro(auroc(labels[val], asked[len(test) :])))
    result["retrieval"] = recall(model, cohort, where, fold, quiet)
    other = ["entities"] if by == "entities" else [part for part in (texts, similarity) if part not in RULE]
    name = "-".join([f"zeroshot-{task}", *other, *narrowed(result)])
    write_results(opened.results, name, result, cohort.keys[test], truth, names, [Scored(0.0, 0, score)], cohort.patients[test])
    return result


def recall(model: CMELT, cohort: Cohort, where: str = "", fold: str = "test", quiet: bool = False) -> dict[str, Any]:
    """Return recall@k of the test fold's ECGs that have a report, labelled or not, and those reports, both ways; equal reports are one."""
    pairs: list[tuple[NDArray[Any], ...]] = []
    for folder in cohort.folders:
        rows = folder.rows(fold, where)
        told = reports(folder, rows)
        rows, told = rows[told != ""], told[told != ""]
        if len(rows):
            sides = [
                features(model, folder, rows, side, cohort.cache, f"retrieval, {side}", quiet)["embedding"] for side in ("ecg", "text")
            ]
            pairs.append((*sides, told))
    if not pairs:
        return {"pairs": 0, "reports": 0}
    ecg, text, told = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    found = {name.removeprefix("retrieval_"): plain(value) for name, value in retrieval(ecg, text, told.astype(str)).items()}
    return {"pairs": len(ecg), "reports": len(set(told)), **found}


def table(result: dict[str, Any]) -> Group:
    """Return a result for the terminal: AUROC as other tasks show it, then retrieval."""
    of = result["retrieval"]
    rule = f"texts: {result['rule']['texts']}; similarity: {result['rule']['similarity']}"
    lines = [f"{rule}; what validation says of other rules stands under 'validation' in the result file" if result["validation"] else rule]
    for way, what in (("ecg_to_text", "ECG to report"), ("text_to_ecg", "report to ECG")):
        if of["pairs"]:
            found = ", ".join(f"@{k} {of[f'{way}@{k}']:.3f}" for k in (1, 5, 10))
            among = f"{of['pairs']} {result.get('fold', 'test')} ECGs, {of['reports']} distinct reports"
            lines.append(f"retrieval, {what}: recall {found} ({among})")
    return Group(results.table(result), *lines)


def fill(sentence: str, text: str) -> str:
    """Return `sentence` with `text` in the place of {}; raises InputError where it has none."""
    if "{}" not in sentence:
        raise InputError(f"the template {sentence!r} has no {{}} in the place of the class's text; write: 'the ecg shows {{}}.'")
    return sentence.replace("{}", text)


def read_texts(file: Path, known: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts of each class in a CSV with columns ``class`` and ``text``, one or more rows a class; raises InputError."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as a CSV ({error}); give one with columns class,text") from None
    found: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 2):
        name, text = ((row.get(column) or "").strip() for column in ("class", "text"))
        if not name or not text:
            raise InputError(f"{file}, line {number}: wanted are a class and its text, under the headings class,text")
        if known and name not in known:
            raise InputError(f"{file}, line {number}: no class {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
        found.setdefault(name, []).append(text)
    if not found:
        raise InputError(f"{file} holds no class; write lines of class,text below a first line that says class,text")
    return found


def prompts(task: str, kind: str, templates: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the texts that stand for each class of `task`; `kind` is one of TEXTS, `templates` replace the package's sentences."""
    sentences = templates or [row["text"] for row in read_table("templates")]
    out = {}
    for name, row in class_texts(task).items():
        texts = {
            "name": [row["name"]],
            "templates": [fill(sentence, row["name"]) for sentence in sentences],
            "description": [row["description"]],
            "reports": [wording + "." for wording in row["reports"].split(" | ")],
        }
        out[name] = texts[kind] if kind != "all" else list(dict.fromkeys(text for some in texts.values() for text in some))
    return out


def class_vectors(model: CMELT, words: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, tuple[Floats, Floats]]:
    """Return, for each kind of texts, the mean embedding (C, D) of each class's texts, and the mean of the same at length 1 (C, D)."""
    distinct = list(dict.fromkeys(text for classes in words.values() for texts in classes.values() for text in texts))
    row = {text: number for number, text in enumerate(distinct)}
    raw = model.encode_text(distinct).double().cpu().numpy()
    unit = _unit(raw)
    out = {}
    for kind, classes in words.items():
        rows = [[row[text] for text in texts] for texts in classes.values()]
        out[kind] = np.stack([raw[r].mean(0) for r in rows]), np.stack([unit[r].mean(0) for r in rows])
    return out


def similarities(
    ecg: NDArray[np.floating], vectors: tuple[Floats, Floats], how: str, normal: tuple[Floats, Floats] | None = None
) -> Floats:
    """Return the similarity (N, C) of ECG embeddings (N, D) to class vectors; `how` is one of SIMILARITIES.

    ``contrast`` wants the vectors (1, D) of a `normal` ECG; a class that means the same is contrasted with the nearest of the others.
    """
    raw, unit = vectors
    if how == "dot":
        return ecg @ raw.T
    cosine = _unit(ecg) @ unit.T
    if how == "cosine":
        return cosine
    if how == "contrast":
        assert normal is not None
        more = cosine - _unit(ecg) @ normal[1].T
        same = np.abs(unit - normal[1]).max(1) < 1e-9
        return np.where(same, -more[:, ~same].max(1, keepdims=True), more) if 0 < same.sum() < len(same) else more
    share = np.exp((cosine - cosine.max(1, keepdims=True)) / TEMPERATURE)
    return share / share.sum(1, keepdims=True)


def _unit(vectors: NDArray[np.floating]) -> Floats:
    """Return vectors (N, D) scaled to length 1."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
