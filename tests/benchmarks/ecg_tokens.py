"""Measure ECG tokens: ``python -m tests.benchmarks.ecg_tokens SHARDS --leads 60 --merges 1500 --keep``.

Learning against a plain-Python trainer (count all pairs, merge the most frequent everywhere, again) on the same symbols in one run,
where both must learn the same merges; then, for several clippings, compression, error and speed on the validation split of SHARDS.
Time is the process's own CPU time, on one thread. Written to docs/results/ecg-tokens.json.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np

from cmelt.shards.read import ShardFolder
from cmelt.tokenizer import train
from cmelt.tokens.ecg import ECGTokenizer
from cmelt.tokens.train import learn, pieces
from tests.benchmarks.results import options, tell

CLIPPED = (1.0, 0.1)


def plain(words: list[list[int]], symbols: int, merges: int) -> list[tuple[int, int]]:
    """Return up to `merges` pairs of ids in the order learnt, as one writes it down: all is counted anew for every pair."""
    found: list[tuple[int, int]] = []
    while len(found) < merges:
        counts: Counter[tuple[int, int]] = Counter()
        for word in words:
            counts.update(pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < 2:
            break
        first, second = best
        made = symbols + len(found)
        found.append(best)
        for number, word in enumerate(words):
            if first not in word:
                continue
            merged, place, last = [], 0, len(word) - 1
            while place <= last:
                if place < last and word[place] == first and word[place + 1] == second:
                    merged.append(made)
                    place += 2
                else:
                    merged.append(word[place])
                    place += 1
            words[number] = merged
    return found


def main() -> None:
    """Measure, print, and with --keep write the figures."""
    parser = options(__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--leads", type=int, default=60, help="leads that both trainers learn from")
    parser.add_argument("--merges", type=int, default=1500)
    given = parser.parse_args()
    if (os.environ.get("OMP_NUM_THREADS"), os.environ.get("RAYON_NUM_THREADS")) != ("1", "1"):
        raise SystemExit("set OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1: CPU time is compared")
    folder = ShardFolder(given.shards)
    told: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for clip in CLIPPED:
            began = time.process_time()
            summary = train([given.shards], Path(place) / f"{clip:g}", clip_percent=clip)
            kept = ("vocab_size", "records", "records_merged", "rows", "tokens_per_record", "compression", "rmse_uv", "mean_error_uv")
            told[f"{clip:g}"] = {name: summary[name] for name in (*kept, "clipped_percent")}
            told[f"{clip:g}"]["train_and_measure_cpu_s"] = round(time.process_time() - began, 2)
        tokenizer = ECGTokenizer.from_folder(Path(place) / f"{CLIPPED[0]:g}")
        rows = folder.rows("val")
        ecg = folder.ecg_mv(rows)
        began = time.process_time()
        ids = tokenizer.encode(ecg)
        encode_s = time.process_time() - began
        began = time.process_time()
        back = [tokenizer.decode(one) for one in ids]
        decode_s = time.process_time() - began
        assert np.stack(back).tobytes() == tokenizer.quantised(ecg).tobytes()
    some = tokenizer.scale.quantise(folder.ecg_mv(folder.rows("train")[: -(-given.leads // 12)])).reshape(-1, folder.samples)[: given.leads]
    words = list(pieces([some]))
    began = time.process_time()
    backend = learn(words, 26, given.merges)
    ours_s = time.process_time() - began
    began = time.process_time()
    theirs = plain([[ord(letter) - ord("a") for letter in word] for word in words], 26, given.merges)
    plain_s = time.process_time() - began
    made = json.loads(backend.to_str())["model"]
    ours = [(made["vocab"][first], made["vocab"][second]) for first, second in made["merges"]]
    assert ours == theirs, "the same merges, in the same order"
    tokens = sum(map(len, ids))
    figures = {
        "what": f"{some.size:,} symbols of {len(some)} leads, {len(ours):,} merges, the same from both",
        "ours_s": round(ours_s, 3),
        "plain_python_s": round(plain_s, 1),
        "times_faster": round(plain_s / ours_s, 1),
        "fs_hz": folder.fs_hz,
        "clipped": told,
        "encode_tokens_per_s": round(tokens / encode_s),
        "encode_records_per_s": round(len(ids) / encode_s, 1),
        "decode_tokens_per_s": round(tokens / decode_s),
    }
    tell("ecg-tokens", figures, given)


if __name__ == "__main__":
    main()
