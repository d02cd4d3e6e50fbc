"""Leads by name: which row of a recording is which of LEADS, and the limb leads that follow from two others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import RecordError
from cmelt.record import LEADS

ROW = {lead.upper(): row for row, lead in enumerate(LEADS)}

# Each limb lead from two others (Einthoven, Goldberger): lead = a * first + b * second.
DERIVED: dict[str, tuple[tuple[str, str, float, float], ...]] = {
    "I": (("II", "III", 1.0, -1.0),),
    "II": (("I", "III", 1.0, 1.0),),
    "III": (("II", "I", 1.0, -1.0),),
    "aVR": (("I", "II", -0.5, -0.5),),
    "aVL": (("I", "II", 1.0, -0.5),),
    "aVF": (("II", "I", 1.0, -0.5),),
}


@lru_cache(1024)
def lead_row(name: str) -> tuple[int, int] | None:
    """Return (row in LEADS, sign) of a lead by its name, None for a lead that is not one of the twelve (MLII, vx)."""
    plain = name.strip().upper()
    sign = -1 if plain.startswith("-") else 1
    row = ROW.get(plain.lstrip("-"))
    return None if row is None else (row, sign)


def map_leads(names: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Return row in LEADS → (channel, sign) for the channels called `names`; raises RecordError bad_header for a repeated lead."""
    mapped: dict[int, tuple[int, int]] = {}
    for channel, name in enumerate(names):
        found = lead_row(name)
        if found is None:
            continue
        if found[0] in mapped:
            raise RecordError("bad_header", f"two signals are called {name.strip()[:20]!r}")
        mapped[found[0]] = (channel, found[1])
    return mapped


def derive_leads(signal: NDArray[np.float32], present: set[int]) -> list[str]:
    """Fill the absent limb leads of `signal` (12, samples) in place from the `present` rows; returns the names still missing."""
    for _ in range(2):  # a second round: III and aVF give nothing until I or II is known
        for lead, ways in DERIVED.items():
            for first, second, a, b in ways:
                rows = LEADS.index(first), LEADS.index(second)
                if LEADS.index(lead) not in present and present.issuperset(rows):
                    signal[LEADS.index(lead)] = a * signal[rows[0]] + b * signal[rows[1]]
                    present.add(LEADS.index(lead))
    return [lead for row, lead in enumerate(LEADS) if row not in present]
