"""CODE's containers: HDF5 files with ``tracings`` (n, 4096, 12) in mV at 400 Hz, each padded with zeros on both sides.

A recording's path is the file's, '#', and its row. Whether the file's augmented limb leads stand as aVR aVL aVF or in another
order is decided once a file, from its own signals: two editions of CODE-test's description disagree.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import MissingExtra, RecordError
from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.checks import augmented_order
from cmelt.signal.decode import Decoded, decoded_leads

VOTERS = 32
"""Recordings of a file that are asked for the order of its leads."""


def decode_tracing(raw: Raw, path: str, *, fs_hz: float, order: str = "stated") -> Decoded:
    """Return the recording at `path` (FILE#ROW), zero padding off.

    `order` is 'stated' (I II III aVR aVL aVF V1-V6) or 'decided', by the Goldberger relations over the whole file.
    """
    file, _, row = path.rpartition("#")
    tracings = open_tracings(raw, file)
    if not row.isdigit() or int(row) >= len(tracings):
        raise RecordError("missing_file", f"{file} has no row {row}")
    mv = trim(read_row(tracings, int(row), file))
    if not mv.shape[1]:
        raise RecordError("no_signal", "every sample is zero")
    names = list(LEADS)
    if order == "decided":
        names[3:6] = lead_order(raw.folder, file, raw.stamp(file))
    return decoded_leads(mv.astype(np.float64), names, fs_hz)


def read_row(tracings: Any, row: int, file: str) -> NDArray[np.float32]:
    """Return one tracing as stored, (12, samples)."""
    try:
        return np.asarray(tracings[row], np.float32).T
    except (OSError, ValueError, TypeError) as error:
        raise RecordError("unreadable", f"{file}#{row}: {str(error).splitlines()[0][:120]}") from None


def trim(mv: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `mv` (leads, samples) without the samples at either end that are zero in every lead."""
    live = np.flatnonzero(mv.any(axis=0))
    return mv[:, live[0] : live[-1] + 1] if len(live) else mv[:, :0]


def open_tracings(raw: Raw, file: str) -> Any:
    """Return dataset ``tracings`` (n, samples, 12) of an HDF5 file; raises RecordError, and MissingExtra without h5py."""
    return _tracings(raw.folder, file, raw.stamp(file))


@lru_cache(32)  # CODE-15 has eighteen files, and a shard's recordings lie in all of them
def _tracings(folder: str, file: str, _stamp: tuple[int, int]) -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", "hdf5") from None
    try:
        found = h5py.File(Raw(folder).random_access(file), "r")["tracings"]
    except (OSError, KeyError, RuntimeError) as error:
        raise RecordError("unreadable", f"{file}: {str(error).splitlines()[0][:120]}") from None
    if found.ndim != 3 or found.shape[2] != len(LEADS) or found.dtype.kind != "f":
        raise RecordError("unreadable", f"tracings is {found.dtype} {found.shape}, not float (n, samples, 12)")
    return found


@lru_cache(8)
def lead_order(folder: str, file: str, stamp: tuple[int, int]) -> list[str]:
    """Return the names of channels 3 to 5 of a file: the order that most of a sample of its recordings obey."""
    tracings = _tracings(folder, file, stamp)
    votes: Counter[tuple[int, ...]] = Counter()
    for row in np.unique(np.linspace(0, len(tracings) - 1, min(VOTERS, len(tracings))).astype(int)):
        signal = trim(read_row(tracings, int(row), file))
        if signal.shape[1]:
            votes[augmented_order(signal)] += 1
    order = votes.most_common(1)[0][0] if votes else (0, 1, 2)
    return [LEADS[3 + order.index(channel)] for channel in range(3)]
