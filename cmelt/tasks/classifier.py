"""An ECG encoder with a linear head, trained end to end on labels, whole or in part; stopped early on validation.

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

from cmelt.config import FinetuneRecipe
from cmelt.errors import CmeltError
from cmelt.models.cmelt import CMELT
from cmelt.models.masking import mask_leads
from cmelt.record import LEADS
from cmelt.tasks.base import Cohort
from cmelt.tasks.protocol import Floats, Rows
from cmelt.tasks.sgd import macro_of
from cmelt.training.distributed import precision
from cmelt.training.optim import learning_rate

EVALUATED = 128
"""ECGs that are scored at once."""

Told = Callable[[dict[str, Any]], None]


class Classifier(nn.Module):
    """The ECG side of a model, and logits of C classes from the mean of its encoded tokens."""

    def __init__(self, model: CMELT, classes: int, layers: int = -1, seed: int = 0) -> None:
        """Take `model` as it is. Of its encoder, the last `layers` transformer layers are trained: -1 = all of it, 0 = only the head."""
        super().__init__()
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(model.config.ecg_width, classes)
        nn.init.zeros_(self.head.bias)
        model.requires_grad_(False)
        blocks = list(model.ecg_encoder.layers)
        trained: list[nn.Module] = [model.ecg_encoder] if layers < 0 or layers >= len(blocks) else blocks[len(blocks) - layers :]
        for part in trained:
            part.requires_grad_(True)

    def forward(self, ecg: Tensor) -> Tensor:
        """Return logits (B, C) of `ecg` (B, 12, S) in mV, leads in the order of LEADS."""
        encoder = self.model.ecg_encoder
        encoded = encoder.encode(encoder.tokens(self.model.permuted(ecg)))  # (B, 1 + T, W)
        logits: Tensor = self.head(encoded[:, 1:].mean(dim=1))
        return logits


@dataclass(frozen=True)
class Trained:
    """A classifier with the weights of its best epoch, and how it came there."""

    classifier: Classifier
    best_epoch: int
    epochs: int
    val_auc: float


def train(
    classifier: Classifier,
    cohort: Cohort,
    train_rows: Rows,
    val_rows: Rows,
    usable: NDArray[np.bool_],
    recipe: FinetuneRecipe,
    tell: Told = lambda row: None,
    quiet: bool = False,
) -> Trained:
    """Train on `train_rows` of `cohort` until the macro AUROC of `val_rows` has not risen for ``tune.patience`` epochs.

    Binary cross-entropy; the head learns ``tune.head_rate`` times as fast as the encoder. `tell` gets a row of numbers an epoch. The
    best epoch's weights are put back. Raises CmeltError for a loss that is not finite.
    """
    tune, truth = recipe.tune, torch.from_numpy(cohort.truth.astype(np.float32))
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision(tune.precision))
    head = list(classifier.head.parameters())
    encoder = [p for p in classifier.model.parameters() if p.requires_grad]
    groups = [{"params": head, "times": tune.head_rate}, {"params": encoder, "times": 1.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.optim.lr, betas=recipe.optim.betas, weight_decay=recipe.optim.weight_decay)
    model, optimizer = accelerator.prepare(classifier, optimizer)
    steps = tune.epochs * math.ceil(len(train_rows) / tune.batch)
    rng, step = np.random.default_rng(tune.seed), 0
    best = (-np.inf, 0)
    kept: dict[str, Tensor] = {}
    console = Console(stderr=True, quiet=quiet)
    for epoch in range(1, tune.epochs + 1):
        model.train()
        torch.manual_seed(tune.seed * 1_000_003 + epoch)  # dropout
        total = 0.0
        order = rng.permutation(train_rows)
        for start in range(0, len(order), tune.batch):
            rows = order[start : start + tune.batch]
            noise = torch.from_numpy(rng.random((len(rows), len(LEADS)), np.float32))
            ecg = mask_leads(torch.from_numpy(cohort.ecg_mv(rows)), noise, tune.lead_prob)
            for group in optimizer.param_groups:
                group["lr"] = group["times"] * learning_rate(step, steps, recipe.optim)
            with accelerator.autocast():
                logits = model(ecg.to(accelerator.device))
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), truth[rows].to(accelerator.device))
            if not math.isfinite(loss.item()):
                raise CmeltError(f"epoch {epoch}: the loss is {loss.item()}; lower optim.lr")
            accelerator.backward(loss)
            if recipe.optim.clip:
                accelerator.clip_grad_norm_(model.parameters(), recipe.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item() * len(rows) / len(order)
            step += 1
        value = macro_of(cohort.truth[val_rows], scores(classifier, cohort, val_rows), usable)
        tell({"epoch": epoch, "loss": total, "val_auc": value})
        console.print(f"epoch {epoch}/{tune.epochs}  loss {total:.4f}  validation AUC {value:.3f}", soft_wrap=True, highlight=False)
        if not kept or value > best[0]:
            best = value, epoch
            kept = {name: p.detach().clone() for name, p in classifier.named_parameters() if p.requires_grad}
        if epoch - best[1] >= tune.patience:
            break
    classifier.load_state_dict(kept, strict=False)
    return Trained(classifier.eval(), best[1], epoch, float(best[0]))


@torch.inference_mode()
def scores(classifier: Classifier, cohort: Cohort, rows: Rows) -> Floats:
    """Return the logits (len(rows), C) of `rows` of `cohort`, in evaluation mode."""
    classifier.eval()
    device = classifier.head.weight.device
    parts = [
        classifier(torch.from_numpy(cohort.ecg_mv(rows[start : start + EVALUATED])).to(device)).double().cpu().numpy()
        for start in range(0, len(rows), EVALUATED)
    ]
    return np.concatenate(parts)
