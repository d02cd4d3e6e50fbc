"""C-MELT: one model of ECGs and reports (arXiv 2410.02131). `forward` is the training pass; `encode_ecg` and `encode_text` embed.

B batch, S samples, T ECG tokens, K kept ECG tokens, L text tokens, D width, W encoder width, E findings. Masks: True = hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from cmelt.config import ModelSettings, SignalSettings
from cmelt.errors import CheckpointError, InputError, RecipeError
from cmelt.models import open_encoder, store
from cmelt.models.batch import IGNORE, Batch, Outputs
from cmelt.models.conditioning import as_ecg
from cmelt.models.fusion import Fusion
from cmelt.models.heads import Contrast, EntityHead, MEMDecoder, MLMHead, Pooler, mean_token
from cmelt.models.layers import init_weights
from cmelt.models.masking import mask_ecg_tokens
from cmelt.models.text_encoder import TextEncoder, load_pretrained, load_tokenizer, resolve_sizes
from cmelt.record import LEADS
from cmelt.text.entities import entity_shares, known_entities
from cmelt.text.tokenizer import ReportTokenizer

LOSSES = frozenset({"mlm", "mem", "etm", "ets", "entities"})

__all__ = ["CMELT", "LOSSES", "Batch", "ModelConfig", "Outputs"]


class ModelConfig(ModelSettings):
    """Everything that a checkpoint needs to be built again: the recipe's model table, the input, the resolved text encoder."""

    format_version: Literal[1] = 1
    leads: tuple[str, ...] = LEADS
    """The lead order that the weights expect; inputs come in the order of LEADS and are permuted by name."""
    fs_hz: float = Field(gt=0)
    samples: int = Field(gt=0)
    signal: SignalSettings | None = None
    """How the training data were conditioned, where known."""
    text: dict[str, Any]
    """The text encoder's Hugging Face config, with its ``model_type``."""
    mlm_vocab: int = 0
    """How many tokens the MLM head tells apart; 0 = as many as the text encoder embeds."""
    entities: tuple[str, ...] = ()
    """The findings that the entity queries stand for, by their codes, in order: all that are known, where there are heads."""

    @model_validator(mode="before")
    @classmethod
    def _all_known(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Name the findings of a new model; one that was saved has them in its config."""
        asks = given.get("entity_heads") and not given.get("entities")
        return given | {"entities": [entity.code for entity in known_entities()]} if asks else given

    @property
    def conditioning(self) -> SignalSettings:
        """How raw ECGs are to be conditioned: as the training data were, or, where that is not known, resampled and cut only."""
        plain = {"highpass_hz": 0, "lowpass_hz": 0, "notch_hz": 0}
        made = SignalSettings.model_validate(plain) if self.signal is None else self.signal
        return made.model_copy(update={"fs_hz": self.fs_hz, "duration_s": self.samples / self.fs_hz})


class CMELT(nn.Module, PyTorchModelHubMixin, library_name="cmelt", tags=["ecg", "electrocardiogram", "multimodal"]):
    """An ECG encoder, a text encoder, their fusion, and the heads of four losses."""

    def __init__(self, config: ModelConfig, tokenizer: ReportTokenizer | None = None) -> None:
        """Make a randomly initialised model of `config`; see `create`. Raises RecipeError for sizes that do not fit."""
        super().__init__()
        check_sizes(config)
        self.config = config
        self.tokenizer = tokenizer
        width = config.width
        self.ecg_encoder = open_encoder(config)
        if int(self.ecg_token_count() * (1 - config.mem_prob)) < 1:
            raise RecipeError(
                f"model.mem_prob = {config.mem_prob} keeps none of the {self.ecg_token_count()} tokens of {config.samples} samples"
            )
        self.text_encoder = TextEncoder(config.text)
        self.text_encoder.freeze(config.text_frozen)
        self.ecg_project = nn.Linear(config.ecg_width, width)
        self.text_project = nn.Linear(self.text_encoder.width, width)
        self.ecg_pooler, self.text_pooler = Pooler(width), Pooler(width)
        self.fusion = Fusion(width, config.fusion_heads, config.fusion_pairs, config.fusion_dropout)
        self.fused_ecg_pooler, self.fused_text_pooler = Pooler(width), Pooler(width)
        self.mlm_head = MLMHead(width, config.mlm_vocab or config.text["vocab_size"])
        patch = self.ecg_encoder.together * self.ecg_encoder.token_samples
        self.mem_decoder = MEMDecoder(width, config.decoder_width, config.decoder_blocks, config.decoder_heads, patch)
        self.etm_head = nn.Linear(2 * width, 2)
        self.contrast = Contrast()
        for part in (self.ecg_project, self.text_project, self.etm_head):
            init_weights(part, width)
        heads = config.entity_heads
        self.entity_head = EntityHead(width, heads, len(config.entities), config.entity_read) if heads else None

    @classmethod
    def create(
        cls,
        settings: ModelSettings,
        fs_hz: float,
        samples: int,
        reports: Sequence[str] | None = None,
        seed: int = 0,
        signal: SignalSettings | None = None,
    ) -> CMELT:
        """Return a new model for ECGs of `samples` at `fs_hz`, its weights drawn with `seed`, the global generator left alone.

        `reports` (the training split's) are what a tokenizer is learnt from, where the settings ask for that. Raises
        CheckpointError where a text encoder or tokenizer is not to be had, RecipeError for settings that do not fit.
        """
        if settings.text_encoder == "t5":
            settings = settings.model_copy(update={"text_init": "random"})  # there is nothing that it could start from
        pretrained = settings.text_init == "pretrained"
        own = settings.tokenizer == "reports" or (not settings.tokenizer and settings.text_encoder == "t5")
        if own and pretrained:
            raise RecipeError("model.tokenizer = 'reports' does not fit a pre-trained text encoder; set model.text_init=random or drop it")
        if own and not reports:
            raise RecipeError("model.tokenizer = 'reports' needs the training split's reports, and there are none")
        text = resolve_sizes(settings) if pretrained else {}
        if own:
            tokenizer = ReportTokenizer.train(reports or (), settings.tokenizer_vocab, settings.max_text_tokens)
        else:
            tokenizer = load_tokenizer(settings.tokenizer or settings.text_encoder, settings.max_text_tokens)
        text = text or resolve_sizes(settings, tokenizer.vocab_size)
        if tokenizer.vocab_size > text["vocab_size"]:
            raise RecipeError(
                f"model.tokenizer has {tokenizer.vocab_size} tokens, but the text encoder {settings.text_encoder!r} knows "
                f"{text['vocab_size']}; take the encoder's own"
            )
        config = ModelConfig(**settings.model_dump(), fs_hz=fs_hz, samples=samples, signal=signal, text=text)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, tokenizer)
        if pretrained:
            load_pretrained(model.text_encoder, settings.text_encoder)
            model.text_encoder.freeze(settings.text_frozen)
        if model.entity_head and reports:
            model.entity_head.expect(torch.from_numpy(entity_shares(reports)))
        return model

    def ecg_token_count(self, samples: int | None = None) -> int:
        """Return T, the number of tokens of an ECG of `samples` (default: the length the model was made for)."""
        return self.ecg_encoder.count(self.config.samples if samples is None else samples)

    def recompute_layers(self, again: bool = True) -> None:
        """Keep only the layers' inputs in training and compute the rest again: less memory, about a third more time."""
        for part in self.modules():
            if hasattr(part, "again"):
                setattr(part, "again", again)  # noqa: B010 - modules have no such attribute in their type
        for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):  # a Hugging Face encoder's new and old name
            if again and hasattr(self.text_encoder.model, name):
                getattr(self.text_encoder.model, name)()
                break

    @property
    def lead_order(self) -> list[int] | None:
        """Where each lead that the weights expect stands in LEADS; None where the order is the same."""
        order = [LEADS.index(lead) for lead in self.config.leads]
        return None if order == list(range(len(LEADS))) else order

    def permuted(self, ecg: Tensor) -> Tensor:
        """Return `ecg` (B, 12, S), in the order of LEADS, in the order that the weights expect."""
        return ecg if self.lead_order is None else ecg[:, self.lead_order]

    def forward(self, batch: Batch, wanted: Collection[str] = LOSSES) -> Outputs:
        """Return what the `wanted` losses read, from one pass over the kept ECG tokens and the masked text of `batch`."""
        signal, encoder = self.permuted(batch.ecg), self.ecg_encoder
        keep, removed, hidden = mask_ecg_tokens(batch.mask_noise, self.config.mem_prob, encoder.present(signal))
        ecg = self.ecg_project(encoder.encode(encoder.tokens(signal, keep), hidden))  # (B, 1 + K, D)
        out = Outputs(removed=removed)
        if "entities" in wanted and self.entity_head is not None:
            out.entity_logits = self.entity_head(ecg, hidden)
        if set(wanted) <= {"entities"}:
            return out  # nothing reads the text
        text = self.text_project(self.text_encoder(batch.text_ids, batch.text_padding))  # (B, L, D)
        if "ets" in wanted:
            out.ecg_pooled, out.text_pooled = self.pool_ecg(ecg, hidden), self.pool_text(text, batch.text_padding)
        if {"mlm", "mem", "etm"} & set(wanted):
            self._fuse(ecg, hidden, text, keep, batch, wanted, out)
        return out

    def _fuse(
        self, ecg: Tensor, hidden: Tensor | None, text: Tensor, keep: Tensor, batch: Batch, wanted: Collection[str], out: Outputs
    ) -> None:
        """Fuse `ecg` (B, K, D), some of it `hidden` (B, K), and `text` (B, L, D), and fill in what the losses after the fusion read.

        The last pair computes only what is read of it: the first token of either side, and the masked text tokens.
        """
        scored = batch.mlm_labels != IGNORE if "mlm" in wanted else torch.zeros_like(batch.text_padding)
        most = int(scored.sum(dim=1).max())
        places = scored.int().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, most): the masked ones first, in order
        first = places.new_zeros(len(places), 1)
        text_at: Tensor | None = torch.cat([first, places], dim=1)
        mem_layer, pairs = self.config.mem_layer, self.config.fusion_pairs
        ecg_at = None if "mem" in wanted and mem_layer == -1 else first
        if not {"mlm", "etm"} & set(wanted) and mem_layer >= 0:
            pairs, text_at, ecg_at = mem_layer, None, None  # nothing reads the pairs behind the decoder's
        text, ecg, mem = self.fusion(text, ecg, batch.text_padding, text_at, ecg_at, mem_layer, pairs, hidden)
        if "mlm" in wanted:
            out.mlm_logits = self.mlm_head(text[:, 1:][scored.gather(1, places)])
        if "mem" in wanted:
            assert out.removed is not None
            codes = self.ecg_encoder.codes(batch.mask_noise.shape[1], self.config.decoder_width, mem.device)
            out.mem_patches = self.mem_decoder(mem, keep, codes, out.removed, hidden)
        if "etm" in wanted:
            pair = torch.cat([self.fused_text_pooler(text[:, 0]), self.fused_ecg_pooler(ecg[:, 0])], dim=-1)
            out.etm_logits = self.etm_head(pair)

    def encoded(self, ecg: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return [CLS] and the encoded tokens (B, 1 + T, W) of `ecg` (B, 12, S) in mV, leads in the order of LEADS, nothing masked.

        Also which are hidden, (B, 1 + T) bool, being of leads that are absent; None = none.
        """
        ecg = self.permuted(ecg)
        present = self.ecg_encoder.present(ecg)
        hidden = None if present is None else torch.cat([torch.zeros_like(present[:, :1]), ~present], dim=1)
        return self.ecg_encoder.encode(self.ecg_encoder.tokens(ecg), hidden), hidden

    def pool_ecg(self, tokens: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the embedding (B, D) of projected ECG tokens (B, 1 + K, D): from [CLS], or from the mean of the others not `hidden`."""
        return self.ecg_pooler(mean_token(tokens, hidden) if self.config.pool == "mean" else tokens[:, 0])

    def pool_text(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Return the embedding (B, D) of projected text tokens (B, L, D): from the first, or from the mean without `padding`."""
        if self.config.pool == "cls":
            return self.text_pooler(tokens[:, 0])
        seen = (~padding).to(tokens.dtype)[:, :, None]
        return self.text_pooler((tokens * seen).sum(dim=1) / seen.sum(dim=1))

    def encode_ecg(
        self,
        ecg: NDArray[np.floating] | Tensor,
        fs_hz: float | None = None,
        leads: Sequence[str] | None = None,
        mains_hz: float = 50.0,
        batch: int = 64,
    ) -> Tensor:
        """Return embeddings (B, D) of `ecg` (12, S) or (B, 12, S) in mV; in evaluation mode, nothing masked, without gradients.

        Without `fs_hz` it is taken as the shards have it. With `fs_hz` it is raw, and conditioned as the checkpoint's data were:
        filtered, resampled, cut or padded. With `leads` the channels are put in order by name, and absent limb leads derived;
        others may be absent where the encoder takes any leads (``lead-wise``).
        Raises InputError for other shapes, unknown leads and NaN; warns of values too large for mV.
        """
        return self.ecg_features(ecg, fs_hz, leads, mains_hz, batch)[0]

    def ecg_features(
        self,
        ecg: NDArray[np.floating] | Tensor,
        fs_hz: float | None = None,
        leads: Sequence[str] | None = None,
        mains_hz: float = 50.0,
        batch: int = 64,
    ) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, D), and the mean of the encoded tokens without [CLS] (B, W); arguments as in `encode_ecg`."""

        def work(part: Tensor) -> tuple[Tensor, Tensor]:
            encoded, hidden = self.encoded(part)  # (B, 1 + T, W)
            return self.pool_ecg(self.ecg_project(encoded), hidden), mean_token(encoded, hidden)

        embedding, mean = self._in_batches(work, (self.signal(ecg, fs_hz, leads, mains_hz),), batch)
        return embedding, mean

    def entity_probabilities(
        self,
        ecg: NDArray[np.floating] | Tensor,
        fs_hz: float | None = None,
        leads: Sequence[str] | None = None,
        mains_hz: float = 50.0,
        batch: int = 64,
    ) -> Tensor:
        """Return how probable each finding of ``config.entities`` is, (B, E); arguments as in `encode_ecg`.

        Raises CheckpointError for a model without entity queries.
        """
        head = self.require_entities()

        def work(part: Tensor) -> tuple[Tensor]:
            encoded, hidden = self.encoded(part)
            return (head(self.ecg_project(encoded), hidden).float().sigmoid(),)

        return self._in_batches(work, (self.signal(ecg, fs_hz, leads, mains_hz),), batch)[0]

    def encode_text(self, texts: str | Sequence[str], batch: int = 256) -> Tensor:
        """Return embeddings (N, D) of one or more texts; in evaluation mode, nothing masked, without gradients."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return self.etm_head.weight.new_zeros(0, self.config.width)
        ids, lengths = self.require_tokenizer().encode_padded(texts)
        padding = np.arange(ids.shape[1])[None, :] >= lengths[:, None]

        def work(part: Tensor, hidden: Tensor) -> tuple[Tensor]:
            length = int((~hidden).sum(dim=1).max())
            part, hidden = part[:, :length], hidden[:, :length]
            return (self.pool_text(self.text_project(self.text_encoder(part, hidden)), hidden),)

        return self._in_batches(work, (torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(padding)), batch)[0]

    def signal(self, ecg: NDArray[np.floating] | Tensor, fs_hz: float | None, leads: Sequence[str] | None, mains_hz: float) -> Tensor:
        """Return `ecg` as (B, 12, S) of at least one token; arguments and errors as in `encode_ecg`."""
        signal = as_ecg(ecg, self.config.conditioning, fs_hz, leads, mains_hz, self.ecg_encoder.any_leads)
        if self.ecg_token_count(signal.shape[2]) < 1:
            raise InputError(f"an ECG of {signal.shape[2]} samples is too short: one token needs {self.ecg_encoder.token_samples}")
        return signal

    def require_entities(self) -> EntityHead:
        """Return the entity queries; raises CheckpointError for a model that was made without them."""
        if self.entity_head is None:
            raise CheckpointError("this model has no entity queries; pre-train with model.entity_heads and objectives.entities above 0")
        return self.entity_head

    def require_tokenizer(self) -> ReportTokenizer:
        """Return the tokenizer; raises CheckpointError for a model that was made or imported without one."""
        if self.tokenizer is None:
            raise CheckpointError("this model has no tokenizer; import it with one, or set model.tokenizer = ReportTokenizer.load(...)")
        return self.tokenizer

    def _in_batches(self, work: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], batch: int) -> tuple[Tensor, ...]:
        """Return what `work` makes of slices of `inputs` along axis 0, joined, computed in evaluation mode without gradients."""
        device, was_training = self.etm_head.weight.device, self.training
        self.eval()
        try:
            with torch.inference_mode():
                rows = range(0, max(1, len(inputs[0])), batch)
                parts = [work(*(x[start : start + batch].to(device) for x in inputs)) for start in rows]
        finally:
            self.train(was_training)
        return tuple(torch.cat(column).clone() for column in zip(*parts, strict=True))  # a clone made outside may enter autograd

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, config, tokenizer and card into `save_directory` (called by the mixin's save_pretrained)."""
        store.write(self, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, source: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None, token: str | bool | None = None
    ) -> CMELT:
        """Return the checkpoint in folder `source`, or of that name on the Hugging Face hub, in evaluation mode on the CPU.

        A folder is read without the network. Raises CheckpointError where files are missing, damaged or do not fit.
        """
        folder = store.folder_of(source, revision=revision, cache_dir=cache_dir, token=token)
        try:
            config = ModelConfig.model_validate(store.read_config(folder))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise CheckpointError(f"{folder / store.CONFIG}: {where}: {first['msg'].lower()}") from None
        return store.fill(cls(config, store.read_tokenizer(folder, config.max_text_tokens)), folder)


def check_sizes(config: ModelConfig) -> None:
    """Raise RecipeError, naming the key, where sizes of `config` do not fit one another."""
    divisions = {
        "ecg_heads": config.ecg_width,
        "position_groups": config.ecg_width,
        "fusion_heads": config.width,
        "decoder_heads": config.decoder_width,
        **({"entity_heads": config.width} if config.entity_heads else {}),
    }
    for key, width in divisions.items():
        if width % getattr(config, key):
            raise RecipeError(f"model.{key} = {getattr(config, key)} does not divide {width}")
    if not config.conv_layers or any(stride > kernel for _, kernel, stride in config.conv_layers):
        raise RecipeError("model.conv_layers: at least one convolution, and no stride above its kernel")
    if not -1 <= config.mem_layer < config.fusion_pairs:
        raise RecipeError(f"model.mem_layer = {config.mem_layer} is not among the {config.fusion_pairs} fusion pairs, nor -1 (last output)")
    if sorted(config.leads) != sorted(LEADS):
        raise RecipeError(f"leads: {', '.join(config.leads)}; wanted are the twelve of {', '.join(LEADS)} in any order")
