"""Filter and resample records of some whole seconds by products of matrices, in place of two long FFTs.

What a sample gives to the result is large nearby and, farther off, the smooth ringing of a few slow modes: the wander that a high-pass
takes out, the mains that a notch does. So a record is cut into blocks. What a block gives to the two blocks of the result that
meet in its middle is one product with a matrix. What it gives to all others depends on a few numbers of it, which are further columns
of that product; one matrix makes of the numbers of all blocks, and of their mirror images beyond both ends, those of the
result's blocks, which are drawn as samples again. Half the time of the FFTs, and the same to about 0.1 % of a lead's peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_S = 0.2
LONGEST_S = 15.0
"""Of longer records the padding is a small part, and the blocks are many: FFTs are as fast."""
FAINT = 1e-3
"""Modes whose share of the response is smaller are left out."""
WIDE = 8
"""Blocks farther apart than this know no modes that nearer ones do not."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The matrices for records of one length."""

    line: NDArray[np.float32]
    """From 1 to 0, and from 0 to 1, (2, samples): of these the line through a record's ends is made."""
    near: NDArray[np.float32]
    """A block's samples → what it gives to the block that ends, and to the one that begins, in its middle; and its numbers."""
    join: NDArray[np.float32]
    """The numbers of all blocks → those of the result's blocks."""
    draw: NDArray[np.float32]
    """A block's numbers → its samples (few, samples at the new rate)."""

    def apply(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `signal` (leads, samples) filtered and resampled."""
        leads, samples = signal.shape
        size, (few, there) = len(self.near), self.draw.shape
        half = size // 2
        padded = np.empty((leads, samples + size), np.float32)
        padded[:, [0, -1]] = 0
        inner = padded[:, half:-half]
        np.subtract(signal, signal[:, [0, -1]] @ self.line, out=inner)  # both ends are 0 then: to continue oddly is to negate
        np.negative(inner[:, half - 1 : 0 : -1], out=padded[:, 1:half])
        np.negative(inner[:, -2 : -half - 1 : -1], out=padded[:, -half:-1])
        parts = (padded.reshape(-1, size) @ self.near).reshape(leads, -1, self.near.shape[1])
        numbers = parts[:, :, 2 * there :].reshape(leads, -1) @ self.join
        result: NDArray[np.float32] = np.matmul(numbers.reshape(-1, few), self.draw).reshape(leads, -1, there)
        result += parts[:, :-1, :there]
        result += parts[:, 1:, there : 2 * there]
        return result.reshape(leads, -1)


def block_size(samples: int, fs_raw_hz: float, down: int) -> int:
    """Return the samples of a block: even, a multiple of `down`, about BLOCK_S; 0 where none fits into each second of the record."""
    if fs_raw_hz % 1 or samples % fs_raw_hz or samples > LONGEST_S * fs_raw_hz:
        return 0
    aim = BLOCK_S * fs_raw_hz
    sizes = [size for size in range(down, int(2 * aim) + 1, down) if size % 2 == 0 and fs_raw_hz % size == 0 and size >= aim / 2]
    return min(sizes, key=lambda size: abs(size - aim), default=0)


def make_blocks(response: NDArray[np.float64], samples: int, size: int, up: int, down: int) -> Blocks:
    """Return how to filter records of `samples` in blocks of `size`, for a new rate that is `up` / `down` of the old one.

    `response` is what a sample gives to the result, at lags that are multiples of 1 / `up` of a sample; negative ones stand at its end.
    """
    count, there, step = samples // size, size // down * up, size * up
    into, out = (np.arange(size)[:, None] - size // 2) * up, np.arange(there) * down  # a block begins half a block before the result's
    offset = np.arange(-count, count + 1)
    direct = response[out - into - offset[:, None, None] * step]  # (offsets, size, there)
    far = direct[((offset < 0) | (offset > 1)) & (abs(offset) < WIDE)]
    see, draw = basis(far.transpose(1, 0, 2).reshape(size, -1)), basis(far.transpose(2, 0, 1).reshape(there, -1))
    mirrors = out + into + np.arange(2 * count)[:, None, None] * step  # a block before the record: the distance to its image
    left, right = response[mirrors], response[mirrors - 2 * (samples - 1) * up]
    blocks, results = np.arange(count + 1)[:, None], np.arange(count)
    apart, sums = blocks - results, blocks + results
    distant = ((apart < 0) | (apart > 1))[:, :, None, None]
    join = np.where(distant, (see.T @ direct @ draw)[apart + count], 0)  # (blocks, results, few, few)
    join[1:] -= (see.T @ left @ draw)[sums[1:]]
    join[:-1] -= (see.T @ right @ draw)[sums[:-1]]
    few = join.transpose(0, 2, 1, 3).reshape(len(blocks) * see.shape[1], -1)
    near = np.concatenate([direct[count], direct[count + 1], see], 1)
    along = np.linspace(0, 1, samples)
    return Blocks(*(matrix.astype(np.float32) for matrix in (np.stack([1 - along, along]), near, few, draw.T)))


def basis(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return orthonormal columns (samples, few) of which `columns`, read forwards and backwards, are made, but for what is faint."""
    product = columns @ columns.T
    power, vectors = np.linalg.eigh(product + product[::-1, ::-1])
    return vectors[:, power > FAINT**2]
