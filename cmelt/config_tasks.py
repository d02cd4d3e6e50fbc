"""Recipes of trainings other than pre-training: of ``cmelt finetune``, and of ``cmelt generate train``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cmelt.config import OptimSettings, Settings


class TuneSettings(Settings):
    """How a pre-trained encoder is trained on labels."""

    epochs: int = Field(30, ge=1)
    """At most so many passes over the training labels."""
    batch: int = Field(64, ge=1)
    """Recordings of a step."""
    patience: int = Field(5, ge=1)
    """Epochs without a better validation AUC after which training stops."""
    layers: int = Field(-1, ge=-1)
    """How many of the ECG encoder's last transformer layers are trained; -1 = the whole encoder, 0 = only the head."""
    head_rate: float = Field(10.0, gt=0)
    """The head's learning rate as a multiple of the encoder's."""
    lead_prob: float = Field(0.0, ge=0, lt=1)
    """Probability with which each lead is hidden in training, as in pre-training."""
    seed: int = 0
    """Of the head's weights and the order."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """As in pre-training."""


class FinetuneRecipe(Settings):
    """What ``cmelt finetune`` does."""

    tune: TuneSettings = TuneSettings()
    optim: OptimSettings = OptimSettings(lr=1e-4, betas=(0.9, 0.98), schedule="cosine", warmup=0.1)


class WriterSettings(Settings):
    """The causal language model that reads ECG tokens and writes a report."""

    name: str = "llama"
    """``random``: a model type of Hugging Face (``llama``, ``gpt2``, …), made here; ``pretrained``: a hub name, a local path, or
    the folder ``writer`` of a run, to go on from."""
    init: Literal["random", "pretrained"] = "random"
    """Whether the model begins at random, in sizes of ``config``, or with published weights."""
    config: dict[str, int | float | str | bool] = Field({})
    """Sizes of a model made here, by the names of its own configuration."""
    text_vocab: int = Field(1000, ge=50)
    """The size of the report tokenizer that is trained on the training split, for a model made here."""
    shapes: bool = True
    """ECG tokens that look alike begin with embeddings that are alike; else at random (published)."""
    max_tokens: int = Field(1024, ge=16)
    """Room for ECG, marks and report; what an ECG has more is cut at its end, and counted."""


class PairSettings(Settings):
    """Which recordings are learnt from, and how much of each."""

    seconds: float = Field(10.0, gt=0)
    """So much of every lead, from the middle of the recording; all of one that is shorter."""
    text_tokens: int = Field(64, ge=4)
    """Tokens of a report that are learnt, and written at most."""
    where: str = ""
    """Filter of the training split by index columns, as in pre-training; '' = all of it."""
    leaks: Literal["drop", "refuse", "keep"] = "drop"
    """What becomes of a training sample whose recording is held out in any of the given folders."""
    min_words: int = Field(1, ge=1)
    """Training samples whose report has fewer words are left out, and counted."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """Share of each data set (its name in the manifest) in every batch; {} = every sample exactly once an epoch."""
    shuffle_reports: int = Field(0, ge=0)
    """A control, for what the ECG is worth: other than 0, every training report goes to another sample, by this seed."""


class WritingSettings(Settings):
    """The loop."""

    steps: int = Field(1000, ge=1)
    """Steps of the optimiser."""
    batch: int = Field(32, ge=1)
    """Recordings of a step, over all ranks together."""
    seed: int = 0
    """Of weights, order and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto = bf16 on a GPU that has it, else fp32."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of metrics.jsonl."""
    validate_every: int = Field(200, ge=1)
    """Steps between validations; the model that is kept is the one with the lowest loss on the validation split."""
    validate_batches: int = Field(16, ge=1)
    """At most so many batches of the validation split are read each time."""
    save_every: int = Field(200, ge=1)
    """Steps between training states."""
    keep: int = Field(1, ge=1)
    """How many training states are kept, the newest."""


class GenerateRecipe(Settings):
    """What ``cmelt generate train`` does."""

    model: WriterSettings = WriterSettings()
    data: PairSettings = PairSettings()
    optim: OptimSettings = OptimSettings(lr=1e-3, betas=(0.9, 0.98), schedule="cosine", warmup=0.05)
    train: WritingSettings = WritingSettings()
