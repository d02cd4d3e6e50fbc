"""Measure `cmelt pretrain` end to end on simulated records: python -m tests.benchmarks.pretrain [--recipe base] [--steps 3] [--batch 16].

Samples a second and the share of the time that the loop waits for data, as the run itself logs them, validation and saving apart. The
first step, in which the first batch is made and memory first touched, is told on its own. Text encoders start at random: offline.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path

import torch

from cmelt.config import load_recipe
from cmelt.ingest import ingest
from cmelt.pretrain import pretrain
from cmelt.simulate import simulate
from tests.benchmarks.results import options, tell


def measure(recipe: str, steps: int, batch: int, records: int, folder: Path) -> dict[str, object]:
    """Return the speed and the waiting of a run of `steps` steps of `batch` pairs, 10 s at 500 Hz."""
    simulate(folder / "raw", records=records)
    ingest("ptbxl", folder / "raw", folder / "shards", load_recipe("ingest", "clinical"), workers=1)
    every = max(1, steps // 10)
    changes = [f"train.steps={steps}", f"train.batch={batch}", f"train.log_every={every}", "train.validate_batches=1", "train.keep=1"]
    changes += ["model.text_init=random", "model.tokenizer=reports"]
    summary = pretrain([folder / "shards"], load_recipe("pretrain", recipe, changes), folder / "run", quiet=True)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    rest = train[1:] or train
    return {
        "recipe": recipe,
        "parameters": summary["parameters"],
        "batch": batch,
        "steps": steps,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "samples_per_s": round(statistics.median(line["samples_per_s"] for line in rest), 2),
        "data_wait": round(statistics.mean(line["data_wait"] for line in rest), 5),
        "data_wait_worst": round(max(line["data_wait"] for line in rest), 5),
        "data_wait_first": round(train[0]["data_wait"], 5),
        "memory_mb": round(train[-1]["memory_mb"]),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--recipe", default="base")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--records", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.recipe, given.steps, given.batch, given.records, Path(folder))
    tell("pretrain-time", found, given)


if __name__ == "__main__":
    main()
