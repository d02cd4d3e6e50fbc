"""Sample order as a pure function of (seed, epoch): computed, never consumed, so it is tested without I/O and resumes anywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Order:
    """The endless sequence of training samples: epoch after epoch, each a two-level shuffle of the same rows.

    Shards are permuted, cut into windows of `window` shards, and the rows of a window are permuted: reads stay within a
    few files at a time, however many shards there are. Sample number g of the sequence (0-based) lies in epoch
    ``g // len(rows)``; batches run across the epoch boundary, so every row is seen exactly once an epoch.
    """

    def __init__(self, rows: NDArray[np.int64], shards: NDArray[np.int64], seed: int, window: int = 16) -> None:
        """Take the row numbers to go through (N,), the shard of each (N,), and a seed."""
        if len(rows) == 0:
            raise ValueError("no rows to order")
        by_shard = np.argsort(shards, kind="stable")
        self.rows = np.asarray(rows, np.int64)[by_shard]
        _, starts = np.unique(np.asarray(shards)[by_shard], return_index=True)
        self.bounds = np.append(starts, len(rows))  # rows of shard s: bounds[s] … bounds[s + 1]
        self.seed = seed
        self.window = window
        self.cache: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self.rows)

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows (N,) in the order of `epoch`."""
        if epoch not in self.cache:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, 1, epoch)))
            shards = rng.permutation(len(self.bounds) - 1)
            parts = []
            for start in range(0, len(shards), self.window):
                window = [self.rows[self.bounds[s] : self.bounds[s + 1]] for s in shards[start : start + self.window]]
                parts.append(rng.permutation(np.concatenate(window)))
            self.cache = {e: rows for e, rows in self.cache.items() if e == epoch - 1}  # two epochs at most
            self.cache[epoch] = np.concatenate(parts)
        return self.cache[epoch]

    def samples(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return rows, epochs and positions in the epoch, each (count,), of samples first … first + count − 1."""
        numbers = np.arange(first, first + count)
        epochs, positions = np.divmod(numbers, len(self.rows))
        rows = np.concatenate([self.epoch(int(e))[positions[epochs == e]] for e in np.unique(epochs)])
        return rows, epochs, positions


def noise(seed: int, stream: int, epochs: NDArray[np.int64], positions: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Return uniform noise in [0, 1), (B, count), that depends on nothing but (seed, stream, epoch, position, column).

    A counter-based generator (two rounds of the splitmix64 finaliser), so any slice of a batch, on any rank or thread,
    gets the numbers it would have got in the whole.
    """
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream) + np.uint64(1))
        rows = _mix(_mix(epochs.astype(np.uint64) + key) ^ positions.astype(np.uint64))
        bits = _mix(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64)[None, :] * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Scramble 64-bit words (the splitmix64 finaliser)."""
    x = np.asarray(x, np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
