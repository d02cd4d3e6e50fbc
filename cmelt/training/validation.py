"""What is measured on the validation split while a run goes on, and which model is the best by it; no downstream label is read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from cmelt.config import PretrainRecipe
from cmelt.metrics import retrieval
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss
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
    count = min(recipe.train.validate_batches, math.ceil(len(loader.corpus) / recipe.train.batch))
    for step in range(count):
        batch = loader.batch(step).to(device)
        loss, parts = total_loss(model, model(batch), batch, recipe.objectives)
        for key, value in {"loss": loss, **parts}.items():
            sums[key] = sums.get(key, 0.0) + float(value) / count
    rows = loader.order.samples(0, min(len(loader.corpus), RETRIEVAL_ROWS))[0]
    ecg = torch.from_numpy(loader.corpus.ecg_mv(rows))
    ids = loader.corpus.report_id[rows]
    found = retrieval(
        model.encode_ecg(ecg).float().cpu().numpy(),
        model.encode_text([loader.corpus.reports[i] for i in ids]).float().cpu().numpy(),
        ids,
    )
    model.train(was_training)
    return sums | found


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
