"""`cmelt finetune`: train a checkpoint's ECG encoder, whole or in part, on the labels of a task; judge it on the test fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from cmelt import __version__
from cmelt.config_tasks import FinetuneRecipe
from cmelt.errors import CheckpointError
from cmelt.files import make_folder, write_json, write_whole
from cmelt.metrics import resample_weights
from cmelt.models.cmelt import CMELT
from cmelt.record import LEADS
from cmelt.remote import absolute
from cmelt.tasks.base import Cohort, load_model, on_device, open_run
from cmelt.tasks.details import by_subgroup, details
from cmelt.tasks.probe import RESAMPLES, pose
from cmelt.tasks.protocol import Fit
from cmelt.tasks.results import Scored, evaluate, summary, table, write_results
from cmelt.tasks.split import groups, see_only
from cmelt.tasks.strict import Strict
from cmelt.tasks.tune import Tuned, classifier, outputs, tune_classifier
from cmelt.training.resume import run_folder

__all__ = ["finetune", "load_classifier", "table"]

HEAD = "head.safetensors"
METRICS = "metrics.jsonl"


def finetune(
    recipe: FinetuneRecipe,
    run: Path | None = None,
    shards: Sequence[Path | str] | None = None,
    task: str = "superclass",
    out: Path | None = None,
    *,
    tested: Sequence[Path | str] = (),
    splits: Path | None = None,
    leads: Sequence[str] = LEADS,
    where: str = "",
    subgroups: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fine-tune `run` (default: the newest) on the training fold, stop by the validation fold, score the test fold once.

    Folder `out` (default: the next ``runs/finetune-TASK-N``) then holds a checkpoint like any other, the head beside it, and
    ``results/finetune-TASK.json`` and ``.parquet``; the result is returned. Other arguments as in `probe`. Raises OutputError where
    `out` holds something, and what `probe` raises.
    """
    opened = open_run(run, shards)
    cohort = Cohort([*opened.shards, *tested], task, where=where)
    see_only(cohort, leads)
    problem, told = pose(cohort, len(opened.shards) if tested else 0, splits)
    folds, usable = problem.folds, problem.usable
    out = run_folder(out, f"finetune-{task}", False)
    if PartialState().is_main_process:
        make_folder(out)  # what cannot be written is better said now than after training
    tuned = classifier(load_model(opened, cohort), len(cohort.classes), recipe.tune.layers, recipe.tune.seed)
    rows: list[dict[str, Any]] = []
    course = tune_classifier(tuned, cohort, folds.train, folds.val, usable, recipe, rows.append, quiet)
    val, test = (outputs(tuned, cohort.ecg_mv, part, tuned.device) for part in (folds.val, folds.test))

    fit = Fit(test, val, {"best_epoch": course.best_epoch, "epochs": course.epochs, "val_auc": round(course.value, 6)})
    truth = cohort.truth[folds.test]
    weights = resample_weights(problem.patients[folds.test], RESAMPLES)
    entry: dict[str, Any] = {"fraction": 1.0, "seeds": [recipe.tune.seed], "n_train": len(folds.train)}
    entry |= {"n_val": len(folds.val), "n_test": len(folds.test)}
    entry |= summary(evaluate(truth, [test], weights, usable), truth, cohort.classes)
    more = details(Strict(), [fit], truth, cohort.truth[folds.val], usable, cohort.classes, task)
    for name, numbers in more.pop("by_class").items():
        entry["per_class"][name] |= numbers
    entry |= more | {"left_out": dict(problem.left_out), "chosen": [fit.told], "baselines": {}}
    if subgroups:
        entry["subgroups"] = by_subgroup([fit], truth, weights, usable, groups(cohort, folds.test), cohort.classes)
    facts = opened.facts()
    result = {"task": task, "protocol": "finetune", **facts, "run": str(out), "datasets": cohort.datasets, **told}
    result |= {"where": where} if where else {}
    result |= {"leads": list(leads), "recipe": recipe.model_dump(mode="json"), "fractions": [entry]}
    if not PartialState().is_main_process:
        return result  # one process writes for all

    write_results(
        *(out / "results", f"finetune-{task}", result, problem.keys[folds.test], truth, cohort.classes),
        [Scored(1.0, recipe.tune.seed, test)],
        problem.patients[folds.test],
    )
    write_whole(out / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    kept = {"version": __version__, "recipe": result["recipe"], "shards": [absolute(place) for place in opened.shards]}
    kept |= {"counts": {"train": len(folds.train), "val": len(folds.val)}, "finetuned_from": facts["checkpoint"]}
    kept |= {"head": {"task": task, "classes": list(cohort.classes), "leads": list(leads)}}
    save_tuned(tuned, out, kept)
    return result


def save_tuned(tuned: Tuned, out: Path, facts: dict[str, Any]) -> None:
    """Write the model of `tuned` into `out` as a checkpoint, its head beside it, and `facts` as recipe.json."""
    write_json(out / "recipe.json", facts)
    write_whole(out / HEAD, save({name: value.detach().cpu().contiguous() for name, value in tuned.head.state_dict().items()}))
    tuned.model.save_pretrained(out)


def load_classifier(folder: Path) -> tuple[Tuned, list[str], list[str]]:
    """Return a fine-tuned classifier, its classes and the leads that it saw; raises CheckpointError where `folder` holds none."""
    model = CMELT.from_pretrained(folder)
    try:
        facts = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))["head"]
        weights = load_file(folder / HEAD)
        tuned = Tuned(model, nn.Linear(model.config.ecg_width, len(facts["classes"])))
        tuned.head.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        raise CheckpointError(f"{folder} holds no fine-tuned head; make one with cmelt finetune") from None
    on_device(model)
    tuned.head.to(model.etm_head.weight.device)
    return tuned.eval(), list(facts["classes"]), list(facts["leads"])


@torch.inference_mode()
def logits(tuned: Tuned, ecg_mv: np.ndarray, leads: Sequence[str] = LEADS) -> np.ndarray:
    """Return the logits (N, C) of ECGs (N, 12, S) in mV as the shards have them; leads other than `leads` are not looked at."""
    seen = np.where(np.isin(LEADS, leads)[:, None], ecg_mv, np.float32(0))
    return outputs(tuned, lambda rows: seen[rows], np.arange(len(seen)), tuned.device)
