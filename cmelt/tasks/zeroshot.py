"""`cmelt zeroshot`: class an ECG by its similarity to a text for each class; no label is learnt from.

N recordings, C classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import TaskError
from cmelt.labels import class_texts, read_table
from cmelt.metrics import Floats, auroc, empty, macro, resample_weights
from cmelt.models.cmelt import CMELT
from cmelt.tasks.base import Cohort, encoder_features, load_model, open_run
from cmelt.tasks.results import Scored, evaluate, plain, summary, table, write_results

__all__ = ["table", "zeroshot"]

TEXTS = ("name", "templates", "description", "reports", "all")
"""A class by its plain name, by the name in several sentences, by a clinical description, by wordings as in reports, or by all of these."""
SIMILARITIES = ("cosine", "dot", "softmax")
"""Cosine; the raw dot product; the share of the class among all classes, softmax of cosine / TEMPERATURE."""
TEMPERATURE = 0.1


def zeroshot(
    run: Path | None = None,
    shards: Sequence[Path] | None = None,
    task: str = "superclass",
    texts: str = "reports",
    similarity: str = "softmax",
    quiet: bool = False,
) -> dict[str, Any]:
    """Score the test fold of `shards` (default: the run's own) by texts; write ``RUN/results/zeroshot-TASK.json`` and ``.parquet``.

    Every rule (texts × similarity) is also scored on the validation fold, where there is one, under ``validation``: choose there.
    Returns the result. Raises CheckpointError, ShardError or TaskError where run, shards and task do not fit.
    """
    for value, known, what in ((texts, TEXTS, "texts"), (similarity, SIMILARITIES, "similarity")):
        if value not in known:
            raise TaskError(f"no {what} {value!r}; known: {', '.join(known)}")
    opened = open_run(run, shards)
    cohort = Cohort(opened.shards, task, opened.cache)
    test, val = cohort.rows("test"), np.flatnonzero(cohort.split == "val")
    truth = cohort.truth[test]
    left_out = {name: f"{reason} in the test fold" for name, reason in empty(truth, cohort.classes).items()}
    usable = np.array([name not in left_out for name in cohort.classes])
    if not usable.any():
        raise TaskError(f"no class of {task!r} has positive and negative recordings in the test fold; add recordings")
    model = load_model(opened, cohort)
    ecg = encoder_features(model, cohort, "embeddings", quiet, np.concatenate([test, val]))["embedding"]
    words = {kind: prompts(task, kind) for kind in TEXTS}
    vectors = class_vectors(model, words)

    score = similarities(ecg[: len(test)], vectors[texts], similarity)
    own = evaluate(truth, [score], resample_weights(cohort.patients[test]), usable)
    entry = {"fraction": 0, "seeds": [0], "n_train": 0, "n_test": len(test)}
    entry |= summary(own, truth, cohort.classes) | {"left_out": left_out, "baselines": {}}
    result = {"task": task, "protocol": "zeroshot", **opened.facts(), "datasets": cohort.datasets, "fractions": [entry]}
    result |= {"rule": {"texts": texts, "similarity": similarity}, "texts": words[texts]}
    result["validation"] = {
        f"{kind}, {how}": plain(macro(auroc(cohort.truth[val], similarities(ecg[len(test) :], vectors[kind], how))))
        for kind in TEXTS
        for how in SIMILARITIES
        if len(val)
    }
    scored = [Scored(0.0, 0, score)]
    write_results(opened.folder / "results", f"zeroshot-{task}", result, cohort.keys[test], truth, cohort.classes, scored)
    return result


def prompts(task: str, kind: str) -> dict[str, list[str]]:
    """Return the texts that stand for each class of `task`; `kind` is one of TEXTS."""
    sentences = [row["text"] for row in read_table("templates")]
    out = {}
    for name, row in class_texts(task).items():
        texts = {
            "name": [row["name"]],
            "templates": [sentence.replace("{}", row["name"]) for sentence in sentences],
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


def similarities(ecg: NDArray[np.floating], vectors: tuple[Floats, Floats], how: str) -> Floats:
    """Return the similarity (N, C) of ECG embeddings (N, D) to class vectors; `how` is one of SIMILARITIES."""
    raw, unit = vectors
    if how == "dot":
        return ecg @ raw.T
    cosine = _unit(ecg) @ unit.T
    if how == "cosine":
        return cosine
    share = np.exp((cosine - cosine.max(1, keepdims=True)) / TEMPERATURE)
    return share / share.sum(1, keepdims=True)


def _unit(vectors: NDArray[np.floating]) -> Floats:
    """Return vectors (N, D) scaled to length 1."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
