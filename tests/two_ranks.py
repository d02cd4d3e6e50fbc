"""What one of two processes does in tests/objectives/test_ranks.py; a module of its own, for a child process imports it by name."""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import Batch
from cmelt.objectives import total_loss
from cmelt.objectives.ranks import Ranks
from tests.pairs import small_batch, small_model, some_reports

ROWS = (slice(0, 7), slice(7, 12))
"""Unequal, as where a batch does not divide by the number of ranks."""
FORMS = [
    ObjectiveSettings(entities=0.5),
    ObjectiveSettings(ets_form="siglip"),
    ObjectiveSettings(ets_form="infonce", ets_target="diagonal"),
]


def loss_and_gradients(batch: Batch, settings: ObjectiveSettings, ranks: Ranks | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of the small model on `batch` and the gradient of each of its parameters."""
    model = small_model(seed=1, entity_heads=2).eval()
    loss, _ = total_loss(model, model(batch), batch, settings, ranks)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def whole_batch() -> Batch:
    return small_batch(small_model(seed=1, entity_heads=2), some_reports(), 12, seed=5)


def work(rank: int, folder: str) -> None:
    """Do what one of two ranks does under DDP: its rows, its loss, gradients averaged over ranks; write what came out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    batch = whole_batch()
    rows = ROWS[rank]
    mine = Batch(*(getattr(batch, field.name)[rows] for field in dataclasses.fields(Batch)))
    for number, settings in enumerate(FORMS):
        loss, gradients = loss_and_gradients(mine, settings, Ranks([rows.stop - rows.start for rows in ROWS]))
        for tensor in (loss, *gradients.values()):
            dist.all_reduce(tensor)
            tensor /= 2
        if rank == 0:
            torch.save({"loss": loss, **gradients}, f"{folder}/{number}.pt")
    dist.destroy_process_group()
