"""How fast this machine trains, encodes, tunes and fits: a few real steps on made-up ECGs, told as what a whole run would take.

B pairs in a step, L text tokens, S samples, W encoder width, F features.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cmelt.config import ModelSettings, PretrainRecipe
from cmelt.errors import CmeltError
from cmelt.models.batch import IGNORE, Batch
from cmelt.models.cmelt import CMELT, ModelConfig
from cmelt.models.text_encoder import TextEncoder, resolve_sizes
from cmelt.objectives.ranks import Ranks
from cmelt.tasks.base import on_device
from cmelt.tasks.protocol import Folds, open_protocol
from cmelt.tasks.tune import Tuned
from cmelt.training.distributed import TrainingPass, precision
from cmelt.training.log import peak_memory_mb
from cmelt.training.negatives import report_embeddings
from cmelt.training.optim import adamw

LONG_S = 0.5
"""On a CPU the pairs of a tried step are doubled until it takes so long; on a GPU the recipe's batch is halved until it fits."""
TOKENS = 64
"""Length of the texts that are tried: few reports are longer."""
FITTED = 400
"""Rows that a classifier is fitted to."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What pre-training by a recipe would take on this machine, and how fast the recipe's ECG encoder is."""

    steps: int
    batch: int
    parameters: int
    device: str
    tried: int
    """Pairs in the step that was timed."""
    step_seconds: float
    """One step of the whole batch; over several ranks without what they tell one another."""
    memory_bytes: int
    """Of each process (on a GPU: of each GPU)."""
    disk_bytes: int
    """Training states, one being written, and the chosen model."""
    encode_seconds: float
    """One ECG through the frozen encoder."""
    tune_seconds: float
    """One ECG forward and backward through the encoder."""
    feature_bytes: int
    """What is kept of one ECG."""

    @property
    def seconds(self) -> float:
        """Return how long all steps take."""
        return self.steps * self.step_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the rates for machines."""
        return {"dry_run": True, **asdict(self), "seconds": self.seconds}

    def line(self) -> str:
        """Return the estimate in words."""
        lasts = f"{self.seconds / 3600:.1f} hours" if self.seconds >= 3600 else f"{self.seconds / 60:.0f} minutes"
        return (
            f"{self.parameters / 1e6:.1f} M parameters; {self.steps} steps of {self.batch} pairs: about {lasts}, "
            f"{self.memory_bytes / 1e9:.1f} GB of memory, {self.disk_bytes / 1e9:.2f} GB of disk, by steps of {self.tried} made-up pairs "
            f"made now on {self.device}; reading, validation and saving are not in it. Nothing was written."
        )


def measure(recipe: PretrainRecipe, fs_hz: float = 500.0, samples: int = 5000, ranks: int = 1) -> Rates:
    """Return what pre-training by `recipe` on ECGs of `samples` at `fs_hz` would take here, its batch divided over `ranks`.

    A few steps are made with random weights and noise, and nothing is written. Raises CmeltError where the model does not fit into
    this machine's memory, and what making the model raises.
    """
    model = blank_model(recipe, fs_hz, samples)
    count = sum(p.numel() for p in model.parameters())
    held = count * 4 * (4 + bool(recipe.train.ema))  # weights, gradients, two moments, and the weights' average
    if not torch.cuda.is_available() and held > memory_bytes():
        raise CmeltError(
            f"training {count / 1e6:.0f} M parameters takes {held / 1e9:.0f} GB before the first ECG, this machine has "
            f"{memory_bytes() / 1e9:.0f}; try it where it is to be trained, or take a smaller recipe"
        )
    before = 1e6 * peak_memory_mb()
    model = on_device(CMELT(model.config)).train()
    model.recompute_layers(recipe.train.recompute)
    share = -(-recipe.train.batch // ranks)
    tried, forward, update = try_steps(model, recipe, share)
    activations = max(0.0, 1e6 * peak_memory_mb() - before - held)
    state = count * 4 * (3 + bool(recipe.train.ema))
    encode, tune = try_encoder(model)
    return Rates(
        steps=recipe.train.steps,
        batch=recipe.train.batch,
        parameters=count,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else f"a CPU with {torch.get_num_threads()} threads",
        tried=tried,
        step_seconds=recipe.train.accumulate * forward * share / tried + update,
        memory_bytes=round(before + held + activations * share / tried),
        disk_bytes=(recipe.train.keep + 1) * state + count * 4,
        encode_seconds=encode,
        tune_seconds=tune,
        feature_bytes=4 * (model.config.width + model.config.ecg_width),
    )


def blank_model(recipe: PretrainRecipe, fs_hz: float, samples: int) -> CMELT:
    """Return the recipe's model without memory for its weights; no tokenizer is needed, and nothing is fetched where sizes are known."""
    settings = recipe.model.model_copy(update={"text_init": "random"})
    config = ModelConfig(**settings.model_dump(), fs_hz=fs_hz, samples=samples, text=resolve_sizes(settings, settings.tokenizer_vocab))
    with torch.device("meta"):
        return CMELT(config)


def try_steps(model: CMELT, recipe: PretrainRecipe, most: int) -> tuple[int, float, float]:
    """Return with how many pairs, at `most` so many, a step was tried, and the seconds of a forward and backward pass and of an update."""
    trained, optimizer = TrainingPass(model, recipe.objectives, Ranks()), adamw(model, recipe.optim)
    device = model.etm_head.weight.device.type
    kind = precision(recipe.train.precision)
    dtype = torch.float16 if kind == "fp16" else torch.bfloat16

    def forward(batch: Batch) -> None:
        with torch.autocast(device, dtype, enabled=kind != "no"):
            loss, _ = trained(batch)
        loss.backward()

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    pairs = most if device == "cuda" else min(2, most)
    while True:
        try:
            batch = noise_batch(model, pairs, min(TOKENS, model.config.max_text_tokens)).to(device)
            for _ in range(2):
                passed, updated = seconds(partial(forward, batch)), seconds(update)
            if pairs == most or device == "cuda" or passed > LONG_S:
                return pairs, passed, updated
            pairs = min(2 * pairs, most)
        except torch.OutOfMemoryError:
            if pairs == 1:
                raise CmeltError("one pair does not fit into this GPU's memory; set train.recompute=true, or take a larger GPU") from None
            pairs, most = pairs // 2, pairs // 2
            optimizer.zero_grad(set_to_none=True)


def try_encoder(model: CMELT) -> tuple[float, float]:
    """Return the seconds that one ECG takes through the frozen ECG encoder, and forward and backward through it."""
    device = model.etm_head.weight.device
    size = 64 if device.type == "cuda" else 4
    ecg = torch.randn(size, 12, model.config.samples, generator=torch.Generator().manual_seed(0))
    model.eval()
    encode = min(seconds(lambda: model.ecg_features(ecg)) for _ in range(2))
    tuned = Tuned(model, nn.Linear(model.config.ecg_width, 10)).train()
    there = ecg.to(device)

    def step() -> None:
        tuned(there).square().sum().backward()
        tuned.zero_grad(set_to_none=True)

    return encode / size, min(seconds(step) for _ in range(2)) / size


def fit_seconds(protocol: str, widths: tuple[int, int]) -> float:
    """Return the seconds that a probe by `protocol` takes for one training row and class, by one fit to made-up features of `widths`."""
    rng = np.random.default_rng(0)
    classes, half = 4, FITTED // 2
    truth = (rng.random((2 * FITTED, classes)) < 0.3).astype(np.int8)
    sets = {name: rng.normal(size=(len(truth), width)) + truth[:, :1] for name, width in zip(("embedding", "mean"), widths, strict=True)}
    rows = np.arange(len(truth))
    folds = Folds(rows[:FITTED], rows[FITTED : FITTED + half], rows[FITTED + half :])
    rules = open_protocol(protocol)
    return seconds(lambda: rules.fit(sets, truth, folds, folds.train, np.ones(classes, bool), 0)) / FITTED / classes


def report_seconds(how: str) -> tuple[float, int]:
    """Return the seconds that embedding one report by `how` (negatives.embeddings) takes, and the numbers it is embedded as.

    ``hf:NAME`` is tried with random weights. Raises CheckpointError where the sizes of that encoder are not to be had.
    """
    if not how.startswith("hf:"):
        texts = [f"sinus rhythm {n}. left axis deviation {n % 7}. rate {n % 90}." for n in range(2000)]
        return seconds(lambda: report_embeddings(texts, how)) / len(texts), report_embeddings(texts[:200], how).shape[1]
    settings = ModelSettings.model_validate({"text_encoder": how.removeprefix("hf:"), "text_init": "random"})
    encoder = TextEncoder(resolve_sizes(settings)).eval()
    ids, padding = torch.zeros(16, TOKENS, dtype=torch.int64), torch.zeros(16, TOKENS, dtype=torch.bool)
    with torch.inference_mode():
        return min(seconds(lambda: encoder(ids, padding)) for _ in range(2)) / len(ids), encoder.width


def noise_batch(model: CMELT, size: int, length: int, masked: float = 0.15) -> Batch:
    """Return `size` pairs of noise: ECGs, texts of `length` tokens of which a share is `masked`, half of the pairs aligned."""
    generator = torch.Generator().manual_seed(0)
    ecg = torch.randn(size, len(model.config.leads), model.config.samples, generator=generator)
    ids = torch.randint(3, model.config.text["vocab_size"], (size, length), generator=generator)
    scored = torch.rand(size, length, generator=generator) < masked
    scored[0, 0] = True
    rows = torch.arange(size)
    return Batch(
        ecg=ecg * (torch.rand(size, ecg.shape[1], 1, generator=generator) > 0.5),
        ecg_target=ecg,
        text_ids=torch.where(scored, 3, ids),
        text_padding=torch.zeros(size, length, dtype=torch.bool),
        mlm_labels=torch.where(scored, ids, IGNORE),
        mask_noise=torch.rand(size, model.ecg_token_count(), generator=generator),
        is_aligned=rows % 2,
        report_id=rows,
        text_report_id=rows,
        entities=torch.zeros(size, len(model.config.entities), dtype=torch.int8),
    )


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes; on a CPU no more than its processor time, so that what else the machine does is not counted."""
    wait()
    start, spent = time.perf_counter(), time.process_time()
    work()
    wait()
    took, spent = time.perf_counter() - start, time.process_time() - spent
    return took if torch.cuda.is_available() else min(took, spent)


def wait() -> None:
    """Wait until the GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_bytes() -> int:
    """Return this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
