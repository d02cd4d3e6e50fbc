"""What the reports of a corpus say of each finding that a model's entity queries stand for.

b rows, R distinct reports, E findings.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmelt.errors import CheckpointError
from cmelt.text.entities import entity_matrix, known_entities


class FindingTable:
    """The findings of every report, each report read when it is first wanted: a run does not wait for all of them."""

    def __init__(self, codes: Sequence[str], reports: Sequence[str]) -> None:
        """Take the findings by their codes, in the model's order, and the distinct reports. Raises CheckpointError."""
        column = {entity.code: at for at, entity in enumerate(known_entities())}
        foreign = [code for code in codes if code not in column]
        if foreign:
            raise CheckpointError(f"the model asks for findings that no rule reads: {', '.join(foreign)}; train it with the cmelt it is of")
        self.reports = reports
        self.columns = [column[code] for code in codes]
        self.table = np.zeros((len(reports), len(codes)), np.int8)
        self.is_read = np.zeros(len(reports), bool)
        self._lock = threading.Lock()

    def rows(self, wanted: NDArray[np.int64]) -> Tensor:
        """Return what the reports `wanted` (b,) say, (b, E) int8, as `entity_matrix` writes it."""
        if len(self.columns) and not self.is_read[wanted].all():
            with self._lock:
                absent = np.unique(wanted[~self.is_read[wanted]])
                self.table[absent] = entity_matrix([self.reports[report] for report in absent])[:, self.columns]
                self.is_read[absent] = True  # last: another thread looks here without the lock
        return torch.from_numpy(self.table[wanted])
