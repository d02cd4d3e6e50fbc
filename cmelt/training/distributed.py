"""The processes of a run (torchrun, accelerate launch, or one alone): they begin, count, stop and fail together."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from torch import Tensor, nn

from cmelt.config import ObjectiveSettings, TrainSettings
from cmelt.errors import MissingExtra, RecipeError
from cmelt.models.batch import IGNORE, Batch
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss, wanted
from cmelt.objectives.ranks import Ranks


def begin(settings: TrainSettings, folder: Path) -> Accelerator:
    """Join the other processes, where there are any (NCCL on GPUs, gloo on CPUs), and return what computes in the asked precision.

    Raises RecipeError where the machine has not that precision, MissingExtra where a tracker is not installed.
    """
    for tracker in settings.trackers:
        if find_spec(tracker) is None:
            raise MissingExtra(tracker, tracker)
    has_gpu = torch.cuda.is_available()
    kind = precision(settings.precision)
    if kind == "fp16" and not has_gpu:
        raise RecipeError("train.precision = 'fp16' needs a GPU; here 'fp32' or 'bf16' will do")
    AcceleratorState._reset_state()  # a run before this one in the same process may have had another precision
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True)
    project = ProjectConfiguration(str(folder), logging_dir=str(folder / "tensorboard"))
    return Accelerator(
        cpu=not has_gpu, mixed_precision=kind, log_with=list(settings.trackers) or None, project_config=project, kwargs_handlers=[ddp]
    )


def precision(setting: str) -> str:
    """Return accelerate's name for a precision; ``auto`` = bf16 on a GPU that has it, else fp32."""
    if setting == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return {"fp32": "no"}.get(setting, setting)


class TrainingPass(nn.Module):
    """The model with its losses: one module, one pass, so that DDP sees every parameter that has a part in the loss."""

    def __init__(self, model: CMELT, settings: ObjectiveSettings, ranks: Ranks) -> None:
        super().__init__()
        self.model, self.settings, self.ranks = model, settings, ranks

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this rank's share of the loss, and what is logged of it: averaged over ranks they are the joined batch's."""
        loss, parts = total_loss(self.model, self.model(batch, wanted(self.settings)), batch, self.settings, self.ranks)
        rows = torch.tensor(len(batch), device=loss.device)
        left_out = self.ranks.mean((batch.is_aligned == IGNORE).sum().float(), rows)
        return loss, {"loss": loss.detach(), **parts, "left_out": left_out}


def everywhere(told: dict[str, Tensor]) -> dict[str, float]:
    """Return the mean over all ranks of each value, the same numbers on every rank."""
    values = torch.stack([value.float() for value in told.values()])
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return dict(zip(told, values.tolist(), strict=True))


def begin_tracking(
    accelerator: Accelerator, folder: Path, first_step: int, recipe: dict[str, Any]
) -> Callable[[dict[str, float], int], None]:
    """Begin the run's trackers (TensorBoard under RUN/tensorboard, …) and return what takes a row of metrics and its step."""
    wandb: dict[str, Any] = {"name": folder.resolve().name, "dir": str(folder), "resume": "allow", "config": recipe}
    wandb["id"] = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]  # resumed, it goes on with its own curves
    accelerator.init_trackers("cmelt", init_kwargs={"tensorboard": {"purge_step": first_step + 1}, "wandb": wandb})
    return lambda row, step: accelerator.log(row, step=step)


STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
"""What ends a run in order; Windows has no SIGUSR1."""


class StopRequest:
    """True once SIGTERM or SIGUSR1 has come (SLURM's preemption). Use as a context manager: the signals' old meaning comes back."""

    def __init__(self) -> None:
        self.wanted = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # nowhere else may signals be caught
            self.before = {number: signal.signal(number, self._ask) for number in STOPS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.wanted = True

    def __bool__(self) -> bool:
        return self.wanted
