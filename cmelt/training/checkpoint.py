"""Checkpoints of a run: safetensors and JSON, whole or not at all; nothing is pickled.

RUN/model.safetensors, config.json, tokenizer, README.md: the chosen model, what users load; chosen.json says which it is.
RUN/state/step-N: the newest states; each holds a model of its own, loadable too, and apart from it what only training needs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cmelt.errors import CheckpointError, InputError, OutputError
from cmelt.files import sync, telling, write_json
from cmelt.models.cmelt import CMELT
from cmelt.models.store import save_tensors
from cmelt.remote import Remote

if TYPE_CHECKING:
    from cmelt.models.writer import Writer

RECIPE, EMBEDDINGS = "recipe.json", "reports.safetensors"
"""What resuming reads besides a state: written once a run."""
STATES, TRAINING, FACTS, CHOSEN = "state", "training.safetensors", "state.json", "chosen.json"


class Checkpoints:
    """Writes the states and the chosen model of a run, and uploads them where a URL is given."""

    def __init__(self, folder: Path, keep: int = 1, url: str = "") -> None:
        """Keep the newest `keep` states in `folder`, and at `url`. Raises InputError for a URL that nothing here can speak with."""
        self.folder, self.keep = folder, keep
        self.remote = Remote(url) if url else None
        self.thread = ThreadPoolExecutor(1)
        self.sending: Future[None] | None = None

    def save(self, model: CMELT | Writer, average: CMELT | None, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Write the state of step ``facts["step"]``; it appears by one rename, then the oldest go. Raises OutputError.

        A kill at any moment leaves a whole state. The state's own model is the `average` where there is one.
        """
        part = self.folder / f"{STATES}.part"
        final = self.folder / STATES / f"step-{facts['step']:09d}"
        with removed_after(part), telling(final):
            part.mkdir(parents=True)
            (average or model).save_pretrained(part)
            save_tensors(training_tensors(model, average, optimizer), part / TRAINING)
            (part / FACTS).write_text(json.dumps(facts), encoding="utf-8")
            for file in part.iterdir():
                sync(file)
            sync(part)
            shutil.rmtree(final, ignore_errors=True)
            final.parent.mkdir(exist_ok=True)
            part.rename(final)
            sync(final.parent)
        try:
            self.settle()  # what is being uploaded may be one that goes now
        finally:
            gone = states(self.folder)[: -self.keep]
            for old in gone:
                (old / FACTS).unlink()  # first, for it says that the state is whole
                shutil.rmtree(old)
            files = sorted(final.iterdir(), key=lambda file: file.name == FACTS)
            besides = [file for name in (RECIPE, EMBEDDINGS) if (file := self.folder / name).exists()]
            self._send([*besides, *files], [old / file.name for old in gone for file in reversed(files)])

    def publish(self, model: CMELT | Writer, chosen: dict[str, Any]) -> None:
        """Make `model` the run's model, each of its files by rename, and say in chosen.json which it is. Raises OutputError."""
        part = self.folder / "model.part"
        with removed_after(part), telling(self.folder):
            model.save_pretrained(part)
            files = sorted(part.iterdir(), key=lambda f: f.name == "model.safetensors")
            for file in files:
                sync(file)
                file.replace(self.folder / file.name)
            sync(self.folder)
        write_json(self.folder / CHOSEN, chosen)
        try:
            self.settle()
        finally:
            self._send([self.folder / name for name in (*(file.name for file in files), CHOSEN)], [])

    def settle(self) -> None:
        """Wait until all is uploaded; raises OutputError where it could not be."""
        if self.sending is None:
            return
        sending, self.sending = self.sending, None
        try:
            sending.result()
        except InputError as error:
            raise OutputError(f"cannot upload: {error}") from None

    def close(self) -> None:
        """Wait for uploads, and let the thread go."""
        try:
            self.settle()
        finally:
            self.thread.shutdown()

    def _send(self, files: list[Path], gone: list[Path]) -> None:
        """Upload `files` and remove `gone` there, while training goes on."""
        if self.remote is None:
            return
        remote = self.remote

        def work() -> None:
            for file in files:
                remote.put(file, file.relative_to(self.folder).as_posix())
            for file in gone:
                remote.remove(file.relative_to(self.folder).as_posix())

        self.sending = self.thread.submit(work)


def training_tensors(model: CMELT | Writer, average: CMELT | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what training needs beside the state's own model: the optimiser's moments, and the weights where the model is an average."""
    names = {id(p): name for name, p in model.named_parameters()}
    tensors = {
        f"optim.{names[id(p)]}.{key}": torch.as_tensor(value)
        for group in optimizer.param_groups
        for p in group["params"]
        for key, value in optimizer.state.get(p, {}).items()
    }
    if average is not None:
        tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def states(folder: Path) -> list[Path]:
    """Return the whole training states of a run, the newest last."""
    return sorted(path for path in (folder / STATES).glob("step-*") if (path / FACTS).is_file())


def load_models(state: Path) -> tuple[CMELT, CMELT | None]:
    """Return the model of a training state as it was, and its average where it had one. Raises CheckpointError."""
    own = CMELT.from_pretrained(state)
    with reading(state) as (_, tensors):
        weights = _under(tensors, "model.")
        if not weights:
            return own.train(), None
        model = CMELT(own.config, own.tokenizer)
        model.load_state_dict(weights)
    return model, own.requires_grad_(False)


def load_training(state: Path, model: CMELT | Writer, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore the optimiser's moments of the parameters of `model`, where they are; return the state's facts (step, best, …)."""
    with reading(state) as (facts, tensors):
        moments = _under(tensors, "optim.")
        for name, p in model.named_parameters():
            kept = {key.removeprefix(f"{name}."): value for key, value in moments.items() if key.rpartition(".")[0] == name}
            if kept:
                optimizer.state[p] = {key: value.to(p.device) for key, value in kept.items()}
    return facts


@contextmanager
def reading(state: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give the facts of a training state and its open tensors; what is missing or damaged is a CheckpointError."""
    try:
        with safe_open(state / TRAINING, "pt") as tensors:
            yield json.loads((state / FACTS).read_text(encoding="utf-8")), tensors
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{state}: this training state does not load ({reason}); remove it to go on from an earlier one") from error


def _under(tensors: Any, prefix: str) -> dict[str, Tensor]:
    """Return those of the open `tensors` whose name starts with `prefix`, without it."""
    return {name.removeprefix(prefix): tensors.get_tensor(name) for name in tensors.keys() if name.startswith(prefix)}  # noqa: SIM118


@contextmanager
def removed_after(part: Path) -> Iterator[None]:
    """See that the folder `part` is not there before, nor left behind after."""
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(part, ignore_errors=True)
