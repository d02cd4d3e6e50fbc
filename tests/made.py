"""Shard folders of made-up ECGs whose classes can be read off the signal, and a small run that was made for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmelt.record import LEADS, Record, Source
from cmelt.shards.format import FORMAT_VERSION, INDEX, INDEX_SCHEMA, MANIFEST
from cmelt.shards.manifest import file_sha256
from cmelt.shards.write import write_shard
from tests.pairs import small_model

FS_HZ, SAMPLES = 100.0, 320
CODES = ("NORM", "IMI", "NDT", "1AVB", "LVH")
MakeShards = Callable[..., Path]


def made_up(n: int, seed: int, dataset: str) -> list[Record]:
    """Return `n` recordings: each code adds a wave of its own frequency to its own leads, so that it can be seen."""
    rng = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / FS_HZ
    records = []
    for number in range(n):
        codes = [code for code in CODES if rng.random() < 0.35] or [CODES[number % 5]]
        signal = 0.1 * rng.normal(size=(12, SAMPLES))
        for code in codes:
            which = CODES.index(code)
            signal[2 * which : 2 * which + 2] += 0.4 * np.sin(2 * np.pi * (1 + which) * time + rng.uniform(0, 6))
        fold = 1 + number % 10
        source = Source(
            key=f"{number:05d}",
            path=f"{number:05d}.hea",
            patient_id=str(number // 2) if number % 7 else "",
            fold=fold,
            split="val" if fold == 9 else "test" if fold == 10 else "train",
            codes=tuple(codes),
            likelihoods=(100.0,) * len(codes),
        )
        records.append(Record(signal.astype(np.float32), FS_HZ, source, FS_HZ, SAMPLES / FS_HZ, report=", ".join(codes)))
    return records


def make(folder: Path, n: int = 240, seed: int = 0, dataset: str = "ptbxl-simulated", **manifest: object) -> Path:
    """Write a finished shard folder of `n` made-up recordings as `folder`; `manifest` says otherwise than it is."""
    folder.mkdir(parents=True)
    shard, rows = write_shard(folder / f"{dataset}-000000.tar", made_up(n, seed, dataset))
    for row in rows:
        row["shard"] = shard.name
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), folder / INDEX)
    facts = {"format_version": FORMAT_VERSION, "dataset": dataset, "dataset_version": "1", "recipe": {}, "leads": LEADS, "fs_hz": FS_HZ}
    facts |= {"samples": SAMPLES, "lsb_uv": 1, "counts": {}, "index_sha256": file_sha256(folder / INDEX), "shards": [asdict(shard)]}
    (folder / MANIFEST).write_text(json.dumps(facts | manifest))
    return folder


def make_run(folder: Path, shards: Path) -> Path:
    """Write a run with a small untrained model as `folder`, as if it were trained on `shards`."""
    small_model(samples=SAMPLES).save_pretrained(folder)
    (folder / "recipe.json").write_text(json.dumps({"recipe": {}, "shards": [str(shards)]}))
    return folder
