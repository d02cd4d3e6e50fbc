"""Gains that are known to be declared wrong: the headers of the CinC Challenge 2020 that are still passed around.

Corrected only where the database and the declared gain are in the table *and* the amplitudes bear it out; flagged either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmelt.origins import database_of
from cmelt.signal.checks import PLAUSIBLE_MV, median_height_mv
from cmelt.signal.header import Channel

RIGHT_GAINS: dict[tuple[str, float], float] = {
    ("georgia", 4880.0): 1000.0,
    ("ptb-xl", 200.0): 1000.0,
    ("ptb", 2_000_000.0): 1000.0,
}
"""Database and declared gain → the right gain, adu/mV."""


def right_gains(path: str, channels: Sequence[Channel], stored: NDArray[np.int16], fs_hz: float) -> tuple[tuple[Channel, ...], list[str]]:
    """Return `channels` with the gains that hold, and a flag where the declared ones are known to be wrong.

    `path` tells the database; `stored` (channels, samples) are the samples as stored.
    """
    declared = {channel.gain_adu_per_unit / channel.mv_per_unit for channel in channels}
    right = RIGHT_GAINS.get((database_of(path), declared.pop())) if len(declared) == 1 else None
    if right is None:
        return tuple(channels), []
    if PLAUSIBLE_MV[0] <= median_height_mv(np.divide(stored, right, dtype=np.float32), fs_hz) <= PLAUSIBLE_MV[1]:
        return tuple(channel._replace(gain_adu_per_unit=right, mv_per_unit=1.0) for channel in channels), ["gain_corrected"]
    return tuple(channels), ["gain_doubtful"]
