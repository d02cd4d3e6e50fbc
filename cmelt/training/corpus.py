"""The samples of one split of one or more shard folders, as one long table with one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmelt.config import DataSettings, did_you_mean
from cmelt.errors import RecipeError, ShardError
from cmelt.shards.cache import ShardCache
from cmelt.shards.leaks import overlap
from cmelt.shards.order import Mixture, Order
from cmelt.shards.read import Place, ShardFolder, read, read_mv
from cmelt.text.tokenizer import plain_column

SHOWN = 5
"""Bad shards named in the error; the rest are counted."""


class Corpus:
    """Rows of `split` in `folders` (paths or URLs): what pre-training reads. Row numbers run over all folders, in the order given.

    ``reports`` are the distinct non-empty reports; ``report_id`` (N,) says which one a row has; ``group`` (N,) is the
    acquisition group within which wrong reports are dealt (model.md, N3S). What is left out is counted (`facts`): rows without a
    report; rows in shards that are bad, where `data` says skip; and of the training split rows that `data` filters out, those of
    too few words, and those whose recording is held out in any of `folders`. Raises ShardError where the folders do not fit each
    other, leak, or the split is empty, or a shard is bad and that is fatal.
    """

    def __init__(self, folders: Sequence[Path | str], split: str, within: str = "device", data: DataSettings | None = None) -> None:
        data = data or DataSettings()
        self.cache = ShardCache(data.cache_gb * 1e9)
        self.folders = [ShardFolder(folder, self.cache) for folder in folders]
        _fit_each_other(self.folders)
        self.fs_hz, self.samples, self.lsb_mv = self.folders[0].fs_hz, self.folders[0].samples, self.folders[0].lsb_mv
        self.without_report = self.few_words = self.leaking = self.filtered = self.in_bad_shards = 0
        self.bad_shards: dict[str, str] = {}
        """Path of a shard whose samples are left out → what is wrong with it."""
        with ThreadPoolExecutor(1) as beside:  # most of a start is reading indices, and most of that the reports
            reports = [beside.submit(folder.encoded, "report") for folder in self.folders]
            rows = [self._rows(folder, split, data, column) for folder, column in zip(self.folders, reports, strict=True)]
        if self.leaking and data.leaks == "refuse":
            raise ShardError(
                f"{self.leaking} {split} samples are held out in one of the folders (cmelt verify names them); "
                "set data.leaks=drop to leave them out"
            )
        self.row_of: NDArray[np.int64] = np.concatenate(rows)
        """(N,) the index row in its folder."""
        self.folder_of: NDArray[np.int64] = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
        if not len(self.row_of):
            raise ShardError(f"{', '.join(map(str, self.folders))}: no sample of the {split} split has a report and is wanted")
        self.bases = np.cumsum([0, *(len(folder.names) for folder in self.folders)])
        """The shards of folder k have the numbers bases[k] … bases[k + 1] − 1."""
        self.shard_of: NDArray[np.int64] = np.concatenate(
            [folder.shard_of(some) + base for folder, some, base in zip(self.folders, rows, self.bases[:-1], strict=True)]
        )
        self.reports, self.report_id = distinct_reports([column.result() for column in reports], rows)
        if split == "train" and data.shuffle_reports:
            rng = np.random.default_rng(data.shuffle_reports)
            for number in range(len(rows)):
                here = np.flatnonzero(self.folder_of == number)
                self.report_id[here] = self.report_id[rng.permutation(here)]
        families = [_families(folder, some, within) for folder, some in zip(self.folders, rows, strict=True)]
        known = {name: number for number, name in enumerate(sorted({name for names, _ in families for name in names}))}
        self.group: NDArray[np.int64] = np.concatenate([np.array([known[name] for name in names], int)[of] for names, of in families])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.row_of)

    def facts(self) -> dict[str, Any]:
        """Return how many samples and distinct reports there are, and how many samples were left out, why."""
        left_out = ("without_report", "few_words", "leaking", "filtered", "in_bad_shards")
        return {"samples": len(self), "reports": len(self.reports), **{name: getattr(self, name) for name in left_out}}

    def order(self, seed: int, data: DataSettings) -> Order | Mixture:
        """Return the order of samples: all of them once an epoch, or data sets mixed by ``data.weights``; raises RecipeError."""
        if not data.weights:
            whole = Order(np.arange(len(self)), self.shard_of, seed, data.window)
            self._refuse_small_cache([whole], data)
            return whole
        datasets = [str(folder.manifest["dataset"]) for folder in self.folders]
        for name in data.weights:
            if name not in datasets:
                raise RecipeError(f"data.weights.{name}: the folders hold {', '.join(sorted(set(datasets)))}{did_you_mean(name, datasets)}")
        orders = []
        for name in sorted(set(datasets)):
            if name not in data.weights:
                raise RecipeError(f"data.weights has no weight for {name}; leave its folder out, or give one")
            rows = np.flatnonzero(np.isin(self.folder_of, [number for number, other in enumerate(datasets) if other == name]))
            if not len(rows):
                raise RecipeError(f"data.weights.{name}: no sample of {name} is left; leave its folder out")
            orders.append(Order(rows, self.shard_of[rows], seed, data.window))
        self._refuse_small_cache(orders, data)
        try:
            return Mixture(orders, [data.weights[name] for name in sorted(set(datasets))])
        except ValueError as error:
            raise RecipeError(f"data.weights: {error}; leave that folder out") from None

    def _refuse_small_cache(self, orders: Sequence[Order], data: DataSettings) -> None:
        """Raise RecipeError where a window of shards, and the next on its way, do not fit into the cache."""
        sizes = np.concatenate([folder.far_bytes() for folder in self.folders])
        needed = sum(int(np.sort(sizes[order.shards])[-2 * data.window :].sum()) for order in orders)
        if needed > self.cache.limit:
            raise RecipeError(
                f"data.cache_gb = {data.cache_gb:g} holds no two windows of {data.window} shards ({needed / 1e9:.3g} GB); "
                "raise it, or lower data.window"
            )

    def expect(self, shards: NDArray[np.int64]) -> None:
        """Fetch these shards, first things first, where they lie at a URL, and keep them; the rest may make room."""
        folder_of = np.searchsorted(self.bases, shards, side="right") - 1
        wanted = {number: f.wanted(shards[folder_of == number] - self.bases[number]) for number, f in enumerate(self.folders)}
        if any(wanted.values()):
            self.cache.expect([wanted[number].pop(0) for number in folder_of if wanted[number]])

    @property
    def is_remote(self) -> bool:
        """Say whether any folder lies at a URL."""
        return any(folder.is_remote for folder in self.folders)

    def places(self, rows: NDArray[np.int64]) -> list[Place]:
        """Return where the samples of `rows` (B,) lie, their files open; raises ShardError."""
        folder_of, row_of = self.folder_of[rows], self.row_of[rows]
        if len(self.folders) == 1:
            return self.folders[0].places(row_of)
        found = [iter(folder.places(row_of[folder_of == number])) for number, folder in enumerate(self.folders)]
        return [next(found[number]) for number in folder_of.tolist()]

    def read(self, rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
        """Read the samples (B, 12, samples) of `rows` (B,) into `out`, in units of `lsb_mv`."""
        read(self.places, rows, out)

    def ecg_mv(self, rows: NDArray[np.int64], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the samples of `rows` (B,): (B, 12, samples) in mV, in `out` where it is given."""
        out = np.empty((len(rows), 12, self.samples), np.float32) if out is None else out
        read_mv(self.places, rows, out, self.lsb_mv)
        return out

    def column(self, name: str) -> list[object]:
        """Return index column `name` over all rows."""
        values: list[object] = []
        for number, folder in enumerate(self.folders):
            column = folder.column(name)
            values.extend(column[row] for row in self.row_of[self.folder_of == number])
        return values

    def _rows(self, folder: ShardFolder, split: str, data: DataSettings, column: Future[pa.DictionaryArray]) -> NDArray[np.int64]:
        """Return the wanted rows of `folder`, whose reports `column` brings, and count those that are left out."""
        rows = folder.rows(split)
        bad = folder.bad_shards(data.verify == "sha256")
        if bad and data.on_bad_shard == "fatal":
            told = "; ".join(f"{folder}/{name} {problem}" for name, problem in list(bad.items())[:SHOWN])
            more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            raise ShardError(f"{told}{more}. Mend them (cmelt ingest), or set data.on_bad_shard=skip to leave their samples out")
        self.bad_shards |= {f"{folder}/{name}": problem for name, problem in bad.items()}

        def keep(kept: NDArray[np.bool_]) -> int:
            nonlocal rows
            left_out = len(rows) - int(kept.sum())
            rows = rows[kept]
            return left_out

        if bad:
            self.in_bad_shards += keep(~np.isin(np.asarray(folder.names)[folder.shard_of(rows)], list(bad)))
        if split == "train" and data.where:
            self.filtered += keep(np.isin(rows, folder.rows(where=data.where)))
        if split == "train" and data.leaks != "keep":
            self.leaking += keep(~overlap(folder, self.folders)[rows])
        reports = column.result()
        has_text = np.append(pc.not_equal(reports.dictionary, ""), False)
        text_of = reports.indices.fill_null(-1).to_numpy()
        self.without_report += keep(has_text[text_of[rows]])
        if split == "train" and data.min_words > 1:
            words = np.asarray(pc.list_value_length(pc.utf8_split_whitespace(reports.dictionary)))
            self.few_words += keep(words[text_of[rows]] >= data.min_words)
        return rows


def _fit_each_other(folders: Sequence[ShardFolder]) -> None:
    """Raise ShardError where folders differ in rate, length, leads or unit."""
    first = folders[0]
    for other in folders[1:]:
        for what in ("fs_hz", "samples", "leads", "lsb_mv"):
            if getattr(other, what) != getattr(first, what):
                raise ShardError(
                    f"{other}: {what} is {getattr(other, what)}, but {first} has {getattr(first, what)}; ingest both with the same recipe"
                )


def distinct_reports(columns: Sequence[pa.DictionaryArray], rows: Sequence[NDArray[np.int64]]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts in the `rows` of each of `columns`, sorted, and which of them each row is, (N,).

    Texts that differ in case or spacing alone are one, as they are to the tokenizer: neither may serve as the other's wrong report.
    """
    found = pa.chunked_array(columns).combine_chunks()
    starts = np.cumsum([0, *map(len, columns)])
    wanted = np.concatenate([some + start for some, start in zip(rows, starts, strict=False)])
    text_of = found.indices.fill_null(-1).to_numpy()[wanted]
    used = np.flatnonzero(np.bincount(text_of))
    texts = found.dictionary.take(pa.array(used))
    order = pc.sort_indices(texts).to_numpy()
    texts = texts.take(pa.array(order))
    same = plain_column(texts).dictionary_encode().indices.to_numpy()  # numbered as they come: the first stands for the rest
    number = np.empty(used.max() + 1, np.int64)
    number[used[order]] = same
    first = np.flatnonzero(np.diff(np.maximum.accumulate(same), prepend=-1))
    return texts.take(pa.array(first)).to_pylist(), number[text_of]


def _families(folder: ShardFolder, rows: NDArray[np.int64], within: str) -> tuple[list[str], NDArray[np.int32]]:
    """Return names, each the first word of index column `within` with the data set's name before it, and which each row has."""
    if not within:
        return [""], np.zeros(len(rows), np.int32)
    values = folder.encoded(within)
    told = [*values.dictionary.to_pylist(), ""]  # the last where there is none
    names = [f"{folder.manifest['dataset']}/{(value.split() or [''])[0]}" for value in told]
    return names, values.indices.fill_null(len(told) - 1).to_numpy()[rows]
