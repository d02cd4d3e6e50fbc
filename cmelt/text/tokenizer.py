"""Reports in, token ids out: one face for every tokenizer, whether trained on the reports here or a Hugging Face one.

The tokenizers that T5 was trained with know neither capitals of every script nor some signs of cardiology; every text is
therefore plainly written first (`plain`), whatever the tokenizer.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from cmelt.errors import CheckpointError

PAD, EOS, UNK, SENTINEL = "<pad>", "</s>", "<unk>", "<extra_id_0>"

SIGNS = str.maketrans(
    {"<": " less than ", "≥": " at least ", "≤": " at most ", "~": " about ", "µ": "u", "μ": "u"}
    | {"{": "(", "}": ")"}
    | {"\\": "/", "^": " ", "`": "'"}
)
"""Signs that Flan-T5's tokenizer does not know, and how they are written instead."""


def plain(text: str) -> str:
    """Return `text` in lower case, single-spaced, without the signs that tokenizers do not know."""
    return " ".join(text.lower().translate(SIGNS).split())


def plain_column(texts: pa.StringArray) -> pa.StringArray:
    """Return `plain` of each of `texts`; most need lower case alone, and get it all at once."""
    odd = pc.match_substring_regex(texts, r"[^ -~]|[<~{}\\^`]|  |^ | $")
    return pc.replace_with_mask(pc.ascii_lower(texts), odd, pa.array([plain(text) for text in texts.filter(odd).to_pylist()], pa.string()))


class ReportTokenizer:
    """A tokenizer with what masked language modelling needs to know of it: pad, mask and special ids, vocabulary size."""

    def __init__(self, backend: Tokenizer, pad: str, mask: str, eos: str | None, max_tokens: int) -> None:
        """Wrap `backend`; every text is cut at `max_tokens` tokens. `pad`, `mask` and `eos` are token strings."""
        self.backend, self.pad, self.mask, self.eos, self.max_tokens = backend, pad, mask, eos, max_tokens
        backend.no_padding()
        backend.enable_truncation(max_tokens)
        vocabulary = backend.get_vocab()
        self.pad_id, self.mask_id = vocabulary[pad], vocabulary[mask]
        self.vocab_size = max(vocabulary.values()) + 1
        added = {number for number, token in backend.get_added_tokens_decoder().items() if token.special}
        self.special_ids: tuple[int, ...] = tuple(sorted(added | {self.pad_id, self.mask_id}))

    @classmethod
    def train(cls, reports: Iterable[str], vocab_size: int, max_tokens: int) -> ReportTokenizer:
        """Return a byte-pair tokenizer of at most `vocab_size` tokens learnt from `reports`; the same reports give the same tokenizer."""
        backend = Tokenizer(models.BPE(unk_token=UNK))
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()]
        )
        backend.decoder = decoders.Metaspace()
        special = [PAD, EOS, UNK, SENTINEL]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, min_frequency=2, special_tokens=special, limit_alphabet=200, show_progress=False
        )
        backend.train_from_iterator(sorted(plain(report) for report in reports), trainer)
        backend.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, special.index(EOS))])
        return cls(backend, PAD, SENTINEL, EOS, max_tokens)

    @classmethod
    def load(cls, name: str, max_tokens: int) -> ReportTokenizer:
        """Load the tokenizer of a local folder or of a Hugging Face repository, from its ``tokenizer.json``.

        Raises CheckpointError where it is not to be had, or has no token to pad or to mask with.
        """
        file, facts = tokenizer_files(name)
        if file is None:
            raise CheckpointError(not_found(name))
        try:
            backend = Tokenizer.from_file(str(file))
            config = json.loads(facts.read_text(encoding="utf-8")) if facts is not None else {}
        except Exception as error:  # noqa: BLE001 - the library raises plain Exception for a damaged file
            raise CheckpointError(f"{file}: not a tokenizer ({error}); take the file from its source again") from None
        return cls.wrap(name, backend, {key: config.get(f"{key}_token") for key in ("pad", "mask", "eos")}, max_tokens)

    @classmethod
    def wrap(cls, name: str, backend: Tokenizer, tokens: Mapping[str, Any], max_tokens: int) -> ReportTokenizer:
        """Return `backend` with the special `tokens` that its config names (``pad``, ``mask``, ``eos``), else the usual ones.

        Its own mask token serves; one without (T5's) uses the sentinel ``<extra_id_0>``.
        """
        named = {key: value["content"] if isinstance(value, dict) else value for key, value in tokens.items()}
        vocabulary = backend.get_vocab()
        pad = next((token for token in (named["pad"], PAD, "[PAD]") if token in vocabulary), None)
        mask = next((token for token in (named["mask"], "[MASK]", "<mask>", SENTINEL) if token in vocabulary), None)
        if pad is None or mask is None:
            missing = "padding" if pad is None else "mask"
            raise CheckpointError(f"{name}: this tokenizer has no {missing} token; take one of a T5- or BERT-style model, or 'reports'")
        return cls(backend, pad, mask, named["eos"], max_tokens)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which `load` and transformers' AutoTokenizer read."""
        self.backend.no_truncation()
        self.backend.save(str(folder / "tokenizer.json"))
        self.backend.enable_truncation(self.max_tokens)
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": self.pad, "mask_token": self.mask, "eos_token": self.eos}
        config |= {"unk_token": UNK} if UNK in self.backend.get_vocab() else {}
        config |= {"model_max_length": self.max_tokens}  # type: ignore[dict-item]
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without padding."""
        return [encoding.ids for encoding in self.backend.encode_batch([plain(text) for text in texts])]

    def encode_padded(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return ids (N, L), padded at the end to the longest text, and how many of each row are real, (N,)."""
        ids = self.encode(texts)
        lengths = np.asarray([len(row) for row in ids], np.int64)
        padded = np.full((len(ids), int(lengths.max(initial=1))), self.pad_id, np.int32)
        for row, values in zip(padded, ids, strict=True):
            row[: len(values)] = values
        return padded, lengths

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))


@functools.cache
def hub_is_away() -> bool:
    """Return whether the Hugging Face hub cannot be reached (one quick try a process), so that only its local cache serves."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=3.0).close()
    except HTTPError:
        return False  # it answers
    except OSError:
        return True
    return False


def tokenizer_files(name: str) -> list[Path | None]:
    """Return ``tokenizer.json`` and ``tokenizer_config.json`` of a local folder or hub repository; None for one that it has not."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files: list[Path | None] = []
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if Path(name).is_dir():
            local = Path(name) / file
            files.append(local if local.is_file() else None)
            continue
        try:
            files.append(Path(hf_hub_download(name, file, local_files_only=hub_is_away())))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            files.append(None)
        except (HfHubHTTPError, HFValidationError, OSError):
            raise CheckpointError(not_found(name)) from None
    return files


def not_found(name: str) -> str:
    """Return the error text, with the ways out, for a tokenizer that is neither here nor on the hub."""
    what = "has no tokenizer" if Path(name).is_dir() else "is neither a local folder nor in the Hugging Face cache"
    away = ", and the hub cannot be reached" if not Path(name).is_dir() and hub_is_away() else ""
    return (
        f"tokenizer {name!r} {what}{away}; give model.tokenizer a local path, or 'reports' to train one on the reports, "
        "or fill the cache (hf download)"
    )
