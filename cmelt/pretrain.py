"""Pre-train C-MELT: the loop, readable top to bottom.

One step: B pairs of ECG and report, half of them with a wrong report, both masked; the sum of four losses; AdamW (model.md).
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from cmelt import __version__
from cmelt.config import PretrainRecipe, SignalSettings
from cmelt.errors import CheckpointError, CmeltError, OutputError
from cmelt.metrics import retrieval
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss
from cmelt.training.checkpoint import latest_state, load_state, save_checkpoint
from cmelt.training.corpus import Corpus
from cmelt.training.loader import Loader
from cmelt.training.log import RunLog
from cmelt.training.negatives import Dealer, report_embeddings
from cmelt.training.optim import adamw, learning_rate

RETRIEVAL_ROWS = 1000
"""At most this many validation pairs take part in retrieval, so that recall@k means the same from run to run."""


def pretrain(
    shards: Sequence[Path],
    recipe: PretrainRecipe,
    out: Path | None = None,
    name: str = "run",
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train on the training split of `shards` as `recipe` says and leave a run folder; return its summary.

    The validation split is scored for losses and ECG↔report retrieval; no test row is read. With `resume`, goes on from the
    last training state of `out` and gives the same numbers as an undisturbed run (bit for bit on one CPU).
    Raises ShardError, CheckpointError, OutputError, or CmeltError for a loss that is not finite.
    """
    out = run_folder(out, name, resume)
    accelerator = Accelerator(mixed_precision=precision(recipe.train.precision), gradient_accumulation_steps=1)
    corpus = Corpus(shards, "train", recipe.negatives.within, recipe.data.leaks)
    held_out = Corpus(shards, "val", recipe.negatives.within)
    conditioning = SignalSettings.model_validate(corpus.folders[0].manifest["recipe"]["signal"])
    model = CMELT.create(recipe.model, corpus.fs_hz, corpus.samples, corpus.reports, recipe.train.seed, conditioning)
    optimizer = adamw(model, recipe.optim)
    average = averaged(model, recipe.train.ema)

    saved = recipe.model_dump(mode="json")
    counts = {"train": len(corpus), "val": len(held_out), "reports": len(corpus.reports)}
    counts |= {"without_report": corpus.without_report, "leaking": corpus.leaking}
    paths = [str(Path(folder).resolve()) for folder in shards]
    facts: dict[str, Any] = {"version": __version__, "recipe": saved, "shards": paths, "counts": counts}
    facts["parameters"] = sum(p.numel() for p in model.parameters())
    first_step = 0
    if resume:
        refuse_other_recipe(out, facts)
        state = latest_state(out)
        if state is None:
            raise CheckpointError(f"{out}: nothing to resume; leave --resume out to start anew")
        first_step = load_state(state, average or model, model, optimizer)["step"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "recipe.json", facts)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror})") from None

    dealer = Dealer(report_embeddings(corpus.reports, recipe.negatives.embeddings), recipe.negatives.mode)
    loader = Loader(corpus, model, recipe, dealer)
    val_dealer = Dealer(report_embeddings(held_out.reports, recipe.negatives.embeddings), recipe.negatives.mode)
    val_loader = Loader(held_out, model, recipe, val_dealer, augment=False)

    trained, optimizer = accelerator.prepare(model, optimizer)
    if average is not None:
        average.to(accelerator.device)
    settings, steps = recipe.train, recipe.train.steps
    stopping = StopRequest()
    started = clock = time.perf_counter()
    with RunLog(out / "metrics.jsonl", steps, first_step, quiet or not accelerator.is_main_process) as log:
        trained.train()
        step = first_step
        for batch in loader.batches(first_step, steps):
            torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout is a function of the step: nothing to save
            rate = learning_rate(step, steps, recipe.optim)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batch.to(accelerator.device)
            with accelerator.autocast():
                loss, parts = total_loss(model, trained(batch), batch, recipe.objectives)
            if not math.isfinite(loss.item()):
                message = f"step {step}: the loss is {loss.item()} ({', '.join(f'{k} {float(v):.4g}' for k, v in parts.items())})"
                if settings.on_nan == "fatal":
                    raise CmeltError(f"{message}; lower optim.lr, or set train.on_nan=skip to go on without this step")
                log.console.print(f"{message}; skipped")
                optimizer.zero_grad(set_to_none=True)
                step += 1
                continue
            accelerator.backward(loss)
            if recipe.optim.clip:
                accelerator.clip_grad_norm_(trained.parameters(), recipe.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if average is not None:
                update_average(average, model, settings.ema, step)

            if step % settings.log_every == 0 or step == steps:
                now = time.perf_counter()
                done = settings.log_every if step % settings.log_every == 0 else step % settings.log_every
                speed = settings.batch * min(done, step - first_step) / (now - clock)
                left_out = float((batch.is_aligned == -100).float().mean())
                values = {k: float(v) for k, v in parts.items()}
                log.metrics(step, "train", {"loss": loss.item(), **values, "lr": rate, "left_out": left_out, "samples_per_s": speed})
                clock = now
            if step % settings.validate_every == 0 or step == steps:
                log.metrics(step, "val", validate(average or model, val_loader, recipe))
                clock = time.perf_counter()
            if step % settings.save_every == 0 or step == steps or stopping:
                save_checkpoint(out, average or model, model, optimizer, step, {})
                clock = time.perf_counter()
            if stopping:
                log.console.print(f"stopped by a signal at step {step}; --resume goes on from here")
                break
    minutes = (time.perf_counter() - started) / 60
    return {"run": str(out), "steps": step, "minutes": minutes, "parameters": facts["parameters"], **counts}


def run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """Return the run folder: `out`, else the first free runs/NAME-N (to resume: the newest run that has a training state)."""
    if out is None and resume:
        runs = sorted(Path("runs").glob("*/recipe.json"), key=lambda f: f.stat().st_mtime)
        if not runs:
            raise CheckpointError("no run under runs/ to resume; name one with --out")
        return runs[-1].parent
    if out is None:
        number = 1
        while (Path("runs") / f"{name}-{number}").exists():
            number += 1
        out = Path("runs") / f"{name}-{number}"
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: the folder is not empty; take another --out, or --resume to go on")
    return out


def precision(setting: str) -> str:
    """Return accelerate's name for a precision; ``auto`` = bf16 on a GPU that has it, else fp32."""
    if setting == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return {"fp32": "no"}.get(setting, setting)


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
    ecg = torch.from_numpy(loader.corpus.ecg(rows)).float().mul_(1e-3)
    ids = loader.corpus.report_id[rows]
    found = retrieval(
        model.encode_ecg(ecg).float().cpu().numpy(),
        model.encode_text([loader.corpus.reports[i] for i in ids]).float().cpu().numpy(),
        ids,
    )
    model.train(was_training)
    return sums | found


def refuse_other_recipe(out: Path, facts: dict[str, Any]) -> None:
    """Raise CheckpointError naming the differences where a run is resumed with another recipe or other shards."""
    try:
        before = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{out}: no recipe.json; this is not a run folder") from None
    old, new = flat(before["recipe"]), flat(facts["recipe"])
    changed = [f"{key}: {old.get(key)!r} → {new.get(key)!r}" for key in sorted(old | new) if old.get(key) != new.get(key)]
    if before["shards"] != facts["shards"]:
        changed.append(f"shards: {before['shards']} → {facts['shards']}")
    if changed:
        raise CheckpointError(f"{out}: cannot resume with another recipe ({'; '.join(changed)}); use the same, or another --out")


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested table as dotted keys."""
    items: dict[str, Any] = {}
    for key, value in table.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return items


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)


class StopRequest:
    """True once SIGTERM or SIGUSR1 has come: the loop then saves and ends cleanly (SLURM's preemption)."""

    def __init__(self) -> None:
        self.wanted = False
        for number in (signal.SIGTERM, getattr(signal, "SIGUSR1", None)):
            if number is not None:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self.wanted = True

    def __bool__(self) -> bool:
        return self.wanted
