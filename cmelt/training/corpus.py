"""The samples of one split of one or more shard folders, as one long table with one numbering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import ShardError
from cmelt.shards.leaks import overlap
from cmelt.shards.read import ShardFolder


class Corpus:
    """Rows of `split` in `folders`: what pre-training reads. Row numbers run over all folders, in the order given.

    ``reports`` are the distinct non-empty reports; ``report_id`` (N,) says which one a row has; ``group`` (N,) is the
    acquisition group within which wrong reports are dealt (model.md, N3S). Rows without a report are left out and counted
    in ``without_report``; rows whose recording is held out in any of `folders` are left out and counted in ``leaking``, or
    refused, as `leaks` says. Raises ShardError where the folders do not fit each other, leak, or the split is empty.
    """

    def __init__(self, folders: Sequence[Path], split: str, within: str = "device", leaks: str = "keep") -> None:
        self.folders = [ShardFolder(folder) for folder in folders]
        first = self.folders[0]
        for other in self.folders[1:]:
            for what in ("fs_hz", "samples", "leads"):
                if getattr(other, what) != getattr(first, what):
                    raise ShardError(
                        f"{other.path}: {what} is {getattr(other, what)}, but {first.path} has {getattr(first, what)}; "
                        "ingest both with the same recipe"
                    )
        self.fs_hz, self.samples = first.fs_hz, first.samples
        folder_of, row_of, shard_of, reports, groups = [], [], [], [], []
        self.without_report = self.leaking = 0
        shard_base = 0
        for number, folder in enumerate(self.folders):
            rows = folder.rows(split)
            if leaks != "keep":
                held_out = overlap(folder, self.folders)[rows]
                self.leaking += int(held_out.sum())
                rows = rows[~held_out]
            texts = np.asarray(folder.column("report"), dtype=object)[rows]
            told = np.asarray([bool(text) for text in texts], bool)
            self.without_report += int((~told).sum())
            rows, texts = rows[told], texts[told]
            names, shards = np.unique(np.asarray(folder.column("shard"), dtype=object)[rows].astype(str), return_inverse=True)
            folder_of.append(np.full(len(rows), number))
            row_of.append(rows)
            shard_of.append(shards + shard_base)
            shard_base += len(names)
            reports.extend(texts)
            groups.extend(self._groups(folder, rows, within))
        if self.leaking and leaks == "refuse":
            raise ShardError(
                f"{self.leaking} {split} samples are held out in one of the folders (cmelt verify names them); "
                "set data.leaks=drop to leave them out"
            )
        self.folder_of, self.row_of, self.shard_of = (np.concatenate(x).astype(np.int64) for x in (folder_of, row_of, shard_of))
        if not len(self.row_of):
            raise ShardError(f"{', '.join(str(f.path) for f in self.folders)}: no sample of the {split} split has a report")
        distinct, ids = np.unique(np.asarray(reports, dtype=str), return_inverse=True)
        self.reports: list[str] = distinct.tolist()
        self.report_id: NDArray[np.int64] = ids.astype(np.int64)
        self.group: NDArray[np.int64] = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int64)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.row_of)

    @staticmethod
    def _groups(folder: ShardFolder, rows: NDArray[np.int64], within: str) -> list[str]:
        """Return the first word of index column `within` for each row, with the data set's name before it."""
        if not within:
            return [""] * len(rows)
        values = np.asarray(folder.column(within), dtype=object)[rows]
        family = [str(value).split()[0] if str(value).split() else "" for value in values]
        return [f"{folder.manifest['dataset']}/{name}" for name in family]

    def ecg(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the samples of `rows` (B,): (B, 12, samples) int16, in units of lsb_uv µV."""
        out = np.empty((len(rows), 12, self.samples), np.int16)
        for number, folder in enumerate(self.folders):
            here = np.flatnonzero(self.folder_of[rows] == number)
            if len(here):
                out[here] = folder.ecg(self.row_of[rows[here]])
        return out

    def column(self, name: str) -> list[object]:
        """Return index column `name` over all rows."""
        values: list[object] = []
        for number, folder in enumerate(self.folders):
            column = folder.column(name)
            values.extend(column[row] for row in self.row_of[self.folder_of == number])
        return values
