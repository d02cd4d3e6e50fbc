"""Train a language model to write reports from ECG tokens, the way of ECG-Byte: the loop, readable top to bottom; and one report written.

One step: B recordings, each as tokens with its report behind; the mean of −log p over the tokens of the reports; AdamW.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cmelt.config import SignalSettings, did_you_mean
from cmelt.config_tasks import GenerateRecipe
from cmelt.errors import CmeltError, InputError, ShardError
from cmelt.files import write_json
from cmelt.models.writer import Ids, Reading, Writer
from cmelt.record import LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tasks.writing import WRITER, findings, load_writer
from cmelt.tokens.ecg import ECGTokenizer
from cmelt.training.checkpoint import RECIPE, Checkpoints, load_training, states
from cmelt.training.distributed import StopRequest, everywhere, precision
from cmelt.training.log import Pace, RunLog
from cmelt.training.optim import adamw, learning_rate
from cmelt.training.pairs import Pairs, corpus_of
from cmelt.training.resume import differences, facts_of, read_facts, run_folder

WARNING = "not for clinical use"


class WritingPass(nn.Module):
    """A writer with its loss: one module, one pass, as DDP wants it."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.writer = writer

    def forward(self, prompts: Sequence[Ids], texts: Sequence[Ids], share: float) -> Tensor:
        """Return the summed loss of this rank's rows times `share`."""
        return self.writer.loss(prompts, texts)[0] * share


def train(
    shards: Sequence[Path | str],
    tokenizer: Path,
    recipe: GenerateRecipe,
    out: Path | None = None,
    name: str = "generate",
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train on the training split of `shards`, in tokens of the ECG tokenizer `tokenizer`, and leave a run folder; return its summary.

    The loss on the validation split chooses the model; no test row is read. With `resume`, goes on from the newest training state of
    `out` and gives the numbers of an undisturbed run. Raises ShardError, CheckpointError, OutputError, RecipeError or CmeltError.
    """
    settings = recipe.train
    out = run_folder(out, name, resume)
    before = read_facts(out) if resume else None
    state = next(reversed(states(out / WRITER)), None) if resume else None
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision(settings.precision))
    rank, world, is_main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process

    # What goes in: recordings, tokenizers, model, optimiser; all alike on every rank.
    corpus, held_out = corpus_of(shards, "train", recipe), corpus_of(shards, "val", recipe)
    ecg = ECGTokenizer.from_folder(tokenizer)
    if state:
        writer = Writer.from_pretrained(state).train()
    else:
        conditioning = SignalSettings.model_validate(corpus.folders[0].manifest["recipe"].get("signal", {})).model_dump(mode="json")
        reading = Reading(recipe.data.seconds, recipe.model.max_tokens, recipe.data.text_tokens, conditioning)
        writer = Writer.create(recipe.model, ecg, corpus.reports, reading, settings.seed).train()
    pairs = Pairs(corpus, writer, recipe)
    validated = Pairs(held_out, writer, recipe, weighted=False).in_turn(settings.validate_batches)
    counts = {"train": len(corpus), "val": len(held_out), **{name: n for name, n in corpus.facts().items() if name != "samples"}}
    facts = facts_of(recipe, corpus.folders, counts, sum(p.numel() for p in writer.parameters())) | {"tokenizer": ecg.fingerprint}
    changed = differences(out, before, facts, GenerateRecipe) if before else []
    if before and before["tokenizer"] != facts["tokenizer"]:
        raise CmeltError(f"{out} was begun with another tokenizer than {tokenizer}; --resume wants the one that it has")
    trained, optimizer = accelerator.prepare(WritingPass(writer), adamw(writer, recipe.optim))
    progress: dict[str, Any] = load_training(state, writer, optimizer) if state else {"step": 0, "best": None}
    step: int = progress["step"]
    best: dict[str, Any] | None = progress["best"]
    if is_main:
        history = [*(before or {}).get("history", []), {"step": step, "ranks": world, "changed": changed}]
        write_json(out / RECIPE, facts | {"history": history})

    def batches() -> Iterator[tuple[list[Ids], list[Ids], int]]:
        for number in range(step, settings.steps):
            yield pairs.batch(number, rank, world)

    started, first_step, stopped, pace = time.perf_counter(), step, False, Pace()
    kept = Checkpoints(out / WRITER, settings.keep)
    with StopRequest() as stopping, RunLog(out if is_main else None, settings.steps, step, quiet) as log:
        for prompts, texts, tokens in pace.batches(batches()):
            rate = learning_rate(step, settings.steps, recipe.optim)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(settings.seed * 1_000_003 + step + (rank << 40))  # dropout: nothing to save
            with accelerator.autocast():
                loss = trained(prompts, texts, world / tokens)
            accelerator.backward(loss)
            if recipe.optim.clip:
                accelerator.clip_grad_norm_(trained.parameters(), recipe.optim.clip)
            told = everywhere({"loss": loss.detach(), "stop": loss.new_tensor(float(bool(stopping)))})
            if not math.isfinite(told["loss"]):
                raise CmeltError(f"step {step}: the loss is {told['loss']}; lower optim.lr")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            pace.samples += settings.batch
            stopped = told["stop"] > 0
            last = stopped or step == settings.steps
            if not is_main:
                if last:
                    break
                continue
            if step % settings.log_every == 0 or last:
                log.metrics(step, "train", {"loss": told["loss"], "lr": rate, **pace.told()})
            with pace.apart():
                if step % settings.validate_every == 0 or step == settings.steps:
                    value = validate(writer, validated)
                    log.metrics(step, "val", {"loss": value})
                    if best is None or value < best["loss"]:
                        best = {"step": step, "loss": value}
                        kept.publish(writer, best)
                if step % settings.save_every == 0 or last:
                    log.sync()
                    kept.save(writer, None, optimizer, {"step": step, "best": best})
            if last:
                break
        kept.close()
        if pairs.cut:
            log.say(f"{pairs.cut} recordings had more tokens than model.max_tokens leaves room for: their ends were not read")
        if stopped:
            log.say(f"stopped by a signal at step {step}; --resume goes on from here")
    accelerator.end_training()
    minutes = (time.perf_counter() - started) / 60
    summary = {"run": str(out), "steps": step, "first_step": first_step, "minutes": minutes, "stopped": stopped, "best": best}
    return summary | {"cut": pairs.cut, "parameters": facts["parameters"], **counts}


@torch.no_grad()
def validate(writer: Writer, batches: Sequence[tuple[list[Ids], list[Ids]]]) -> float:
    """Return the mean of −log p over the tokens of the reports."""
    writer.eval()
    found = [writer.loss(prompts, texts) for prompts, texts in batches]
    writer.train()
    return sum(float(loss) for loss, _ in found) / sum(count for _, count in found)


def report(
    recording: Path | None = None,
    run: Path | None = None,
    *,
    shards: Path | str | None = None,
    key: str = "",
    beams: int = 4,
    mains_hz: float = 50.0,
) -> dict[str, Any]:
    """Return what run `run` (default: the newest) writes about one ECG: a `recording` in a file, or record `key` of shard folder `shards`.

    ``reports`` are the `beams` likeliest that were found, the first is the answer; ``findings`` what it says to be present. Raises
    InputError, ShardError or CheckpointError.
    """
    folder, writer = load_writer(run)
    if (recording is None) == (shards is None):
        raise InputError("name one recording: a file, or --shards and --key")
    if shards is None:
        from cmelt.predict import see  # it brings every format that hospitals export

        seen = see(Path(str(recording)), writer.conditioning, mains_hz)
        signal, leads, fs_hz, true = seen.signal_mv, tuple(LEADS), seen.fs_hz, ""
    else:
        opened = ShardFolder(shards)
        keys = list(opened.column("key"))
        if key not in keys:
            raise ShardError(f"{shards} has no record {key!r}{did_you_mean(key, keys)}; its keys stand in index.parquet")
        row = keys.index(key)
        signal, leads, fs_hz = opened.ecg_mv([row])[0], opened.leads, opened.fs_hz
        true = str(opened.table(["report"]).column(0)[row].as_py() or "")
    prompts = writer.prompts(np.asarray(signal)[None], leads, fs_hz)
    (written,) = writer.write(prompts, beams, beams)
    told = {"recording": str(recording or key), "run": str(folder), "use": WARNING, "tokens": len(prompts[0])}
    return told | {"report": written[0], "reports": written, "findings": findings(written[0]), "true": true}
