"""How fast training batches are made: by webdataset, by cmelt, and how fast the same tars can be read at all.

Shuffled batches of 64 with float32 mV, token ids and masks, from the same shards, in turn; medians of the rounds. webdataset has
0, 1 or 2 worker processes, whichever is best, and its tokens are cached, too; cmelt has 2 threads, and deals wrong reports besides.
The raw read goes through the tars from first to last with plain reads, out of the page cache.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset
from torch.utils.data import DataLoader

from cmelt.config import PretrainRecipe, load_recipe
from cmelt.models.cmelt import CMELT
from cmelt.models.masking import mask_text
from cmelt.shards.format import INDEX, MANIFEST, shard_name
from cmelt.shards.manifest import file_sha256
from cmelt.text.tokenizer import ReportTokenizer
from cmelt.training.corpus import Corpus
from cmelt.training.loader import Loader
from cmelt.training.negatives import Dealer, report_embeddings
from tests.benchmarks.results import options, tell
from tests.laid import lay

BATCH, SAMPLES, TOKENS = 64, 5000, 312
CHANGES = [f"train.batch={BATCH}", "data.threads=2", "data.leaks=keep"]


class Pipeline:
    """What a webdataset user writes: decode, tokenise once a report, batch, mask."""

    def __init__(self, tokenizer: ReportTokenizer, recipe: PretrainRecipe) -> None:
        self.tokenizer, self.masking = tokenizer, recipe.masking
        self.known: dict[str, list[int]] = {}
        self.rng = np.random.default_rng(0)

    def sample(self, sample: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
        """Return the signal in mV and the token ids of one sample."""
        report = sample["txt"]
        if report not in self.known:
            self.known[report] = self.tokenizer.encode([report])[0]
        return sample["ecg.npy"].astype(np.float32) * np.float32(1e-3), self.known[report]

    def batch(self, samples: list[tuple[np.ndarray, list[int]]]) -> dict[str, torch.Tensor]:
        """Return a batch: stacked, padded, masked."""
        ecg = torch.from_numpy(np.stack([ecg for ecg, _ in samples]))
        length = max(len(ids) for _, ids in samples)
        ids = torch.full((len(samples), length), self.tokenizer.pad_id)
        padding = torch.ones((len(samples), length), dtype=torch.bool)
        for row, (_, values) in enumerate(samples):
            ids[row, : len(values)] = torch.tensor(values)
            padding[row, : len(values)] = False
        noise = torch.from_numpy(self.rng.random((len(samples), 3, length), np.float32))
        ids, labels = mask_text(ids, padding, noise, self.masking.text_prob, self.tokenizer)
        kept = torch.from_numpy(self.rng.random((len(samples), 12, 1), np.float32)) >= self.masking.lead_prob
        tokens = torch.from_numpy(self.rng.random((len(samples), TOKENS), np.float32))
        return {"ecg": ecg * kept, "target": ecg, "ids": ids, "padding": padding, "labels": labels, "noise": tokens}


def webdataset_batches(tars: list[str], pipeline: Pipeline, workers: int) -> Iterator[Any]:
    """Return the batches of a webdataset pipeline, without end."""
    data = webdataset.WebDataset(tars, shardshuffle=16).repeat().shuffle(1000).decode()
    data = data.map(pipeline.sample).batched(BATCH, collation_fn=pipeline.batch, partial=False)
    return iter(DataLoader(data, batch_size=None, num_workers=workers))


def rate(batches: Iterator[Any], warm: int, count: int) -> tuple[float, float]:
    """Return samples a second, and samples a second of this process's computing, over `count` batches, after `warm` others."""
    for _ in range(warm):
        next(batches)
    started, computed = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return BATCH * count / (time.perf_counter() - started), BATCH * count / (time.process_time() - computed)


def read_all(tars: list[str], samples: int) -> tuple[float, float]:
    """Return samples a second, and a second of computing, when the tars are read from first to last and nothing is made of them."""
    room = memoryview(bytearray(1 << 20))
    started, computed = time.perf_counter(), time.process_time()
    for tar in tars:
        with open(tar, "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered
            while file.readinto(room):
                pass
    return samples / (time.perf_counter() - started), samples / (time.process_time() - computed)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the rates, in turn, and what they are to one another."""
    recipe: PretrainRecipe = load_recipe("pretrain", "tiny", [*CHANGES, "model.conv_layers=[[8,2,2],[8,2,2],[8,2,2],[8,2,2]]"])
    corpus = Corpus([folder], "train", recipe.negatives.within, recipe.data)
    model = CMELT.create(recipe.model, corpus.fs_hz, corpus.samples, corpus.reports, 0)
    loader = Loader(corpus, model, recipe, Dealer(report_embeddings(corpus.reports), recipe.negatives.mode))
    assert loader.ecg_tokens == TOKENS
    pipeline = Pipeline(loader.tokens, recipe)
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    everything = len(corpus.folders[0])
    epoch = len(corpus) // BATCH
    first = iter(range(0, 1_000_000, 2 * epoch))

    def ours() -> tuple[float, float]:
        begin = next(first)
        batches = loader.batches(begin, begin + 2 * epoch)
        found = rate(batches, 8, epoch)
        batches.close()
        return found

    ways: dict[str, Callable[[], tuple[float, float]]] = {"raw": lambda: read_all(tars, everything), "cmelt": ours}
    for workers in (0, 1, 2):
        ways[f"webdataset_{workers}"] = lambda workers=workers: rate(webdataset_batches(tars, pipeline, workers), 25, 20)  # type: ignore[misc]
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            found = way()
            if turn:
                rates[name].append(found)
    wall, computing = ({name: statistics.median(one[at] for one in found) for name, found in rates.items()} for at in (0, 1))
    best = max(wall[f"webdataset_{workers}"] for workers in (0, 1, 2))
    return {
        "ratio_vs_webdataset": wall["cmelt"] / best,
        "ratio_vs_raw_read": wall["cmelt"] / wall["raw"],
        "cpu_ratio_vs_webdataset": computing["cmelt"] / computing["webdataset_0"],
        "cpu_ratio_vs_raw_read": computing["cmelt"] / computing["raw"],
        **{f"samples_per_s_{name}": found for name, found in wall.items()},
        **{f"samples_per_cpu_s_{name}": computing[name] for name in ("raw", "cmelt", "webdataset_0")},
        **start_up(corpus.folders[0].path.parent, model, recipe),
    }


def many_shards(place: Path, shards: int = 1000) -> Path:
    """Lay a folder of `shards` shards of 800 samples each, with some 160,000 distinct reports; return it.

    The tars have their lengths, and hold nothing but zeros: no start looks into them.
    """
    one, folder = lay(place / "one", [800], samples=SAMPLES, fs_hz=500.0), place / "many"
    folder.mkdir()
    manifest = json.loads((one / MANIFEST).read_text())
    names = [shard_name("made", at) for at in range(shards)]
    index = pa.concat_tables([pq.read_table(one / INDEX)] * shards)
    columns = {
        "shard": [name for name in names for _ in range(800)],
        "key": [f"{number:07d}" for number in range(len(index))],
        "signal_sha1": [f"{number:08x}" * 5 for number in range(len(index))],
        "report": [f"{report} qt {number // 4000}" for number, report in enumerate(index.column("report").to_pylist())],
    }
    for name, values in columns.items():
        index = index.set_column(index.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(index, folder / INDEX)
    for name in names:
        with (folder / name).open("wb") as tar:
            tar.truncate(manifest["shards"][0]["bytes"])
    listed = [manifest["shards"][0] | {"name": name} for name in names]
    (folder / MANIFEST).write_text(json.dumps(manifest | {"shards": listed, "index_sha256": file_sha256(folder / INDEX)}))
    return folder


def start_up(place: Path, model: CMELT, recipe: PretrainRecipe) -> dict[str, float]:
    """Return the seconds, and those of computing, from opening 1,000 shards to the first batch, and to that at 90 % of an epoch."""
    folder, data = many_shards(place), recipe.data.model_copy(update={"leaks": "drop"})
    told = {}
    for name, share in (("first_batch", 0.0), ("resume_at_90_percent", 0.9)):
        taken = []
        for _ in range(3):
            started, computed = time.perf_counter(), time.process_time()
            corpus = Corpus([folder], "train", recipe.negatives.within, data)
            dealer = Dealer(np.zeros((len(corpus.reports), 1), np.float32))  # report embeddings are made once a run, and kept
            batches = Loader(corpus, model, recipe, dealer).batches(int(share * len(corpus)) // BATCH, 1_000_000)
            next(batches)
            taken.append((time.perf_counter() - started, time.process_time() - computed))
            batches.close()
        told[f"{name}_s"], told[f"{name}_cpu_s"] = (statistics.median(times) for times in zip(*taken, strict=True))
    return told


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        sizes = [250] * (arguments.samples // 250)
        folder = lay(Path(place, "shards"), sizes, samples=SAMPLES, fs_hz=500.0)
        told = {"samples": sum(sizes), "load": os.getloadavg()[0], **measure(folder, arguments.rounds)}
    told = {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}
    tell("loader", told, arguments)


if __name__ == "__main__":
    main()
