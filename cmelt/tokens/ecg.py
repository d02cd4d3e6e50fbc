"""ECG in mV in, token ids out, and back: the tokenizer of ECG-Byte (arXiv 2412.14373), as a folder of two JSON files.

A value is clipped at two percentiles of the training split and put into one of `symbols` equal bins; a lead is then a word of
letters, in which byte pairs are merged. Leads follow one another whole, in the order of `leads`; no token reaches over the end of
a lead. Back again a symbol becomes the middle of its bin, so decode(encode(x)) is the quantised x, bit for bit.

N recordings, L leads, S samples a lead, T tokens of a recording (of each its own number).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from cmelt.errors import CheckpointError, InputError
from cmelt.files import write_json, write_whole

FORMAT_VERSION = 1
FACTS, MERGES = "ecg_tokenizer.json", "tokenizer.json"
"""What a value means, and the merges, as Hugging Face's `tokenizers` reads them."""

MOST_SYMBOLS = 256
LETTERS = np.array([*range(ord("a"), ord("z") + 1), *range(0x100, 0x100 + MOST_SYMBOLS - 26)], "<u4")
"""Symbol → code point: a to z, then Ā and those that follow."""


@dataclass(frozen=True)
class Scale:
    """What a symbol means: the leads and their rate, the mV at which values are clipped, the number of bins between."""

    leads: tuple[str, ...]
    fs_hz: float
    low_mv: float
    high_mv: float
    symbols: int

    @property
    def step_mv(self) -> float:
        """Return the width of a bin in mV."""
        return (self.high_mv - self.low_mv) / self.symbols

    @cached_property
    def middles_mv(self) -> NDArray[np.float32]:
        """Return the middle (symbols,) of each bin in mV."""
        return (self.low_mv + (np.arange(self.symbols) + 0.5) * self.step_mv).astype(np.float32)

    def quantise(self, ecg_mv: ArrayLike) -> NDArray[np.uint8]:
        """Return the symbols, of the same shape, of values in mV; those beyond the ends are clipped."""
        bins = np.floor((np.asarray(ecg_mv, float) - self.low_mv) / self.step_mv)
        return np.clip(bins, 0, self.symbols - 1).astype(np.uint8)

    def dequantise(self, symbols: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the values in mV, of the same shape, that symbols stand for."""
        return self.middles_mv[symbols]


@dataclass(frozen=True)
class ECGTokenizer:
    """A trained tokenizer: what its symbols mean, its merges, and in `about` what it was trained on."""

    scale: Scale
    backend: Tokenizer
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path | str) -> ECGTokenizer:
        """Load what `save` wrote; raises CheckpointError for a folder without it, or with files that were changed or damaged."""
        place = Path(folder)
        facts = _read_facts(place)
        try:
            merges = (place / MERGES).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{place / MERGES}: {error.strerror}; train again with cmelt tokenizer train") from None
        if hashlib.sha256(merges).hexdigest() != facts["merges_sha256"]:
            raise CheckpointError(f"{place / MERGES} is not the file that {FACTS} belongs to; copy both from their source again")
        of = facts["scale"]
        scale = Scale(tuple(of["leads"]), float(of["fs_hz"]), float(of["low_mv"]), float(of["high_mv"]), of["symbols"])
        return cls(scale, Tokenizer.from_str(merges.decode()), facts["about"])

    def save(self, folder: Path | str) -> None:
        """Write the tokenizer as `folder`: ``tokenizer.json`` and, last, ``ecg_tokenizer.json``; raises OutputError."""
        place = Path(folder)
        merges = (self.backend.to_str() + "\n").encode()
        facts = {"format_version": FORMAT_VERSION, "scale": asdict(self.scale), "merges_sha256": hashlib.sha256(merges).hexdigest()}
        write_whole(place / MERGES, merges)
        write_json(place / FACTS, facts | {"about": self.about})

    @property
    def vocab_size(self) -> int:
        """Return the number of token ids: 0 … symbols − 1 are the symbols, the merges follow in the order in which they were learnt."""
        return int(self.backend.get_vocab_size())

    @cached_property
    def fingerprint(self) -> str:
        """Return a SHA-256 of what every id means: ids of tokenizers of one fingerprint can be exchanged."""
        return hashlib.sha256(json.dumps([asdict(self.scale), self.words]).encode()).hexdigest()

    @cached_property
    def words(self) -> list[str]:
        """Return the letters, one a symbol, of every id."""
        vocabulary = self.backend.get_vocab()
        return sorted(vocabulary, key=vocabulary.__getitem__)

    def quantised(self, ecg_mv: ArrayLike) -> NDArray[np.float32]:
        """Return what is left of values in mV, of the same shape, after clipping and quantisation: what `decode` gives back."""
        return self.scale.dequantise(self.scale.quantise(ecg_mv))

    def encode(self, ecg_mv: ArrayLike, fs_hz: float | None = None) -> list[NDArray[np.int32]]:
        """Return the token ids (T,) of each ECG of (N, L, S), or of one (L, S), in mV, leads in the tokenizer's order.

        With `fs_hz`, their rate is held against the tokenizer's. Raises InputError for another rate, number of leads, or NaN.
        """
        ecg = np.asarray(ecg_mv, np.float32)
        ecg = ecg[None] if ecg.ndim == 2 else ecg
        leads = len(self.scale.leads)
        if fs_hz is not None and fs_hz != self.scale.fs_hz:
            raise InputError(f"ECGs at {fs_hz:g} Hz for a tokenizer of {self.scale.fs_hz:g} Hz; train one on shards of that rate")
        if ecg.ndim != 3 or ecg.shape[1] != leads or not ecg.shape[2]:
            raise InputError(f"ECGs of shape {ecg.shape} cannot be encoded; give (N, {leads}, samples) in mV, leads first")
        if not np.isfinite(ecg).all():
            raise InputError("NaN or infinite values cannot be encoded; condition the ECGs with cmelt ingest first")
        words = as_words(self.scale.quantise(ecg).reshape(-1, ecg.shape[2]))
        ids = [np.asarray(encoding.ids, np.int32) for encoding in self.backend.encode_batch_fast(words)]
        return [np.concatenate(ids[first : first + leads]) for first in range(0, len(ids), leads)]

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the ECG (L, S) in mV that token ids (T,) stand for; raises InputError for ids that are no whole ECG."""
        return self.scale.dequantise(self.symbols(ids))

    def symbols(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return the symbols (L, S) that token ids (T,) stand for; raises InputError for ids that are no whole ECG."""
        tokens = np.asarray(ids, np.int64)
        if tokens.ndim != 1 or not tokens.size or tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise InputError(f"token ids must be a list of numbers from 0 to {self.vocab_size - 1}; these are of another tokenizer")
        ends, leads = self.ends(tokens), len(self.scale.leads)
        samples, odd = divmod(int(ends[-1]), leads)
        if odd or not np.isin(np.arange(1, leads) * samples, ends).all():
            raise InputError(f"{len(tokens)} tokens of {ends[-1]} symbols are not {leads} leads of one length; give those of a whole ECG")
        starts, lengths, letters = self._tables
        within = np.arange(ends[-1]) - np.repeat(ends - lengths[tokens], lengths[tokens])
        return letters[np.repeat(starts[tokens], lengths[tokens]) + within].reshape(leads, samples)

    def waveforms(self) -> list[NDArray[np.float32]]:
        """Return what each id stands for: values in mV, one a sample."""
        starts, lengths, letters = self._tables
        return [self.scale.dequantise(letters[start : start + length]) for start, length in zip(starts, lengths, strict=True)]

    def ends(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return where each token of ids (T,) ends, (T,), in samples from the first of the first lead, all leads in a row."""
        return np.cumsum(self._tables[1][ids])

    @cached_property
    def _tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Return of each token where its symbols begin and how many they are; and all of them in a row."""
        lengths = np.array([len(word) for word in self.words], np.int64)
        codes = np.frombuffer("".join(self.words).encode("utf-32-le"), "<u4")
        return np.cumsum(lengths) - lengths, lengths, np.searchsorted(LETTERS, codes).astype(np.uint8)


def as_words(symbols: NDArray[np.uint8]) -> list[str]:
    """Return symbols (rows, S) as a word of S letters a row."""
    text, size = LETTERS[symbols].tobytes().decode("utf-32-le"), symbols.shape[1]
    return [text[first : first + size] for first in range(0, len(text), size)]


def _read_facts(place: Path) -> dict[str, Any]:
    """Return the facts of a tokenizer folder, each of the kind that it must be; raises CheckpointError."""
    file = place / FACTS
    if not file.is_file():
        raise CheckpointError(f"{place} is no ECG tokenizer (it has no {FACTS}); make one with cmelt tokenizer train")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        version, scale = facts["format_version"], facts["scale"]
        kinds = {"leads": list, "fs_hz": float, "low_mv": float, "high_mv": float, "symbols": int}
        sound = all(isinstance(scale[name], kind) for name, kind in kinds.items())
        sound = sound and isinstance(facts["merges_sha256"], str) and isinstance(facts["about"], dict)
        sound = sound and scale["high_mv"] > scale["low_mv"] and 2 <= scale["symbols"] <= MOST_SYMBOLS
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); copy it from its source again, or train again") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{file}: format {version}, and this cmelt reads {FORMAT_VERSION}; use the version that made it")
    if not sound:
        raise CheckpointError(f"{file}: damaged (a value is missing or of the wrong kind); copy it from its source again, or train again")
    return dict(facts)
