"""A finished shard folder, read: index columns, and any sample's samples by one positioned read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt.errors import ShardError
from cmelt.shards.format import INDEX
from cmelt.shards.manifest import read_manifest

MOST_HANDLES = 128
"""Files a folder keeps open: systems allow about a thousand a process, and a loader may read several folders."""


class ShardFolder:
    """A shard folder. Cheap to pickle and safe to use after a fork: file handles are opened where they are used."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self.fs_hz: float = self.manifest["fs_hz"]
        self.samples: int = self.manifest["samples"]
        self.leads: tuple[str, ...] = tuple(self.manifest["leads"])
        try:
            self.index: pa.Table = pq.read_table(self.path / INDEX)
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{self.path / INDEX}: {str(error).splitlines()[0]}; make the folder again with cmelt ingest") from None
        shards = self.index.column("shard").combine_chunks().dictionary_encode()
        self._names: list[str] = shards.dictionary.to_pylist()
        self._shard = shards.indices.to_numpy().astype(np.int32)
        self._offset = self.index.column("ecg_offset").to_numpy()
        self._handles: dict[int, int] = {}

    def __len__(self) -> int:
        return self.index.num_rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def ecg(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the samples (len(rows), 12, samples) of index `rows`, int16 in units of lsb_uv, in the order asked."""
        out = np.empty((len(rows), len(self.leads), self.samples), "<i2")
        for array, row in zip(out, rows, strict=True):
            if os.preadv(self._handle(int(self._shard[row])), [array.data], int(self._offset[row])) != array.nbytes:
                name = self._names[self._shard[row]]
                raise ShardError(f"{self.path / name} ends inside a sample; cmelt verify {self.path} says what else is wrong")
        return out

    def ecg_mv(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the samples (len(rows), 12, samples) of index `rows` in mV."""
        return np.multiply(self.ecg(rows), np.float32(self.manifest["lsb_uv"] * 1e-3), dtype=np.float32)

    def column(self, name: str) -> list[Any] | NDArray[Any]:
        """Return an index column: an array for numbers (NaN where null), else a list."""
        if name not in self.index.column_names:
            raise ShardError(f"{self.path / INDEX} has no column {name!r}; it has {', '.join(self.index.column_names)}")
        column = self.index.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return column.to_numpy()
        return column.to_pylist()

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split (train, val, test), ascending."""
        return np.flatnonzero(np.array(self.column("split"), dtype=object) == split)

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            if len(self._handles) >= MOST_HANDLES:
                os.close(self._handles.pop(next(iter(self._handles))))
            file = self.path / self._names[shard]
            try:
                self._handles[shard] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise ShardError(f"{file}: {error.strerror}; cmelt verify {self.path} says what else is wrong") from None
        return self._handles[shard]
