"""Train an ECG encoder, whole or in part, with a head of its own, until validation does not get better.

B batch, S samples, T tokens, W encoder width, N recordings, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from cmelt.config_tasks import FinetuneRecipe
from cmelt.errors import CmeltError
from cmelt.models.cmelt import CMELT
from cmelt.models.heads import mean_token
from cmelt.models.masking import mask_leads
from cmelt.record import LEADS
from cmelt.tasks.base import Cohort
from cmelt.tasks.protocol import Floats, Rows
from cmelt.tasks.sgd import macro_of
from cmelt.training.distributed import precision
from cmelt.training.optim import learning_rate

EVALUATED = 128
"""ECGs that are scored at once."""

Tell = Callable[[dict[str, Any]], None]
Read = Callable[[Rows], NDArray[np.float32]]


class Tuned(nn.Module):
    """The ECG side of a model with a head that reads the mean of its encoded tokens."""

    def __init__(self, model: CMELT, head: nn.Module, layers: int = -1) -> None:
        """Take `model` and `head` as they are; the encoder's last `layers` transformer layers are trained: -1 = all of it, 0 = none."""
        super().__init__()
        self.model, self.head = model, head.to(model.etm_head.weight.device)
        model.requires_grad_(False)
        blocks = list(model.ecg_encoder.layers)
        trained: list[nn.Module] = [model.ecg_encoder] if not 0 <= layers <= len(blocks) else blocks[len(blocks) - layers :]
        for part in trained:
            part.requires_grad_(True)

    @property
    def device(self) -> torch.device:
        """Return where it is computed; `tune` may move it."""
        return self.model.etm_head.weight.device

    def tokens(self, ecg: Tensor) -> Tensor:
        """Return the mean of the encoded tokens (B, W) of `ecg` (B, 12, S) in mV, leads in the order of LEADS."""
        return mean_token(*self.model.encoded(ecg))

    def forward(self, ecg: Tensor) -> Tensor:
        """Return what the head makes of `ecg` (B, 12, S)."""
        out: Tensor = self.head(self.tokens(ecg))
        return out


@dataclass(frozen=True)
class Course:
    """How training went: the epoch whose weights were kept, how many were run, and the value on validation of that epoch."""

    best_epoch: int
    epochs: int
    value: float


def tune(
    tuned: Tuned,
    rows: Rows,
    read: Read,
    loss_of: Callable[[Tensor, Rows], Tensor],
    value_of: Callable[[], float],
    recipe: FinetuneRecipe,
    tell: Tell = lambda row: None,
    quiet: bool = False,
) -> Course:
    """Train `tuned` on `rows` until `value_of` (higher = better) has not risen for ``tune.patience`` epochs; leave its best weights in it.

    `read` gives the ECGs of rows in mV, `loss_of` the loss of what came out for them. The head learns ``tune.head_rate`` times as fast
    as the encoder. `tell` gets a row of numbers an epoch. Raises CmeltError for a loss that is not finite.
    """
    settings = recipe.tune
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision(settings.precision))
    encoder = [p for p in tuned.model.parameters() if p.requires_grad]
    groups = [{"params": list(tuned.head.parameters()), "times": settings.head_rate}, {"params": encoder, "times": 1.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.optim.lr,
        betas=recipe.optim.betas,
        weight_decay=recipe.optim.weight_decay,
    )
    prepared, optimizer = accelerator.prepare(tuned, optimizer)
    steps = settings.epochs * math.ceil(len(rows) / settings.batch)
    rng, step = np.random.default_rng(settings.seed), 0
    best = (-np.inf, 0)
    kept: dict[str, Tensor] = {}
    console = Console(stderr=True, quiet=quiet or not accelerator.is_main_process)
    for epoch in range(1, settings.epochs + 1):
        prepared.train()
        total = 0.0
        order = rng.permutation(rows)
        for start in range(0, len(order), settings.batch):
            some, noise = order[start : start + settings.batch], rng.random((settings.batch, len(LEADS)), np.float32)
            if len(some) >= accelerator.num_processes:  # each rank takes every so manieth row
                some, noise = (x[accelerator.process_index :: accelerator.num_processes] for x in (some, noise[: len(some)]))
            torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout
            ecg = mask_leads(torch.from_numpy(read(some)), torch.from_numpy(noise[: len(some)]), settings.lead_prob)
            for group in optimizer.param_groups:
                group["lr"] = group["times"] * learning_rate(step, steps, recipe.optim)
            with accelerator.autocast():
                out = prepared(ecg.to(accelerator.device))
            loss = loss_of(out.float(), some)
            if not math.isfinite(loss.item()):
                raise CmeltError(f"epoch {epoch}: the loss is {loss.item()}; lower optim.lr")
            accelerator.backward(loss)
            if recipe.optim.clip:
                accelerator.clip_grad_norm_(prepared.parameters(), recipe.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item() * len(some)
            step += 1
        tuned.eval()
        value = value_of()
        tell({"step": step, "split": "train", "epoch": epoch, "loss": total * accelerator.num_processes / len(order)})
        tell({"step": step, "split": "val", "epoch": epoch, "value": value})
        said = f"epoch {epoch}/{settings.epochs}  loss {total * accelerator.num_processes / len(order):.4f}  validation {value:.3f}"
        console.print(said, soft_wrap=True, highlight=False)
        if not kept or value > best[0]:
            best = value, epoch
            kept = {name: p.detach().clone() for name, p in tuned.named_parameters() if p.requires_grad}
        if epoch - best[1] >= settings.patience:
            break
    tuned.load_state_dict(kept, strict=False)
    tuned.eval()
    return Course(best[1], epoch, float(best[0]))


@torch.inference_mode()
def outputs(of: Callable[[Tensor], Tensor], read: Read, rows: Rows, device: torch.device) -> Floats:
    """Return what `of` (a module, or a part of one, in evaluation mode) makes of the ECGs of `rows`, (len(rows), …)."""
    parts = [
        of(torch.from_numpy(read(rows[start : start + EVALUATED])).to(device)).double().cpu().numpy()
        for start in range(0, len(rows), EVALUATED)
    ]
    return np.concatenate(parts)


def classifier(model: CMELT, classes: int, layers: int = -1, seed: int = 0) -> Tuned:
    """Return `model` with a linear head of `classes` logits, its weights drawn with `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(model.config.ecg_width, classes)
    nn.init.zeros_(head.bias)
    return Tuned(model, head, layers)


def tune_classifier(
    tuned: Tuned,
    cohort: Cohort,
    train: Rows,
    val: Rows,
    usable: NDArray[np.bool_],
    recipe: FinetuneRecipe,
    tell: Tell = lambda row: None,
    quiet: bool = False,
) -> Course:
    """Train on the labels of rows `train` by binary cross-entropy, judged by the macro AUROC of `usable` (C,) classes on rows `val`."""
    truth = torch.from_numpy(cohort.truth.astype(np.float32))

    def loss_of(logits: Tensor, rows: Rows) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(logits, truth[rows].to(logits.device))

    def value_of() -> float:
        return macro_of(cohort.truth[val], outputs(tuned, cohort.ecg_mv, val, tuned.device), usable)

    return tune(tuned, train, cohort.ecg_mv, loss_of, value_of, recipe, tell, quiet)
