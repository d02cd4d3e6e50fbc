"""Shard folders of any shape, laid without an ingest: as many samples a shard as asked, reports in the wording of a clinic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmelt.record import LEADS, Record, Source
from cmelt.shards.format import FORMAT_VERSION, INDEX, INDEX_SCHEMA, MANIFEST, shard_name
from cmelt.shards.manifest import file_sha256
from cmelt.shards.write import write_shard

PHRASES = (
    "sinus rhythm. normal ecg.",
    "sinus bradycardia, otherwise normal.",
    "atrial fibrillation with rapid ventricular response.",
    "left axis deviation. left anterior fascicular block.",
    "incomplete right bundle branch block.",
    "non-specific st-t changes in the lateral leads.",
    "inferior infarction, age undetermined. q waves in ii, iii and avf.",
    "left ventricular hypertrophy by voltage criteria, with secondary repolarisation abnormality.",
    "first degree av block.",
    "premature ventricular complexes.",
    "low qrs voltages in the limb leads.",
    "t wave inversion in v1 to v3.",
)


def lay(folder: Path, sizes: Sequence[int], dataset: str = "made", samples: int = 100, fs_hz: float = 100.0, seed: int = 0) -> Path:
    """Write a finished shard folder with `sizes` samples in its shards; fold runs 1 … 10, folds 9 and 10 are val and test.

    Sample number n starts with n in µV, so that a reader can tell which it got.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows, shards, number = [], [], 0
    for at, size in enumerate(sizes):
        records = [record(rng, number + one, samples, fs_hz) for one in range(size)]
        shard, found = write_shard(folder / shard_name(dataset, at), records)
        rows += found
        shards.append(asdict(shard))
        number += size
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), folder / INDEX)
    facts = {"format_version": FORMAT_VERSION, "dataset": dataset, "dataset_version": "1", "recipe": {"signal": {}}, "leads": LEADS}
    facts |= {"fs_hz": fs_hz, "samples": samples, "lsb_uv": 1, "counts": {}, "index_sha256": file_sha256(folder / INDEX)}
    (folder / MANIFEST).write_text(json.dumps(facts | {"shards": shards}))
    return folder


def record(rng: np.random.Generator, number: int, samples: int, fs_hz: float) -> Record:
    """Return made-up recording `number`: noise, a report of one to four phrases and a number of its own."""
    fold = 1 + number % 10
    signal = rng.integers(-2000, 2000, (12, samples)).astype(np.float32) / 1000
    signal[0, :2] = number % 1000 / 1000, number // 1000 / 1000
    report = " ".join(rng.permutation(PHRASES)[: rng.integers(1, 5)]) + f" rate {rng.integers(40, 140)}"
    source = Source(
        key=f"{number:06d}",
        path=f"{number:06d}.hea",
        patient_id=str(number),
        fold=fold,
        split="val" if fold == 9 else "test" if fold == 10 else "train",
        codes=("NORM",) if number % 2 else ("AFIB", "IMI"),
        device=("CS100 3", "AT-6", "")[number % 3],
    )
    digest = hashlib.sha1(str((number, samples)).encode(), usedforsecurity=False).hexdigest()
    return Record(signal, fs_hz, source, fs_hz, samples / fs_hz, report=report, signal_sha1=digest)
