"""Which samples of a batch are to blame where the loss is not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.distributed as dist

from cmelt.config import PretrainRecipe
from cmelt.models.batch import Batch
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss, wanted
from cmelt.training.corpus import Corpus
from cmelt.training.loader import Loader, rank_slice

SHOWN = 5
"""Samples named; the rest are counted."""


def blamed(model: CMELT, loader: Loader, recipe: PretrainRecipe, batches: Sequence[int], rank: int = 0, world: int = 1) -> str:
    """Return, for the message, which samples of these batches (0-based) have no finite loss by themselves; every rank must ask.

    The batches are made again: they are functions of their number.
    """
    size = recipe.train.batch
    found: list[str] = []
    for number in batches:
        rows = loader.order.samples(number * size, size)[0][rank_slice(size, rank, world)]
        device = model.etm_head.weight.device
        found += [
            sample_name(loader.corpus, int(rows[row]))
            for row in rows_not_finite(model, loader.batch(number, rank, world).to(device), recipe)
        ]
    if dist.is_initialized():
        of_ranks: list[list[str]] = [[] for _ in range(world)]
        dist.all_gather_object(of_ranks, found)
        found = [name for names in of_ranks for name in names]
    if not found:
        return "; each of its samples alone gives a finite loss"
    if len(found) == len(batches) * size:
        return "; no sample gives a finite loss: it is the weights"
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"; not finite: {', '.join(found[:SHOWN])}{more}"


@torch.no_grad()
def rows_not_finite(model: CMELT, batch: Batch, recipe: PretrainRecipe) -> list[int]:
    """Return the rows of `batch` whose loss, of each alone and without dropout, is not finite."""
    was_training = model.training
    model.eval()
    bad = []
    for row in range(len(batch)):
        alone = Batch(*(getattr(batch, field.name)[row : row + 1] for field in dataclasses.fields(Batch)))
        loss, _ = total_loss(model, model(alone, wanted(recipe.objectives)), alone, recipe.objectives)
        if not torch.isfinite(loss):
            bad.append(row)
    model.train(was_training)
    return bad


def sample_name(corpus: Corpus, row: int) -> str:
    """Return a sample's data set and key, and the shard that it lies in."""
    folder, number = corpus.folders[corpus.folder_of[row]], corpus.row_of[row]
    shard = folder.names[int(folder.shard_of(corpus.row_of[row : row + 1])[0])]
    return f"{folder.manifest['dataset']}/{folder.column('key')[number]} ({folder}/{shard})"
