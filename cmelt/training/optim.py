"""AdamW, its learning rate (a pure function of the step), and the average of the weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from cmelt.config import OptimSettings
from cmelt.models.cmelt import CMELT


def adamw(model: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of `model`; biases, norms and other vectors are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)  # one pass over memory, on CPU too


def learning_rate(step: int, steps: int, settings: OptimSettings) -> float:
    """Return the learning rate of 0-based `step` out of `steps`.

    ``tri-stage`` (published): linear rise, constant, exponential decay to ``final`` × the peak; ``cosine``: linear rise,
    half a cosine down to ``final`` × the peak; ``constant``: linear rise, then the peak.
    """
    rise = round(settings.warmup * steps)
    if step < rise:
        return settings.lr * (step + 1) / rise
    if settings.schedule == "constant":
        return settings.lr
    if settings.schedule == "cosine":
        progress = (step - rise) / max(1, steps - 1 - rise)
        return settings.lr * (settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    hold = rise + round(settings.hold * steps)
    if step < hold:
        return settings.lr
    progress = (step - hold) / max(1, steps - 1 - hold)
    return settings.lr * max(settings.final, 1e-8) ** min(1.0, progress)


def averaged(model: CMELT, decay: float) -> CMELT | None:
    """Return a copy of `model` to hold the exponential moving average of its weights, or None for decay 0."""
    if not decay:
        return None
    copy = CMELT(model.config, model.tokenizer)
    copy.load_state_dict(model.state_dict())
    return copy.requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: CMELT, model: CMELT, decay: float, step: int) -> None:
    """Move the averaged weights towards the model's; the decay grows over the first steps, so that early noise is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
