"""Pre-train C-MELT: the loop, readable top to bottom.

One step: B pairs of ECG and report, half of them with a wrong report, both masked; the sum of four losses; AdamW (model.md).
Started by torchrun or accelerate launch, every rank takes its rows of the B, and the losses are those of the whole batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cmelt.config import PretrainRecipe, SignalSettings
from cmelt.errors import CmeltError, OutputError
from cmelt.files import write_json
from cmelt.models.cmelt import CMELT
from cmelt.objectives.ranks import Ranks
from cmelt.training.blame import blamed
from cmelt.training.checkpoint import RECIPE, Checkpoints, load_models, load_training, states
from cmelt.training.controls import drawn
from cmelt.training.corpus import Corpus
from cmelt.training.distributed import StopRequest, TrainingPass, begin, begin_tracking, everywhere
from cmelt.training.loader import HostBatch, Loader, rank_slice
from cmelt.training.log import Pace, RunLog
from cmelt.training.negatives import Dealer
from cmelt.training.optim import adamw, averaged, learning_rate, update_average
from cmelt.training.resume import differences, facts_of, kept_embeddings, read_facts, run_folder
from cmelt.training.validation import badness, validate


def pretrain(
    shards: Sequence[Path | str],
    recipe: PretrainRecipe,
    out: Path | None = None,
    name: str = "run",
    resume: bool = False,
    quiet: bool = False,
    upload: str = "",
    prepare: bool = False,
) -> dict[str, Any]:
    """Train on the training split of `shards` (folders or URLs) as `recipe` says and leave a run folder; return its summary.

    The validation split is scored for losses and ECG↔report retrieval, and chooses the model; no test row is read. With
    `resume`, goes on from the newest training state of `out` and gives the same numbers as an undisturbed run (bit for bit
    on one CPU). Checkpoints go to the URL `upload` too. With `prepare`, stops once the run folder has its recipe and the reports'
    embeddings, for which no GPU need wait; `resume` trains. Raises ShardError, CheckpointError, OutputError, or CmeltError for
    a loss that is not finite.
    """
    settings = recipe.train
    out = run_folder(out, name, resume)
    before = read_facts(out) if resume else None
    state = next(reversed(states(out)), None) if resume else None
    accelerator = begin(settings, out)
    rank, world, is_main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process

    # What goes in: samples, model, optimiser; all alike on every rank.
    corpus = Corpus(shards, "train", recipe.negatives.within, recipe.data)
    held_out = Corpus(shards, "val", recipe.negatives.within, recipe.data)
    if state:
        model, average = load_models(state)
    else:
        conditioning = SignalSettings.model_validate(corpus.folders[0].manifest["recipe"]["signal"])
        model = CMELT.create(recipe.model, corpus.fs_hz, corpus.samples, corpus.reports, settings.seed, conditioning)
        average = averaged(model, settings.ema)
    model.recompute_layers(settings.recompute)
    if settings.compile:
        model.compile()
    counts = {"train": len(corpus), "val": len(held_out), **{name: n for name, n in corpus.facts().items() if name != "samples"}}
    facts = facts_of(recipe, corpus.folders, counts, sum(p.numel() for p in model.parameters()))
    changed = differences(out, before, facts) if before else []
    ranks = Ranks([len(range(settings.batch)[rank_slice(settings.batch, r, world)]) for r in range(world)] if world > 1 else ())
    trained, optimizer = accelerator.prepare(TrainingPass(model, recipe.objectives, ranks), adamw(model, recipe.optim))
    progress: dict[str, Any] = load_training(state, model, optimizer) if state else {"step": 0, "best": None, "scaler": {}}
    if accelerator.scaler and progress["scaler"]:
        accelerator.scaler.load_state_dict(progress["scaler"])
    if average is not None:
        average.to(accelerator.device)
    first_step: int = progress["step"]

    # What is kept of it: the resolved recipe, with every time that the run was begun; the reports' embeddings.
    if is_main:
        begun = [*(before or {}).get("history", []), {"step": first_step, "ranks": world, "changed": changed}]
        write_json(out / RECIPE, facts | {"history": begun})
    with accelerator.main_process_first():
        embeddings = kept_embeddings(out, {"train": corpus.reports, "val": held_out.reports}, recipe.negatives.embeddings)
    if prepare:
        accelerator.end_training()
        return {"run": str(out), "steps": first_step, "minutes": 0.0, "stopped": False, "parameters": facts["parameters"], **counts}
    loader = Loader(corpus, model, recipe, Dealer(embeddings["train"], recipe.negatives.mode), late=torch.cuda.is_available())
    val_loader = Loader(held_out, model, recipe, Dealer(embeddings["val"], recipe.negatives.mode), augment=False)
    track = begin_tracking(accelerator, out, first_step, facts["recipe"])

    started, step, stopped = time.perf_counter(), first_step, False
    with StopRequest() as stopping, RunLog(out if is_main else None, settings.steps, first_step, quiet, track) as log:
        output = Output(out, recipe, log, Checkpoints(out, settings.keep, upload if is_main else ""), model, average, optimizer, val_loader)
        output.best, output.scaler = progress["best"], accelerator.scaler
        for line in changed:
            log.say(f"resumed with {line}")
        if is_main and not first_step:
            deals = drawn(loader.dealer, corpus.reports, corpus.report_id, corpus.group, settings.batch, settings.seed)
            log.metrics(0, "negatives", deals)
        trained.train()
        batches = output.pace.batches(loader.batches(step * settings.accumulate, settings.steps * settings.accumulate, rank, world))
        while step < settings.steps and not stopped:
            rate = learning_rate(step, settings.steps, recipe.optim)
            for group in optimizer.param_groups:
                group["lr"] = rate
            told = backward(accelerator, trained, batches, recipe, step)
            told["stop"] = told["loss"].new_tensor(float(bool(stopping)))
            values = everywhere(told)
            stopped = values.pop("stop") > 0  # a signal to one rank stops them all, after the same step
            trouble = update(accelerator, trained, optimizer, recipe, values)
            if trouble:
                numbers = range(step * settings.accumulate, (step + 1) * settings.accumulate)
                trouble += blamed(model, loader, recipe, numbers, rank, world)
            step += 1
            output.pace.samples += settings.batch * settings.accumulate
            if trouble and settings.on_nan == "fatal":
                raise CmeltError(f"step {step}: {trouble}; lower optim.lr, or set train.on_nan=skip to go on without such steps")
            if trouble:
                log.say(f"step {step}: {trouble}; skipped")
            elif average is not None:
                update_average(average, model, settings.ema, step)
            if is_main:
                output.after(step, values | {"lr": rate}, last=stopped or step == settings.steps)
        output.close()
        if stopped:
            log.say(f"stopped by a signal at step {step}; --resume goes on from here")
    accelerator.end_training()
    minutes = (time.perf_counter() - started) / 60
    return {"run": str(out), "steps": step, "minutes": minutes, "stopped": stopped, "parameters": facts["parameters"], **counts}


def backward(
    accelerator: Accelerator, trained: nn.Module, batches: Iterator[HostBatch], recipe: PretrainRecipe, step: int
) -> dict[str, Tensor]:
    """Add up the gradients of the batches of `step`, their mean; return the mean loss and its parts, this rank's share of them."""
    count = recipe.train.accumulate
    told: dict[str, Tensor] = {}
    for number in range(step * count, (step + 1) * count):
        torch.manual_seed(recipe.train.seed * 1_000_003 + number + (accelerator.process_index << 40))  # dropout: nothing to save
        batch = next(batches).to(accelerator.device)
        is_last = number + 1 == (step + 1) * count
        with nullcontext() if is_last else accelerator.no_sync(trained):
            loss, parts = trained(batch)
            accelerator.backward(loss / count)
        told = {name: value / count + told.get(name, 0.0) for name, value in parts.items()}
    return told


def update(
    accelerator: Accelerator, trained: nn.Module, optimizer: torch.optim.Optimizer, recipe: PretrainRecipe, values: dict[str, float]
) -> str:
    """Clip and apply the gradients, or leave them where they or the loss are not finite; return what was wrong, '' for nothing."""
    trouble = ""
    if not math.isfinite(values["loss"]):
        trouble = f"the loss is {values['loss']} ({', '.join(f'{name} {value:.4g}' for name, value in values.items() if name != 'loss')})"
    elif recipe.optim.clip:
        values["grad_norm"] = float(accelerator.clip_grad_norm_(trained.parameters(), recipe.optim.clip))
        if not math.isfinite(values["grad_norm"]) and accelerator.scaler is None:  # fp16's scaler leaves such steps out by itself
            trouble = f"the gradient's norm is {values['grad_norm']}"
    if not trouble:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return trouble


@dataclass
class Output:
    """What a run leaves while it goes on, all of it the main rank's work: metrics, validation, pictures, the chosen model, states."""

    out: Path
    recipe: PretrainRecipe
    log: RunLog
    checkpoints: Checkpoints
    model: CMELT
    average: CMELT | None
    optimizer: torch.optim.Optimizer
    val_loader: Loader
    scaler: Any = None
    best: dict[str, Any] | None = None
    """The step and score of the model that is chosen so far."""
    pace: Pace = field(default_factory=Pace)

    def after(self, step: int, values: dict[str, float], last: bool) -> None:
        """Log, validate, draw and save what is due after `step` steps; everything after the `last`."""
        settings = self.recipe.train
        if step % settings.log_every == 0 or last:
            self.attempt(self.log.metrics, step, "train", values | self.pace.told())
        with self.pace.apart():
            if step % settings.validate_every == 0 or step == settings.steps:
                self.validate(step)
            if settings.pictures_every and step % settings.pictures_every == 0:
                from cmelt.training.pictures import draw

                self.attempt(draw, self.shown, self.val_loader.corpus, self.out / "pictures", step)
            if step % settings.save_every == 0 or last:
                self.save(step)

    @property
    def shown(self) -> CMELT:
        """The model that is measured, drawn and saved: the average where there is one."""
        return self.average or self.model

    def validate(self, step: int) -> None:
        """Measure the model on the validation split, and make it the run's model where it is the best so far."""
        by, measured = self.recipe.train.select, validate(self.shown, self.val_loader, self.recipe)
        self.attempt(self.log.metrics, step, "val", measured)
        if by == "last":
            return
        chosen = {"step": step, "by": by, "badness": badness(by, measured)}
        is_best = self.best is None or chosen["badness"] < self.best["badness"]
        if is_best and self.attempt(self.checkpoints.publish, self.shown, chosen):
            self.best = chosen

    def save(self, step: int) -> None:
        """Save what resuming needs; and the run's model, where the last is the chosen one."""
        facts = {"step": step, "best": self.best, "scaler": self.scaler.state_dict() if self.scaler else {}}
        self.attempt(self.log.sync)
        self.attempt(self.checkpoints.save, self.model, self.average, self.optimizer, facts)
        if self.recipe.train.select == "last":
            self.attempt(self.checkpoints.publish, self.shown, {"step": step, "by": "last"})

    def attempt(self, work: Callable[..., object], *arguments: Any) -> bool:
        """Write something and return whether that went well; what stops it is fatal, or said, as train.on_save_error wants it."""
        try:
            work(*arguments)
        except OutputError as error:
            if self.recipe.train.on_save_error == "fatal":
                raise
            self.log.say(f"{error}; going on without, as train.on_save_error says")
            return False
        return True

    def close(self) -> None:
        """Wait until all is uploaded."""
        self.attempt(self.checkpoints.close)
