"""What is measured on the validation split while a run goes on, and which model is the best by it; no downstream label is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cmelt.config import PretrainRecipe
from cmelt.metrics import auroc, retrieval
from cmelt.models.batch import IGNORE
from cmelt.models.cmelt import CMELT
from cmelt.models.layers import take
from cmelt.objectives import total_loss
from cmelt.objectives.masked_ecg import mem_target
from cmelt.text.entities import Status
from cmelt.training.loader import Loader

RETRIEVAL_ROWS = 1000
"""At most this many validation pairs take part in retrieval, so that recall@k means the same from run to run."""


@torch.inference_mode()
def validate(model: CMELT, loader: Loader, recipe: PretrainRecipe) -> dict[str, float]:
    """Return mean losses over fixed validation batches, and recall@1/5/10 both ways over at most RETRIEVAL_ROWS pairs."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    asked: list[tuple[NDArray[np.int8], NDArray[np.float32]]] = []
    count = min(recipe.train.validate_batches, math.ceil(len(loader.corpus) / recipe.train.batch))
    for step in range(count):
        batch = loader.batch(step).to(device)
        out = model(batch)
        loss, parts = total_loss(model, out, batch, recipe.objectives)
        if recipe.objectives.entities and out.entity_logits is not None:
            asked.append((batch.entities.cpu().numpy(), out.entity_logits.float().cpu().numpy()))
        for key, value in {"loss": loss, **parts}.items():
            sums[key] = sums.get(key, 0.0) + float(value) / count
    found = retrieved(model, loader)
    model.train(was_training)
    return sums | found | (entity_aurocs(model.config.entities, *map(np.concatenate, zip(*asked, strict=True))) if asked else {})


def entity_aurocs(codes: Sequence[str], said: NDArray[np.int8], score: NDArray[np.float32]) -> dict[str, float]:
    """Return the AUROC of each finding, stated against absent or unsaid, and their mean, from what N reports say and the scores, (N, E).

    What a report hedges does not count; a finding that no report states has no AUROC.
    """
    found = {}
    for code, of_one, by_model in zip(codes, said.T, score.T, strict=True):
        counts = of_one != Status.UNCERTAIN
        value = float(auroc((of_one[counts] == Status.PRESENT)[:, None], by_model[counts, None])[0])
        if math.isfinite(value):
            found[f"auroc_{code}"] = value
    return {"auroc_entities": sum(found.values()) / len(found), **found} if found else {}


def retrieved(model: CMELT, loader: Loader) -> dict[str, float]:
    """Return recall@1/5/10 both ways over at most RETRIEVAL_ROWS pairs of the loader's corpus."""
    rows = loader.order.samples(0, min(len(loader.corpus), RETRIEVAL_ROWS))[0]
    ids = loader.corpus.report_id[rows]
    text = model.encode_text([loader.corpus.reports[i] for i in ids])
    return retrieval(model.encode_ecg(loader.corpus.ecg_mv(rows)).float().cpu().numpy(), text.float().cpu().numpy(), ids)


@torch.inference_mode()
def skills(model: CMELT, loader: Loader, batches: int) -> dict[str, dict[str, float]]:
    """Return how well each head does its own task over `batches` validation batches, whatever was trained: ``value`` and ``chance``.

    ``matching``: AUROC of true against wrong reports, as `loader` deals them. ``tokens``: the share of masked tokens that are guessed;
    chance is that of the same guesses at other places. ``reconstruction``: R² of the removed patches against a flat line.
    ``retrieval``: recall@10 of the ECGs' reports.
    """
    was_training = model.training
    model.eval()
    device = model.etm_head.weight.device
    aligned, score, guesses, labels = [], [], [], []
    error = power = 0.0
    for step in range(batches):
        batch = loader.batch(step).to(device)
        out = model(batch)
        assert out.etm_logits is not None
        assert out.mlm_logits is not None
        assert out.mem_patches is not None
        assert out.removed is not None
        told = batch.is_aligned != IGNORE
        aligned.append(batch.is_aligned[told].cpu().numpy())
        score.append((out.etm_logits[told, 1] - out.etm_logits[told, 0]).float().cpu().numpy())
        guesses.append(out.mlm_logits.argmax(-1).cpu().numpy())
        labels.append(batch.mlm_labels[batch.mlm_labels != IGNORE].cpu().numpy())
        target = take(mem_target(model.ecg_encoder, model.permuted(batch.ecg_target)), out.removed)
        error += float((out.mem_patches.float() - target).square().sum())
        power += float(target.square().sum())
    found = retrieved(model, loader)
    model.train(was_training)
    guess, label = np.concatenate(guesses), np.concatenate(labels)
    size = int(max(guess.max(), label.max())) + 1
    rows = loader.order.samples(0, min(len(loader.corpus), RETRIEVAL_ROWS))[0]
    return {
        "matching": {"value": float(auroc(np.concatenate(aligned)[:, None], np.concatenate(score)[:, None])[0]), "chance": 0.5},
        "tokens": {
            "value": float((guess == label).mean()),
            "chance": float(np.bincount(guess, minlength=size) @ np.bincount(label, minlength=size)) / len(label) ** 2,
        },
        "reconstruction": {"value": 1 - error / power, "chance": 0.0},
        "retrieval": {
            "value": found["retrieval_ecg_to_text@10"],
            "chance": min(1.0, 10 / len(np.unique(loader.corpus.report_id[rows]))),
        },
    }


def badness(by: str, measured: Mapping[str, float]) -> float:
    """Return how bad a model is by a measure of the validation split (`train.select`); less is better, NaN counts as infinite.

    ``retrieval`` is the mean of recall@1, 5 and 10 both ways, with its sign turned.
    """
    if by == "retrieval":
        recalls = [value for name, value in measured.items() if name.startswith("retrieval_") and "@" in name]
        value = -sum(recalls) / len(recalls)
    else:
        value = measured[by]
    return value if math.isfinite(value) else math.inf
