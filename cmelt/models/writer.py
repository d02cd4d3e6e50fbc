"""A model that writes reports: a causal language model of Hugging Face, ECG tokens beside its own (ECG-Byte, arXiv 2412.14373).

What it reads is ``<ecg> <I> tokens … <V6> tokens <report>``, and it goes on with the report's tokens and ``<end>``. Ids: the model's own
tokens first, then END, three more marks, one mark a lead, then those of the ECG tokenizer, in its order. To the embedding of an ECG token
that of its lead's mark is added: a wave means one thing in V1 and another in V6.

B batch, P tokens of a prompt, T tokens of a report with its END, V ids that may be written: text and END.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.utils import logging

from cmelt import __version__
from cmelt.config import SignalSettings, did_you_mean
from cmelt.config_tasks import WriterSettings
from cmelt.errors import CheckpointError, RecipeError
from cmelt.models.batch import IGNORE
from cmelt.text.tokenizer import ReportTokenizer, hub_is_away, plain, tokenizer_files
from cmelt.tokens.ecg import ECGTokenizer
from cmelt.tokens.view import view

FACTS, REPORTS = "writer.json", "report_tokenizer.json"
"""What is beside Hugging Face's own files and those of the ECG tokenizer."""
FORMAT_VERSION = 1
MARKS = 4
"""END, then the beginnings of the ECG and of the report, and padding."""
POINTS = 8
"""Values of a token's waveform that make its first embedding."""
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Reading:
    """What is read of an ECG and written at most: seconds of every lead, tokens in all, tokens of a report; how ECGs were conditioned."""

    seconds: float
    max_tokens: int
    text_tokens: int
    conditioning: dict[str, Any]


class OnlyText(LogitsProcessor):
    """Lets a model write the first `count` ids only: no ECG tokens, no marks."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `scores` (B, ids), minus infinity beyond those ids."""
        scores[:, self.count :] = -torch.inf
        return scores


class Writer(nn.Module):
    """A causal language model, the tokenizers of what it reads and writes, and how much of it there may be."""

    def __init__(self, model: PreTrainedModel, ecg: ECGTokenizer, reports: Tokenizer, end: int, reading: Reading) -> None:
        """Take a `model` that embeds all ids; `end` is END's, one behind the text's."""
        super().__init__()
        self.model, self.ecg, self.reports, self.end, self.reading = model, ecg, reports, end, reading
        self.lead_mark = end + MARKS
        self.first_ecg = self.lead_mark + len(ecg.scale.leads)
        takes = inspect.signature(model.forward).parameters
        self.takes_places, self.takes_last = "position_ids" in takes, "logits_to_keep" in takes

    @classmethod
    def create(cls, settings: WriterSettings, ecg: ECGTokenizer, reports: Sequence[str], reading: Reading, seed: int) -> Writer:
        """Return the model that `settings` name; one made here begins by `seed`, with a tokenizer of `reports`.

        Raises CheckpointError where a model is not to be had, RecipeError for an unknown type or size.
        """
        if (Path(settings.name) / FACTS).is_file():
            return cls.from_pretrained(Path(settings.name))._going_on(ecg, reading)
        more = MARKS + len(ecg.scale.leads) + ecg.vocab_size
        torch.manual_seed(seed)
        if settings.init == "pretrained":
            model, backend = _load(settings.name)
            end = max(backend.get_vocab_size(), model.config.vocab_size)
            model.resize_token_embeddings(end + more, mean_resizing=False)
            room = getattr(model.config, "max_position_embeddings", reading.max_tokens)
            reading = Reading(**(asdict(reading) | {"max_tokens": min(room, reading.max_tokens)}))
        else:
            backend = ReportTokenizer.train(reports, settings.text_vocab, reading.text_tokens).backend
            backend.no_truncation()
            end = backend.get_vocab_size()
            model = _made(settings, end + more, reading.max_tokens)
        writer = cls(model, ecg, backend, end, reading)
        model.config.eos_token_id, model.config.pad_token_id, model.config.bos_token_id = end, end + 3, None
        if settings.shapes:
            _begin_by_shape(model.get_input_embeddings(), writer.first_ecg, ecg, seed)
        return writer

    def _going_on(self, ecg: ECGTokenizer, reading: Reading) -> Writer:
        """Return this writer, to learn from other recordings; raises CheckpointError where their tokens are of another tokenizer."""
        if ecg.fingerprint != self.ecg.fingerprint:
            raise CheckpointError("the model to begin with reads tokens of another ECG tokenizer; give --tokenizer the one that it has")
        self.reading = Reading(**(asdict(reading) | {"max_tokens": min(self.reading.max_tokens, reading.max_tokens)}))
        return self

    @classmethod
    def from_pretrained(cls, folder: Path) -> Writer:
        """Load what `save_pretrained` wrote; raises CheckpointError."""
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            version, end, reading = facts["format_version"], int(facts["end"]), Reading(**facts["reading"])
        except OSError:
            raise CheckpointError(f"{folder}: no {FACTS}: no model that writes reports; make one with cmelt generate train") from None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / FACTS}: damaged ({error}); take the checkpoint from its source again") from None
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder / FACTS}: format {version}, and this cmelt reads {FORMAT_VERSION}; use the version that made it"
            )
        ecg = ECGTokenizer.from_folder(folder)
        try:
            reports = Tokenizer.from_buffer((folder / REPORTS).read_bytes())
            with _without_bars():
                model = AutoModelForCausalLM.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, attn_implementation="sdpa"
                )
        except Exception as error:  # noqa: BLE001 - both libraries raise plain Exception for damaged files
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{folder}: does not load ({reason}); take the checkpoint from its source again") from None
        return cls(model, ecg, reports, end, reading).eval()

    def save_pretrained(self, folder: Path) -> None:
        """Write weights, config, both tokenizers and, last, what is read and written, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        with _without_bars():
            self.model.save_pretrained(folder)
        self.ecg.save(folder)
        self.reports.save(str(folder / REPORTS))
        facts = {"format_version": FORMAT_VERSION, "cmelt_version": __version__, "end": self.end, "reading": asdict(self.reading)}
        (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @property
    def device(self) -> torch.device:
        """Return where it is computed."""
        return self.model.device

    @property
    def conditioning(self) -> SignalSettings:
        """Return how the ECGs that it learnt from were conditioned."""
        return SignalSettings.model_validate(self.reading.conditioning)

    def prompts(self, ecg_mv: ArrayLike, leads: Sequence[str], fs_hz: float) -> list[Ids]:
        """Return what is read of each ECG of (N, L, S) in mV, with `leads` at `fs_hz`: ids (P,), as long as they are; raises InputError."""
        scale = self.ecg.scale
        seen = view(np.asarray(ecg_mv, np.float32), leads, fs_hz, scale.leads, scale.fs_hz)
        size = min(seen.shape[2], round(self.reading.seconds * scale.fs_hz))
        first = (seen.shape[2] - size) // 2
        return [self._marked(ids, size) for ids in self.ecg.encode(seen[:, :, first : first + size])]

    def _marked(self, ids: NDArray[np.int32], samples: int) -> Ids:
        """Return the token ids of an ECG of so many `samples` a lead as a prompt, a mark before each lead, uncut."""
        ends = self.ecg.ends(ids)
        starts = np.concatenate([[0], np.flatnonzero(ends % samples == 0)[:-1] + 1])
        marks = self.lead_mark + np.arange(len(starts))
        return np.concatenate([[self.end + 1], np.insert(ids + self.first_ecg, starts, marks), [self.end + 2]]).astype(np.int32)

    @property
    def room(self) -> int:
        """Return how many tokens a prompt may have."""
        return self.reading.max_tokens - self.reading.text_tokens

    def cut(self, prompt: Ids) -> Ids:
        """Return `prompt` without what it has more than there is room for, at the end of its ECG."""
        return prompt if len(prompt) <= self.room else np.append(prompt[: self.room - 1], prompt[-1:])

    def texts(self, reports: Sequence[str]) -> list[Ids]:
        """Return the ids (T,) of each report, its END with them; of a longer one the first ``text_tokens``."""
        most = self.reading.text_tokens
        found = self.reports.encode_batch([plain(report) for report in reports], add_special_tokens=False)
        return [np.array([*one.ids, self.end][:most], np.int32) for one in found]

    def loss(self, prompts: Sequence[Ids], texts: Sequence[Ids]) -> tuple[Tensor, int]:
        """Return the sum of −log p of every token of `texts` (B of (T,)) after their prompts (B of (P,)), and how many tokens they are."""
        longest = max(map(len, texts))
        labels = np.full((len(texts), longest), IGNORE, np.int64)
        inputs, mask = self._side_by_side(prompts, longest - 1)
        for row, text in enumerate(texts):
            labels[row, : len(text)] = text
            inputs[row, inputs.shape[1] - longest + 1 :][: len(text) - 1] = text[:-1]
            mask[row, inputs.shape[1] - longest + 1 :][: len(text) - 1] = 1
        logits = self(inputs, mask, longest)[:, :, : self.end + 1].float()  # (B, T, V)
        wanted = torch.from_numpy(labels).to(logits.device)
        return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum", ignore_index=IGNORE), sum(map(len, texts))

    def forward(self, inputs: NDArray[np.int64], mask: NDArray[np.int64], last: int) -> Tensor:
        """Return the logits (B, last, ids) behind the `last` columns of `inputs` (B, columns), where `mask` is 1 for what is read."""
        embedded, seen = self._embedded(inputs), torch.from_numpy(mask).to(self.device)
        more: dict[str, Any] = {"position_ids": (seen.cumsum(1) - 1).clamp(min=0)} if self.takes_places else {}
        more |= {"logits_to_keep": last} if self.takes_last else {}
        logits: Tensor = self.model(inputs_embeds=embedded, attention_mask=seen, use_cache=False, **more).logits
        return logits[:, -last:]

    def _embedded(self, inputs: NDArray[np.int64]) -> Tensor:
        """Return the embeddings (B, columns, width) of ids `inputs` (B, columns), those of ECG tokens with their lead's mark."""
        is_ecg = inputs >= self.first_ecg
        lead = ((inputs >= self.lead_mark) & ~is_ecg).cumsum(1) - 1
        marks, ids, of_ecg = (torch.from_numpy(one).to(self.device) for one in (self.lead_mark + np.maximum(lead, 0), inputs, is_ecg))
        embeddings = self.model.get_input_embeddings()
        embedded: Tensor = embeddings(ids) + embeddings(marks) * of_ecg[:, :, None]
        return embedded

    @torch.inference_mode()
    def write(self, prompts: Sequence[Ids], beams: int = 1, best: int = 1) -> list[list[str]]:
        """Return for each prompt the `best` reports, likeliest first, found with so many `beams` (1 = greedily)."""
        inputs, mask = self._side_by_side([self.cut(prompt) for prompt in prompts], 0)
        how = GenerationConfig(
            max_new_tokens=self.reading.text_tokens,
            num_beams=beams,
            num_return_sequences=best,
            do_sample=False,
            early_stopping=beams > 1,
            eos_token_id=self.end,
            pad_token_id=self.end + 3,
        )
        self.model.generation_config = how  # a published model may bring its own ways
        embedded, seen = self._embedded(inputs), torch.from_numpy(mask).to(self.device)
        only = LogitsProcessorList([OnlyText(self.end + 1)])
        generate: Any = self.model.generate
        out = generate(inputs_embeds=embedded, attention_mask=seen, generation_config=how, logits_processor=only)
        written = [self.reports.decode([one for one in row if one < self.end]).strip() for row in out.tolist()]
        return [written[first : first + best] for first in range(0, len(written), best)]

    def _side_by_side(self, prompts: Sequence[Ids], behind: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return prompts as rows (B, P + behind) that end in one column, with so many columns `behind`, and where something is."""
        longest = max(map(len, prompts))
        inputs = np.full((len(prompts), longest + behind), self.end + 3, np.int64)
        mask = np.zeros_like(inputs)
        for row, prompt in enumerate(prompts):
            inputs[row, longest - len(prompt) : longest] = prompt
            mask[row, longest - len(prompt) : longest] = 1
        return inputs, mask


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep Hugging Face's bars of tensors from the terminal: a small model has dozens."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _made(settings: WriterSettings, ids: int, max_tokens: int) -> PreTrainedModel:
    """Return a model of a type of Hugging Face in the sizes of `settings`, at random, that embeds so many `ids`."""
    if settings.name not in CONFIG_MAPPING:
        known = did_you_mean(settings.name, CONFIG_MAPPING)
        raise RecipeError(f"model.name = {settings.name!r} is no model type{known}; for a hub name or a path set model.init=pretrained")
    known_sizes = AutoConfig.for_model(settings.name)
    for key in settings.config:
        if not hasattr(known_sizes, key):
            raise RecipeError(f"model.config: {settings.name} has no {key!r}{did_you_mean(key, known_sizes.to_dict())}")
    config = AutoConfig.for_model(settings.name, **settings.config, vocab_size=ids, bos_token_id=None, eos_token_id=None)
    config.max_position_embeddings = max_tokens
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    except ValueError as error:
        raise RecipeError(
            f"model.name = {settings.name!r}: {' '.join(str(error).split())[:200]}; take a causal one, such as llama"
        ) from None
    return model


def _load(name: str) -> tuple[PreTrainedModel, Tokenizer]:
    """Return a published causal model and its tokenizer, by hub name or local path; raises CheckpointError."""
    try:
        file, _ = tokenizer_files(name)
        model = AutoModelForCausalLM.from_pretrained(name, local_files_only=hub_is_away(), use_safetensors=True, attn_implementation="sdpa")
    except (OSError, ValueError, CheckpointError):
        file = None
    if file is None:
        raise CheckpointError(
            f"language model {name!r} is not to be had: no local folder with safetensors and tokenizer.json, nor in the Hugging Face "
            "cache, nor on the hub from here; give model.name another, or set model.init=random"
        )
    return model, Tokenizer.from_file(str(file))


@torch.no_grad()
def _begin_by_shape(embeddings: nn.Module, first: int, ecg: ECGTokenizer, seed: int) -> None:
    """Give each ECG token, from row `first` of `embeddings` on, a start that says how its waveform runs, as large as the others'."""
    shapes = torch.from_numpy(waveforms(ecg))
    assert isinstance(embeddings.weight, Tensor)
    rows = embeddings.weight[first : first + len(shapes)]
    size = rows.std()
    to_width = torch.randn(shapes.shape[1], rows.shape[1], generator=torch.Generator().manual_seed(seed))
    rows.copy_((shapes @ to_width / shapes.shape[1] ** 0.5 * size + 0.5 * rows) / 1.25**0.5)


def waveforms(ecg: ECGTokenizer) -> NDArray[np.float32]:
    """Return (tokens, POINTS + 1): the values of each token at POINTS places from its first to its last sample, and the log of its length.

    Each column is standardised over the tokens.
    """
    found = np.empty((ecg.vocab_size, POINTS + 1), np.float32)
    for row, values in zip(found, ecg.waveforms(), strict=True):
        row[:POINTS] = np.interp(np.linspace(0, len(values) - 1, POINTS), np.arange(len(values)), values)
        row[POINTS] = np.log(len(values))
    return (found - found.mean(0)) / np.maximum(found.std(0), 1e-6)
