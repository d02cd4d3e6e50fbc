"""Write the embeddings of shard folders' ECGs, reports or both as one Parquet table: a row a recording, in the order of the folders."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt import __version__
from cmelt.config import did_you_mean
from cmelt.errors import InputError, OutputError, ShardError
from cmelt.files import open_whole
from cmelt.record import SPLITS
from cmelt.shards.progress import told
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import load_for, open_run
from cmelt.tasks.features import BLOCK, blocks, reports

WHAT = {"ecg": ("ecg",), "text": ("text",), "both": ("ecg", "text")}
"""What may be asked for → the columns that it makes."""

FACTS = b"cmelt"
"""Key of the table's metadata under which it says where it comes from."""


def embed(
    shards: Sequence[Path | str],
    out: Path,
    run: Path | None = None,
    what: str = "ecg",
    split: str = "",
    where: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the embeddings of `shards` by checkpoint `run` (default: the newest) as `out`, whole or not at all; returns a summary.

    Columns: ``key``, ``dataset``, ``split``, and ``ecg``, ``text`` or both as `what` says: fixed-size lists of float32, ``text`` null
    where a recording has no report. With `split` (train, val, test) its recordings only, and those for which the filter
    `where` is true (``device = 'CS100'``). What was computed is kept beside the checkpoint.
    Raises InputError, OutputError, ShardError or CheckpointError.
    """
    if what not in WHAT:
        raise InputError(f"--what {what!r}{did_you_mean(what, WHAT)}; known: {', '.join(WHAT)}")
    refuse_foreign(out)
    began = time.monotonic()
    opened = open_run(run, shards)
    folders = [ShardFolder(path) for path in opened.shards]
    rows = rows_of(folders, split, where)
    model = load_for(opened, folders)
    facts = opened.facts() | {"version": __version__, "width": model.config.width, "leads": list(model.config.leads)}
    fields = [("key", pa.string()), ("dataset", pa.string()), ("split", pa.string())]
    fields += [(name, pa.list_(pa.float32(), model.config.width)) for name in WHAT[what]]
    schema = pa.schema(fields, {FACTS: json.dumps(facts).encode()})
    total = sum(map(len, rows))
    sides = WHAT[what]
    with (
        told("embed", total * len(sides), quiet) as advance,
        open_whole(out) as file,
        pq.ParquetWriter(file, schema, use_dictionary=["dataset", "split"]) as writer,
    ):
        for folder, of_folder in zip(folders, rows, strict=True):
            for number in np.unique(of_folder // BLOCK):
                some = of_folder[of_folder // BLOCK == number]
                columns = {name: folder.index.column(name).take(some) for name in ("key", "split")}
                columns["dataset"] = pa.array([str(folder.manifest["dataset"])] * len(some))
                for side in sides:
                    ((_, found),) = blocks(model, folder, some, side, opened.cache, advance)
                    told_of = np.array([side == "ecg" or bool(text) for text in reports(folder, some)])
                    columns[side] = vectors(found["embedding"], told_of)
                writer.write_table(pa.table([columns[name] for name in schema.names], schema=schema))
    summary = {"out": str(out), "rows": total, "width": model.config.width, "columns": schema.names}
    return summary | {"run": str(opened), "seconds": round(time.monotonic() - began, 2)}


def rows_of(folders: Sequence[ShardFolder], split: str, where: str) -> list[NDArray[np.int64]]:
    """Return the rows of each folder that are in `split` ('' = all) and for which the filter `where` is true.

    Raises InputError for a word that is no split or a filter that is none, ShardError where there is no such row.
    """
    if split and split not in SPLITS:
        raise InputError(f"--split {split!r}{did_you_mean(split, SPLITS)}; known: {', '.join(SPLITS)}")
    rows = [folder.rows(split, where) for folder in folders]
    if not any(map(len, rows)):
        asked = [f"in split {split}"] * bool(split) + [f"where {where}"] * bool(where)
        raise ShardError(f"{', '.join(map(str, folders))}: no recording{' ' if asked else ''}{' '.join(asked)}")
    return rows


def vectors(values: NDArray[np.float32], there: NDArray[np.bool_]) -> pa.Array:
    """Return `values` (N, D) as a column of fixed-size lists, null where not `there` (N,)."""
    flat = pa.array(np.ascontiguousarray(values).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=None if there.all() else pa.array(~there))


def refuse_foreign(out: Path) -> None:
    """Raise OutputError where `out` is anything but a table that was made here before: nothing else is written over."""
    if not out.exists():
        return
    try:
        if FACTS in (pq.read_schema(out).metadata or {}):
            return
    except (OSError, pa.ArrowException):
        pass
    raise OutputError(f"{out} is there and is no table of embeddings that cmelt made; choose another --out")
