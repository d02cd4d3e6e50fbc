"""Training state on disk: safetensors and JSON, whole or not at all; nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from cmelt.errors import CheckpointError
from cmelt.models.cmelt import CMELT

STATE = "state"


def save_checkpoint(folder: Path, model: CMELT, raw: nn.Module, optimizer: torch.optim.Optimizer, step: int, extra: dict[str, Any]) -> None:
    """Write what users load (`model`, maybe averaged, at the top of `folder`) and what resuming needs (``state/step-N``).

    Every file is written under a temporary name first. The state folder appears by one rename, after which the previous
    one goes; a kill at any moment leaves a state that can be resumed.
    """
    part = folder / f"{STATE}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    names = {id(p): name for name, p in raw.named_parameters()}
    tensors = {f"model.{name}": value.detach().contiguous() for name, value in raw.state_dict().items()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            for key, value in optimizer.state.get(p, {}).items():
                tensors[f"optim.{names[id(p)]}.{key}"] = torch.as_tensor(value).detach().contiguous()
    if model is not raw:
        tensors |= {f"average.{name}": value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file({name: value.clone() for name, value in tensors.items()}, part / "state.safetensors")
    (part / "state.json").write_text(json.dumps({"step": step, **extra}), encoding="utf-8")
    _sync(part / "state.safetensors")
    _sync(part / "state.json")
    final = folder / STATE / f"step-{step:09d}"
    shutil.rmtree(final, ignore_errors=True)
    final.parent.mkdir(exist_ok=True)
    part.rename(final)
    for old in final.parent.glob("step-*"):
        if old != final:
            shutil.rmtree(old)
    save_model(folder, model)


def save_model(folder: Path, model: CMELT) -> None:
    """Write model, config, tokenizer and card into `folder`, each file by rename, ``model.safetensors`` last."""
    part = folder / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    for file in sorted(part.iterdir(), key=lambda f: f.name == "model.safetensors"):
        _sync(file)
        file.replace(folder / file.name)
    part.rmdir()


def latest_state(folder: Path) -> Path | None:
    """Return the newest whole training state of a run, or None."""
    states = sorted((folder / STATE).glob("step-*"))
    return states[-1] if states else None


def load_state(state: Path, model: CMELT, raw: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore `raw`, `optimizer` and (if it is another object) the averaged `model`; return the saved JSON (step, …).

    Raises CheckpointError where a tensor is missing or of another size, or the file is damaged.
    """
    try:
        with safe_open(state / "state.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        facts: dict[str, Any] = json.loads((state / "state.json").read_text(encoding="utf-8"))
        raw.load_state_dict(_under(tensors, "model."))
        if model is not raw:
            model.load_state_dict(_under(tensors, "average."))
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{state}: this training state does not load ({error}); start anew in another --out") from error
    parameters = dict(raw.named_parameters())
    for name, p in parameters.items():
        kept = {key.rsplit(".", 1)[1]: value for key, value in tensors.items() if key.rsplit(".", 1)[0] == f"optim.{name}"}
        if kept:
            optimizer.state[p] = {key: value.to(p.device) for key, value in kept.items()}
    return facts


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose name starts with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _sync(file: Path) -> None:
    """Ask the system to put `file` on disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
