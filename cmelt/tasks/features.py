"""What the frozen encoders make of a shard folder's rows, each computed once and kept beside the checkpoint.

What is kept is named by all that it depends on: the encoder's weights and config, the code that runs it, the folder's manifest (with
the hashes of its shards and index). So it is never stale, and may be deleted at any time; above MOST_BYTES what was used longest ago
makes room. A file holds those rows of one block that were ever asked for and appears whole: of two writers the last one wins, and what is
lost is computed again.

N rows, D embedding width, W encoder width.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from cmelt.errors import CheckpointError
from cmelt.files import write_whole
from cmelt.models.cmelt import CMELT
from cmelt.shards.progress import told
from cmelt.shards.read import ShardFolder

BLOCK = 4096
"""Rows of a folder whose features share a file."""
ROWS = "rows"
MOST_BYTES = 20e9
"""What a run keeps: four encoders' features of 800,000 ECGs at the published width."""
IN_USE_S = 3600.0
"""What was used so lately may be in another process's hands, and stays."""

Features = dict[str, NDArray[np.float32]]
"""Name of a set of features → (N, width). ECGs give two: ``embedding`` (N, D) and ``mean`` of their tokens (N, W); reports the first;
entity queries ``entities`` (N, E)."""
Rows = NDArray[np.int64]


def ecg_features(model: CMELT, folder: ShardFolder, rows: Rows, batch: int) -> Features:
    """Return the features of the ECGs of `rows`."""
    embedding, mean = model.ecg_features(folder.ecg_mv(rows), batch=batch)
    return {"embedding": embedding.float().cpu().numpy(), "mean": mean.float().cpu().numpy()}


def report_features(model: CMELT, folder: ShardFolder, rows: Rows, batch: int) -> Features:
    """Return the embeddings of the reports of `rows`, equal ones encoded once."""
    distinct, which = np.unique(reports(folder, rows), return_inverse=True)
    return {"embedding": model.encode_text(distinct.tolist(), batch=batch).float().cpu().numpy()[which]}


def entity_features(model: CMELT, folder: ShardFolder, rows: Rows, batch: int) -> Features:
    """Return how probable each finding of the model's entity queries is in the ECGs of `rows`."""
    return {"entities": model.entity_probabilities(folder.ecg_mv(rows), batch=batch).cpu().numpy()}


def reports(folder: ShardFolder, rows: Rows) -> NDArray[np.object_]:
    """Return the reports of `rows`, (N,), '' where there is none."""
    texts = folder.index.column("report").take(rows).to_pylist()
    return np.array([text or "" for text in texts], dtype=object)


@dataclass(frozen=True)
class Side:
    """One side of the model: which of its parameters, by the beginnings of their names, make which features of rows."""

    parameters: tuple[str, ...]
    encode: Callable[[CMELT, ShardFolder, Rows, int], Features]


SIDES = {
    "ecg": Side(("ecg_encoder.", "ecg_project.", "ecg_pooler."), ecg_features),
    "entities": Side(("ecg_encoder.", "ecg_project.", "entity_head."), entity_features),
    "text": Side(("text_encoder.", "text_project.", "text_pooler."), report_features),
}


def features(
    model: CMELT, folder: ShardFolder, rows: Rows, side: str = "ecg", cache: Path | None = None, what: str = "", quiet: bool = False
) -> Features:
    """Return the features of `rows` of `folder`, (N, width) each, in the order asked; `side` is one of SIDES.

    Nothing is masked. With folder `cache`, what was computed before is read from there. Raises CheckpointError where they are not finite.
    """
    out: Features = {}
    with told(what or f"{side} features", len(rows), quiet) as advance:
        for at, part in blocks(model, folder, rows, side, cache, advance):
            for name, values in part.items():
                out.setdefault(name, np.empty((len(rows), values.shape[1]), np.float32))[at] = values
    return out


def blocks(
    model: CMELT,
    folder: ShardFolder,
    rows: Rows,
    side: str = "ecg",
    cache: Path | None = None,
    advance: Callable[[int], None] = lambda done: None,
    batch: int = 64,
) -> Iterator[tuple[NDArray[np.intp], Features]]:
    """Yield the features of `rows` block by block: which of the rows (positions), and their features. Arguments as in `features`."""
    place = cache / f"{side}-{fingerprint(model, folder, side)[:20]}" if cache else None
    if place:
        with contextlib.suppress(FileNotFoundError):  # nothing is kept yet, or it has just made room
            os.utime(place)  # what was used longest ago makes room
    for number in np.unique(rows // BLOCK):
        at = np.flatnonzero(rows // BLOCK == number)
        wanted = np.unique(rows[at])
        file = place / f"{number:06d}.safetensors" if place else None
        kept = read_block(file) if file else None
        missing = wanted if kept is None else np.setdiff1d(wanted, kept[1])
        advance(len(at) - len(missing))
        if len(missing):
            folder.expect(missing)
            new = compute(model, folder, missing, side, batch, advance)
            found = joined(kept, (new, missing))
            if file:
                write_whole(file, save({ROWS: found[1], **found[0]}))
                prune(file.parents[1])
        else:
            assert kept is not None
            found = kept
        places = np.searchsorted(found[1], rows[at])
        yield at, {name: values[places] for name, values in found[0].items()}


def compute(model: CMELT, folder: ShardFolder, rows: Rows, side: str, batch: int, advance: Callable[[int], None]) -> Features:
    """Return the features of `rows`, telling `advance` of every few batches; raises CheckpointError where they are not finite."""
    parts = []
    for start in range(0, len(rows), 4 * batch):
        some = rows[start : start + 4 * batch]
        parts.append(SIDES[side].encode(model, folder, some, batch))
        advance(len(some))
    out = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not all(np.isfinite(values).all() for values in out.values()):
        raise CheckpointError(f"{folder}: the {side} encoder gives numbers that are not finite; the checkpoint is of no use")
    return out


def prune(cache: Path, most: float = MOST_BYTES) -> None:
    """Remove from `cache` the sets of features that were used longest ago, until it holds at most so many bytes, or only what is in use."""
    with contextlib.suppress(FileNotFoundError):  # a part just got its name, or is gone: another writer's work, who prunes after it
        used = sorted((place.stat().st_mtime, place) for place in cache.iterdir() if place.is_dir())
        size = {place: sum(file.stat().st_size for file in place.iterdir()) for _, place in used}
        total = sum(size.values())
        for at, place in used:
            if total <= most or at > time.time() - IN_USE_S:
                return
            shutil.rmtree(place, ignore_errors=True)
            total -= size[place]


def joined(kept: tuple[Features, Rows] | None, new: tuple[Features, Rows]) -> tuple[Features, Rows]:
    """Return two sets of rows as one, ascending."""
    if kept is None:
        return new
    rows = np.concatenate([kept[1], new[1]])
    order = np.argsort(rows)
    return {name: np.concatenate([kept[0][name], values])[order] for name, values in new[0].items()}, rows[order]


def read_block(file: Path) -> tuple[Features, Rows] | None:
    """Return the features that `file` keeps, and of which rows (ascending); None where there is no such file, or it is damaged."""
    try:
        found = load_file(file)
        rows: Rows = found.pop(ROWS)
    except (OSError, SafetensorError, KeyError):
        return None
    whole = found and all(len(values) == len(rows) for values in found.values())
    return (found, rows) if whole else None


def fingerprint(model: CMELT, folder: ShardFolder, side: str) -> str:
    """Return the SHA-256, in hex, of all that the features of `folder` by one side of `model` depend on."""
    digest = hashlib.sha256(code_digest())
    digest.update(json.dumps(model.config.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(SIDES[side].parameters):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    if side == "text":
        digest.update(model.require_tokenizer().backend.to_str().encode())
    digest.update(json.dumps(folder.manifest, sort_keys=True).encode())
    return digest.hexdigest()


@functools.cache
def code_digest() -> bytes:
    """Return the SHA-256 of the source that turns samples and reports into features: mended code gives other ones."""
    sources = [*files("cmelt.models").iterdir(), files("cmelt.text").joinpath("tokenizer.py"), files("cmelt.shards").joinpath("read.py")]
    texts = sorted((source.name, source.read_bytes()) for source in sources if source.name.endswith(".py"))
    return hashlib.sha256(repr(texts).encode()).digest()
