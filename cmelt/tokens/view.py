"""What a tokenizer sees of an ECG: some leads of it, at a rate of its own."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from cmelt.errors import InputError


def view(ecg_mv: NDArray[np.float32], leads: Sequence[str], fs_hz: float, wanted: Sequence[str], wanted_hz: float) -> NDArray[np.float32]:
    """Return of ECGs (N, L, S) in mV, with `leads` at `fs_hz`, the `wanted` leads in their order at `wanted_hz`: (N, L', S').

    Raises InputError for a lead that is not there, and for a rate above `fs_hz`: what was never recorded cannot be told.
    """
    missing = [lead for lead in wanted if lead not in leads]
    if missing:
        raise InputError(f"no lead {', '.join(missing)}; there are {' '.join(leads)}")
    if wanted_hz > fs_hz:
        raise InputError(f"ECGs at {fs_hz:g} Hz for a tokenizer of {wanted_hz:g} Hz; train one on shards of that rate, or lower")
    if tuple(wanted) != tuple(leads):
        ecg_mv = ecg_mv[:, [leads.index(lead) for lead in wanted]]
    if wanted_hz == fs_hz:
        return ecg_mv
    ratio = Fraction(wanted_hz / fs_hz).limit_denominator(1000)
    return np.ascontiguousarray(resample_poly(ecg_mv, ratio.numerator, ratio.denominator, axis=-1), np.float32)
