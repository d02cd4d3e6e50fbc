"""What a tokenizer is trained from: the percentiles of all training values, and byte pairs of some recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, trainers

from cmelt.errors import InputError
from cmelt.tokens.ecg import LETTERS, MOST_SYMBOLS, as_words

PIECE = 500
"""Symbols of a lead that merges are learnt from together: of whole leads learning takes twice as long and compresses 0.3 % better."""

MOST_TOKENS = 65_536
"""Token ids are kept in 16 bits."""


def count_values(ecg: NDArray[np.int16], counts: NDArray[np.int64]) -> None:
    """Add how often each value of `ecg` (any shape) occurs to `counts` (65536,), that of −32768 first."""
    counts += np.bincount(ecg.ravel().astype(np.int32) + 32768, minlength=len(counts))


def percentiles(counts: NDArray[np.int64], clip_percent: float, lsb_mv: float) -> tuple[float, float]:
    """Return the values in mV below and above which `clip_percent` of all values lie; raises InputError where they are the same."""
    below = np.cumsum(counts)
    outside = clip_percent / 100 * below[-1]
    low, high = int(np.searchsorted(below, outside, side="right")), int(np.searchsorted(below, below[-1] - outside))
    if low >= high:
        raise InputError(f"{clip_percent:g} % and {100 - clip_percent:g} % of the values are the same: nothing to quantise; clip less")
    return (low - 32768) * lsb_mv, (high - 32768) * lsb_mv


def check_sizes(symbols: int, merges: int, clip_percent: float) -> None:
    """Raise InputError for an alphabet, a number of merges or a percentage of clipping that cannot be."""
    if not 2 <= symbols <= MOST_SYMBOLS:
        raise InputError(f"{symbols} symbols: give 2 to {MOST_SYMBOLS}")
    if not 0 <= merges <= MOST_TOKENS - symbols:
        raise InputError(f"{merges} merges: give 0 to {MOST_TOKENS - symbols}")
    if not 0 <= clip_percent < 50:
        raise InputError(f"clipping of {clip_percent:g} % on either side: give 0 to less than 50")


def pieces(leads: Iterable[NDArray[np.uint8]]) -> Iterator[str]:
    """Yield the words of at most PIECE letters that learning takes, of symbols (leads, S) each."""
    for some in leads:
        for first in range(0, some.shape[1], PIECE):
            yield from as_words(some[:, first : first + PIECE])


def learn(words: Iterable[str], symbols: int, merges: int) -> Tokenizer:
    """Return a byte-pair tokenizer: an id for each of `symbols`, then up to `merges` pairs, the most frequent first.

    Of equally frequent pairs that of the lowest ids is merged; a pair that occurs once is not. Same words, same tokenizer.
    """
    backend = Tokenizer(models.BPE(cache_capacity=0))  # a lead is never met twice
    letters = [chr(code) for code in LETTERS[:symbols]]
    trainer = trainers.BpeTrainer(
        vocab_size=symbols + merges, min_frequency=2, initial_alphabet=letters, limit_alphabet=symbols, show_progress=False
    )
    backend.train_from_iterator(words, trainer)
    return backend
