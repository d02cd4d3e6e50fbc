"""Train an ECG tokenizer on shard folders; write their ECGs as tokens, tokens as ECGs, one as a picture coloured by token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt import __version__
from cmelt.config import did_you_mean
from cmelt.errors import InputError, OutputError, ShardError
from cmelt.files import make_folder, whole
from cmelt.shards.progress import told
from cmelt.shards.read import ShardFolder
from cmelt.tokens.ecg import FACTS, ECGTokenizer, Scale
from cmelt.tokens.train import check_sizes, count_values, learn, percentiles, pieces
from cmelt.tokens.view import view

BLOCK = 64
"""Recordings that are read at a time."""

HELD_OUT = 200
"""Recordings at most on which a trained tokenizer is measured."""

ABOUT = b"cmelt.tokens"
"""Key of the metadata of a table of tokens under which it says where it comes from."""

Rows = NDArray[np.int64]


def train(
    shards: Sequence[Path | str],
    out: Path,
    symbols: int = 26,
    merges: int = 3500,
    clip_percent: float = 1.0,
    records: int = 500,
    seed: int = 0,
    where: str = "",
    leads: Sequence[str] = (),
    fs_hz: float = 0.0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a tokenizer on the training split of `shards`, save it as folder `out`, measure it on held-out recordings; returns a summary.

    Values are clipped at `clip_percent` and 100 − `clip_percent` of all training values and put into `symbols` bins; up to `merges`
    pairs are learnt from `records` recordings that `seed` draws. `leads` and `fs_hz` are what it sees of an ECG; default: all that the
    shards have. Raises InputError, OutputError or ShardError.
    """
    check_sizes(symbols, merges, clip_percent)
    if out.exists() and not (out / FACTS).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there and is no ECG tokenizer; choose another --out")
    began = time.monotonic()
    folders = open_alike(shards)
    chosen = [folder.rows("train", where) for folder in folders]
    total = sum(map(len, chosen))
    if not total:
        raise ShardError(f"{', '.join(map(str, folders))}: no recording of the training split{f' where {where}' if where else ''}")
    counts = np.zeros(65536, np.int64)
    first = folders[0]
    seen = tuple(leads) or first.leads, float(fs_hz or first.fs_hz)
    with told("counting values", total, quiet) as advance:
        for folder, rows in blocks(folders, chosen):
            count_values(np.rint(seen_of(folder, rows, *seen) / first.lsb_mv).astype(np.int16), counts)
            advance(len(rows))
    low_mv, high_mv = percentiles(counts, clip_percent, first.lsb_mv)
    scale = Scale(*seen, low_mv, high_mv, symbols)
    drawn = np.sort(np.random.default_rng(seed).permutation(total)[:records])
    learnt = split_by(chosen, drawn)
    ecgs = (seen_of(folder, rows, *seen) for folder, rows in blocks(folders, learnt))
    backend = learn(pieces(scale.quantise(ecg).reshape(-1, ecg.shape[2]) for ecg in ecgs), symbols, merges)
    about = {"version": __version__, "datasets": [folder.manifest["dataset"] for folder in folders], "where": where, "seed": seed}
    about |= {"clip_percent": clip_percent, "merges_asked": merges, "records": total, "records_merged": len(drawn)}
    tokenizer = ECGTokenizer(scale, backend, about)
    tokenizer.save(out)
    seconds = time.monotonic() - began
    split, held = held_out(folders, where)
    summary = {"out": str(out), "vocab_size": tokenizer.vocab_size, "low_mv": low_mv, "high_mv": high_mv, "records": total}
    summary |= {"records_merged": len(drawn), "seconds": round(seconds, 2), "measured_on": split}
    return summary | measure(tokenizer, (seen_of(folder, rows, *seen) for folder, rows in blocks(folders, held)))


def encode(
    shards: Sequence[Path | str], tokenizer: Path, out: Path, split: str = "", where: str = "", quiet: bool = False
) -> dict[str, Any]:
    """Write the ECGs of `shards`, as the tokenizer sees them, as a Parquet table of tokens, a row a recording; returns a summary.

    Columns: ``key``, ``dataset``, ``split`` and ``tokens``, a list of 16-bit ids.
    Raises CheckpointError, InputError (another rate), OutputError or ShardError.
    """
    known = ECGTokenizer.from_folder(tokenizer)
    refuse_foreign(out)
    folders = open_alike(shards)
    first, scale = folders[0], known.scale
    samples = view(np.zeros((1, len(first.leads), first.samples), np.float32), first.leads, first.fs_hz, scale.leads, scale.fs_hz).shape[2]
    chosen = [folder.rows(split, where) for folder in folders]
    if not any(map(len, chosen)):
        raise ShardError(f"{', '.join(map(str, folders))}: no recording that was asked for")
    facts = {"version": __version__, "tokenizer": known.fingerprint, "fs_hz": scale.fs_hz, "samples": samples}
    fields = [("key", pa.string()), ("dataset", pa.string()), ("split", pa.string()), ("tokens", pa.list_(pa.uint16()))]
    schema = pa.schema(fields, {ABOUT: json.dumps(facts).encode()})
    found = Sums(known)
    total = sum(map(len, chosen))
    with (
        whole(out) as part,
        pq.ParquetWriter(part, schema, use_dictionary=["dataset", "split"]) as writer,
        told("tokens", total, quiet) as advance,
    ):
        for folder, rows in blocks(folders, chosen):
            ids = found.add(seen_of(folder, rows, scale.leads, scale.fs_hz), scale.fs_hz)
            advance(len(rows))
            columns = folder.table(["key", "split"]).take(rows)
            names = pa.array([str(folder.manifest["dataset"])] * len(rows))
            tokens = pa.array([row.astype(np.uint16) for row in ids], pa.list_(pa.uint16()))
            writer.write_table(pa.table([columns["key"], names, columns["split"], tokens], schema=schema))
    return {"out": str(out)} | found.told()


def decode(table: Path, tokenizer: Path, out: Path) -> dict[str, Any]:
    """Write the ECGs that a table of `encode` stands for as `out`, a NumPy file of (rows, 12, samples) float32 in mV; returns a summary.

    Raises CheckpointError, InputError (no such table, another tokenizer's, damaged) or OutputError.
    """
    known = ECGTokenizer.from_folder(tokenizer)
    if out.suffix != ".npy":
        raise OutputError(f"{out}: ECGs are written as .npy; name the file so")
    facts = facts_of(table)
    if facts["tokenizer"] != known.fingerprint:
        raise InputError(f"{table} was made by another tokenizer than {tokenizer}; name the one that made it")
    shape = (pq.read_metadata(table).num_rows, len(known.scale.leads), int(facts["samples"]))
    with whole(out) as part:
        ecg = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        row = 0
        for batch in pq.ParquetFile(table).iter_batches(BLOCK, columns=["tokens"]):
            for ids in batch.column(0):
                signal = known.decode(ids.values.to_numpy())
                if signal.shape != shape[1:]:
                    raise InputError(f"{table}: row {row} holds {signal.shape[1]} samples a lead, not {shape[2]}; encode again")
                ecg[row] = signal
                row += 1
        ecg.flush()
        del ecg
    return {"out": str(out), "rows": shape[0], "shape": list(shape)}


def plot(folder: Path | str, key: str, tokenizer: Path, file: Path, seconds: float = 3.0) -> Path:
    """Draw the first `seconds` of record `key` of shard folder `folder`, coloured by token; returns `file`. Raises ShardError."""
    from cmelt.plots import save
    from cmelt.tokens.paint import plot_tokens

    known, shards = ECGTokenizer.from_folder(tokenizer), ShardFolder(folder)
    keys = list(shards.column("key"))
    if key not in keys:
        raise ShardError(f"{folder} has no record {key!r}{did_you_mean(key, keys)}; its keys stand in index.parquet")
    title = f"{shards.manifest['dataset']} {key}"
    (seen,) = seen_of(shards, np.array([keys.index(key)]), known.scale.leads, known.scale.fs_hz)
    return save(plot_tokens(known, seen, title=title, seconds=seconds), file)


class Sums:
    """What is counted while ECGs are encoded: tokens, values, seconds, and how far what comes back is from what went in."""

    def __init__(self, tokenizer: ECGTokenizer) -> None:
        self.tokenizer = tokenizer
        self.records = self.values = self.tokens = self.clipped = 0
        self.squares = self.distances = self.seconds = 0.0

    def add(self, ecg_mv: NDArray[np.float32], fs_hz: float | None = None) -> list[NDArray[np.int32]]:
        """Encode ECGs (N, 12, S) in mV, count them, and return their token ids."""
        began = time.perf_counter()
        ids = self.tokenizer.encode(ecg_mv, fs_hz)
        self.seconds += time.perf_counter() - began
        scale = self.tokenizer.scale
        off = np.abs(self.tokenizer.quantised(ecg_mv) - ecg_mv).astype(float)
        self.squares += float((off**2).sum())
        self.distances += float(off.sum())
        self.clipped += int(((ecg_mv < scale.low_mv) | (ecg_mv > scale.high_mv)).sum())
        self.records, self.values, self.tokens = self.records + len(ids), self.values + ecg_mv.size, self.tokens + sum(map(len, ids))
        return ids

    def told(self) -> dict[str, Any]:
        """Return what was counted; `compression` is values a token, and of bytes too: both are kept in 16 bits."""
        return {
            "rows": self.records,
            "tokens": self.tokens,
            "tokens_per_record": round(self.tokens / self.records, 1),
            "compression": round(self.values / self.tokens, 3),
            "rmse_uv": round(1000 * (self.squares / self.values) ** 0.5, 2),
            "mean_error_uv": round(1000 * self.distances / self.values, 2),
            "clipped_percent": round(100 * self.clipped / self.values, 3),
            "tokens_per_s": round(self.tokens / self.seconds),
        }


def measure(tokenizer: ECGTokenizer, ecgs: Iterator[NDArray[np.float32]]) -> dict[str, Any]:
    """Return compression, error, tokens a record and tokens a second of a tokenizer on ECGs, blocks of (N, 12, S) in mV."""
    found = Sums(tokenizer)
    for ecg in ecgs:
        found.add(ecg)
    return found.told()


def open_alike(shards: Sequence[Path | str]) -> list[ShardFolder]:
    """Open shard folders that can share a tokenizer; raises ShardError where rate, length, leads or units differ."""
    folders = [ShardFolder(path) for path in shards]
    first = folders[0]
    for folder in folders[1:]:
        for name in ("fs_hz", "samples", "leads", "lsb_mv"):
            if getattr(folder, name) != getattr(first, name):
                raise ShardError(f"{folder} and {first} differ in {name}; ingest them alike, or train one tokenizer for each")
    return folders


def seen_of(folder: ShardFolder, rows: Rows, leads: Sequence[str], fs_hz: float) -> NDArray[np.float32]:
    """Return what a tokenizer of `leads` at `fs_hz` sees of `rows` of a folder: (N, L, S) in mV; raises InputError."""
    return view(folder.ecg_mv(rows), folder.leads, folder.fs_hz, leads, fs_hz)


def blocks(folders: Sequence[ShardFolder], rows: Sequence[Rows]) -> Iterator[tuple[ShardFolder, Rows]]:
    """Yield each folder with some of its `rows` at a time."""
    for folder, of_folder in zip(folders, rows, strict=True):
        for first in range(0, len(of_folder), BLOCK):
            yield folder, of_folder[first : first + BLOCK]


def split_by(rows: Sequence[Rows], places: Rows) -> list[Rows]:
    """Return of each folder's `rows` those at `places` (ascending) in all of them in a row."""
    ends = np.cumsum([0, *map(len, rows)])
    return [some[places[(places >= first) & (places < last)] - first] for some, first, last in zip(rows, ends[:-1], ends[1:], strict=True)]


def held_out(folders: Sequence[ShardFolder], where: str) -> tuple[str, list[Rows]]:
    """Return the validation split, else test, else train, and up to HELD_OUT of its rows, evenly over all folders."""
    for split in ("val", "test", "train"):
        rows = [folder.rows(split, where) for folder in folders]
        if total := sum(map(len, rows)):
            return split, split_by(rows, np.unique(np.linspace(0, total - 1, min(HELD_OUT, total)).astype(np.int64)))
    raise AssertionError("a tokenizer was trained on recordings that are in no split")


def facts_of(table: Path) -> dict[str, Any]:
    """Return what a table of tokens says of itself; raises InputError for a file that is none."""
    try:
        facts = json.loads((pq.read_schema(table).metadata or {})[ABOUT])
    except FileNotFoundError:
        raise InputError(f"{table} is not there; make it with cmelt tokenizer encode") from None
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise InputError(f"{table} is no table of tokens, or damaged; make it with cmelt tokenizer encode") from None
    return dict(facts)


def refuse_foreign(out: Path) -> None:
    """Raise OutputError where `out` is anything but a table of tokens: nothing else is written over."""
    if not out.exists():
        make_folder(out.parent)
        return
    try:
        facts_of(out)
    except InputError:
        raise OutputError(f"{out} is there and is no table of tokens; choose another --out") from None
