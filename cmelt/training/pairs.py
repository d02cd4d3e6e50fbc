"""Batches of ECG tokens and reports as a pure function of the step, each of recordings of about one length.

Batch `step` of a run depends on (recipe, shards, tokenizers, step) and nothing else, so a run resumes at any step, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmelt.config import DataSettings
from cmelt.config_tasks import GenerateRecipe
from cmelt.models.writer import Ids, Writer
from cmelt.training.corpus import Corpus
from cmelt.training.loader import rank_slice

AT_ONCE = 16
"""Batches whose recordings are sorted by length together: so much less is padding."""
BLOCK = 64
"""Recordings that become tokens at a time."""
MOST_KEPT = 200_000
"""Recordings whose tokens are kept, 4 bytes a token; of a larger corpus the rest are made again each epoch."""


def corpus_of(shards: Sequence[Path | str], split: str, recipe: GenerateRecipe) -> Corpus:
    """Return the recordings of `split` that a recipe asks for; raises ShardError."""
    wanted = recipe.data
    data = DataSettings(where=wanted.where, leaks=wanted.leaks, min_words=wanted.min_words, shuffle_reports=wanted.shuffle_reports)
    return Corpus(shards, split, "", data)


class Pairs:
    """The prompts and texts of a corpus, batch by batch. `cut` counts the recordings that had more tokens than there is room for."""

    def __init__(self, corpus: Corpus, writer: Writer, recipe: GenerateRecipe, weighted: bool = True) -> None:
        """Take what batches are made of; `weighted` False mixes nothing (validation)."""
        self.corpus, self.writer, self.size, self.seed = corpus, writer, recipe.train.batch, recipe.train.seed
        self.order = corpus.order(self.seed, DataSettings(weights=recipe.data.weights if weighted else {}))
        self.texts = writer.texts(corpus.reports)
        self.cut = 0
        self._kept: dict[int, Ids] = {}
        self._rows: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows (B,) of batch `step`: AT_ONCE batches of the order, sorted by length, cut, and the cuts in random order."""
        block, place = divmod(step, AT_ONCE)
        if self._rows[0] != block:
            count = AT_ONCE * self.size
            rows, _, _ = self.order.samples(block * count, count)
            lengths = [len(prompt) for prompt in self.prompts(rows)]
            by_length = rows[np.argsort(lengths, kind="stable")].reshape(AT_ONCE, self.size)
            self._rows = block, np.random.default_rng((self.seed, 3, block)).permutation(by_length)
        found: NDArray[np.int64] = self._rows[1][place]
        return found

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[list[Ids], list[Ids], int]:
        """Return rank's prompts and texts of batch `step`, and how many tokens of text the whole batch has."""
        rows = self.rows(step)
        texts = [self.texts[number] for number in self.corpus.report_id[rows]]
        here = rank_slice(len(rows), rank, world)
        return self.prompts(rows[here]), texts[here], sum(map(len, texts))

    def in_turn(self, batches: int) -> list[tuple[list[Ids], list[Ids]]]:
        """Return up to so many batches of fixed rows, evenly over the corpus: what is validated on."""
        count = min(len(self.corpus), batches * self.size)
        rows = np.unique(np.linspace(0, len(self.corpus) - 1, count).astype(np.int64))
        parts = [rows[first : first + self.size] for first in range(0, len(rows), self.size)]
        return [(self.prompts(part), [self.texts[number] for number in self.corpus.report_id[part]]) for part in parts]

    def prompts(self, rows: NDArray[np.int64]) -> list[Ids]:
        """Return the prompt of each of `rows`, cut to the room there is."""
        made: dict[int, Ids] = {}
        new = [int(row) for row in np.unique(rows) if int(row) not in self._kept]
        first_folder = self.corpus.folders[0]
        for first in range(0, len(new), BLOCK):
            some = new[first : first + BLOCK]
            whole = self.writer.prompts(self.corpus.ecg_mv(np.array(some)), first_folder.leads, first_folder.fs_hz)
            self.cut += sum(len(prompt) > self.writer.room for prompt in whole)
            made |= {row: self.writer.cut(prompt) for row, prompt in zip(some, whole, strict=True)}
        if len(self._kept) + len(made) <= MOST_KEPT:
            self._kept |= made
        return [made[row] if row in made else self._kept[row] for row in rows.tolist()]
