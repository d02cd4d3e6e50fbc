"""Sample order as a pure function of (seed, epoch): computed, never consumed, so it is tested without I/O and resumes anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

CYCLE = 10_000
"""After so many samples a mixture begins anew with whose turn it is; weights are kept to one part in so many."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: its rows (N,) in order, the position at which each window begins, and the shards of each window."""

    rows: Ints
    starts: Ints
    windows: list[Ints]


class Order:
    """The endless sequence of training samples: epoch after epoch, each a two-level shuffle of the same rows.

    Shards are permuted, cut into windows of `window` shards, and the rows of a window are permuted: reads stay within a
    few files at a time, however many shards there are. Sample number g of the sequence (0-based) lies in epoch
    ``g // len(rows)``; batches run across the epoch boundary, so every row is seen exactly once an epoch.
    """

    def __init__(self, rows: Ints, shards: Ints, seed: int, window: int = 16) -> None:
        """Take the row numbers to go through (N,), the shard of each (N,), and a seed."""
        if len(rows) == 0:
            raise ValueError("no rows to order")
        by_shard = np.argsort(shards, kind="stable")
        self.rows, of = np.asarray(rows, np.int64)[by_shard], np.asarray(shards, np.int64)[by_shard]
        self.bounds = np.concatenate([[0], np.flatnonzero(np.diff(of)) + 1, [len(rows)]])  # rows of shard s: bounds[s] … bounds[s + 1]
        self.shards = of[self.bounds[:-1]]
        self.seed = seed
        self.window = window
        self._epochs: dict[int, Epoch] = {}

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self.rows)

    def epoch(self, epoch: int) -> Epoch:
        """Return what `epoch` reads, in order."""
        found = self._epochs.get(epoch)
        if found is None:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, 1, epoch)))
            shards = rng.permutation(len(self.shards))
            windows = [shards[start : start + self.window] for start in range(0, len(shards), self.window)]
            parts = [
                rng.permutation(np.concatenate([self.rows[self.bounds[s] : self.bounds[s + 1]] for s in window])) for window in windows
            ]
            starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
            found = Epoch(np.concatenate(parts), starts, [self.shards[window] for window in windows])
            # Its neighbours stay: a batch runs across their boundary. Another dict, for other threads may be reading this one.
            self._epochs = {e: kept for e, kept in self._epochs.items() if abs(e - epoch) <= 1} | {epoch: found}
        return found

    def at(self, numbers: Ints) -> tuple[Ints, Ints, Ints]:
        """Return rows, epochs and positions in the epoch, each (B,), of the samples `numbers` (B,)."""
        epochs, positions = np.divmod(numbers, len(self.rows))
        rows = np.empty(len(numbers), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self.epoch(int(epoch)).rows[positions[here]]
        return rows, epochs, positions

    def samples(self, first: int, count: int) -> tuple[Ints, Ints, Ints]:
        """Return rows, epochs and positions, each (count,), of samples first … first + count − 1."""
        return self.at(np.arange(first, first + count))

    def upcoming(self, sample: int) -> Ints:
        """Return the shards of the window that `sample` lies in, then those of the next."""
        number, position = divmod(sample, len(self.rows))
        epoch = self.epoch(number)
        window = int(np.searchsorted(epoch.starts, position, side="right")) - 1
        after = epoch.windows[window + 1] if window + 1 < len(epoch.windows) else self.epoch(number + 1).windows[0]
        return np.concatenate([epoch.windows[window], after])


class Mixture:
    """Several orders in fixed shares, each an endless sequence of its own: the smaller folder simply has more epochs.

    Whose turn it is repeats every CYCLE samples, as evenly spread as the shares allow, so every batch holds them to within one
    row. Positions are made distinct by the orders' lengths: (epoch, position) names one reading of one row, as in an `Order`.
    """

    def __init__(self, orders: Sequence[Order], weights: Sequence[float]) -> None:
        """Take the orders and the weight of each; only their proportions count. Raises ValueError for one below 1 : CYCLE."""
        share = np.asarray(weights, float) / sum(weights) * CYCLE
        self.quotas = np.floor(share).astype(np.int64)
        self.quotas[np.argsort(self.quotas - share, kind="stable")[: CYCLE - self.quotas.sum()]] += 1  # largest remainders
        if not self.quotas.all():
            raise ValueError(f"a weight is less than 1/{CYCLE} of the whole")
        self.orders = list(orders)
        turns = np.repeat(np.arange(len(orders)), self.quotas)
        due = np.concatenate([(np.arange(quota) + 0.5) / quota for quota in self.quotas])
        self.turns = turns[np.argsort(due, kind="stable")]  # (CYCLE,) whose turn it is
        self.before = np.stack([np.cumsum(self.turns == k) - (self.turns == k) for k in range(len(orders))])  # (K, CYCLE)
        self.bases = np.cumsum([0, *(len(order) for order in orders[:-1])])

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return sum(map(len, self.orders))

    def samples(self, first: int, count: int) -> tuple[Ints, Ints, Ints]:
        """Return rows, epochs (of the row's own order) and positions, each (count,), of samples first … first + count − 1."""
        cycles, slots = np.divmod(np.arange(first, first + count), CYCLE)
        turns = self.turns[slots]
        rows, epochs, positions = np.empty((3, count), np.int64)
        for number, order in enumerate(self.orders):
            here = turns == number
            own = cycles[here] * self.quotas[number] + self.before[number, slots[here]]
            rows[here], epochs[here], positions[here] = order.at(own)
            positions[here] += self.bases[number]
        return rows, epochs, positions

    def upcoming(self, sample: int) -> Ints:
        """Return the shards that each order reads around `sample`, and next."""
        cycle, slot = divmod(sample, CYCLE)
        owns = (cycle * int(quota) + int(before[slot]) for quota, before in zip(self.quotas, self.before, strict=True))
        return np.concatenate([order.upcoming(own) for order, own in zip(self.orders, owns, strict=True)])


def noise(seed: int, epochs: Ints, positions: Ints, counts: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return uniform noise in [0, 1), one array (B, count) for each of `counts`.

    A number depends on nothing but (seed, which of the arrays, epoch, position, column): a counter-based generator (two rounds of
    the splitmix64 finaliser), so any slice of a batch, on any rank or thread, and of any width, gets what it would have got in the
    whole. Each 64-bit word makes two of them.
    """
    rows = _mix(_mix(epochs.astype(np.uint64)[:, None] + _keys(seed, len(counts))) ^ positions.astype(np.uint64)[:, None])
    lengths = [count // 2 + 1 for count in counts]
    steps = np.arange(1, max(lengths) + 1, dtype=np.uint64) * GOLDEN
    words: NDArray[np.uint64] = np.concatenate([row[:, None] + steps[:length] for row, length in zip(rows.T, lengths, strict=True)], axis=1)
    whole = (_mix(words).astype("<u8", copy=False).view("<u4") >> np.uint32(8)).view("<i4").astype(np.float32)
    whole *= np.float32(2.0**-24)
    starts = 2 * np.cumsum([0, *lengths])
    return [whole[:, start : start + count].copy() for start, count in zip(starts, counts, strict=False)]


GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(8)
def _keys(seed: int, count: int) -> NDArray[np.uint64]:
    """Return a key for each of `count` arrays of noise."""
    numbers: NDArray[np.uint64] = np.arange(1, count + 1, dtype=np.uint64)
    return _mix(np.asarray([seed], np.uint64) * GOLDEN + numbers)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words (the splitmix64 finaliser)."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
