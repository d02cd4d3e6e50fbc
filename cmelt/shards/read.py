"""A finished shard folder, read: index columns, and any sample's samples by one positioned read. A folder may lie at a URL."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt.errors import ShardError
from cmelt.remote import Remote, local_path
from cmelt.shards.cache import ShardCache, Wanted
from cmelt.shards.format import INDEX, MANIFEST
from cmelt.shards.manifest import file_sha256, parse_manifest, read_manifest
from cmelt.shards.where import Where

MOST_FILES = 128
"""Files a folder keeps open: systems allow about a thousand a process, and a loader may read several folders."""
OPEN_AT_ONCE = 64
"""Samples that are looked up in one go; their files stay open meanwhile."""
READ_AT_ONCE = 4
"""Samples that are read, converted and scaled in one go: they stay in a core's cache meanwhile."""


class ShardFolder:
    """A shard folder; index columns are read when they are asked for, and kept.

    Several threads may read at once. Cheap to pickle and safe to use after a fork: files are opened where they are used. Of a
    folder at a URL, shards are fetched whole into `cache` (default: one of the usual size).
    """

    def __init__(self, path: Path | str, cache: ShardCache | None = None) -> None:
        self.place = str(path)
        """The folder's path or URL."""
        local = local_path(path)
        self.path = local or Path(self.place)
        self._remote = None if local else Remote(self.place)
        self._cache = None if local else cache or ShardCache()
        if self._cache:
            self._cache.readers.add(self)
        self._files: dict[int, File] = {}
        self._opening = threading.Lock()
        self.manifest: dict[str, Any] = read_manifest(local) if local else parse_manifest(self._far(MANIFEST), f"{self.place}/{MANIFEST}")
        self.fs_hz: float = self.manifest["fs_hz"]
        self.samples: int = self.manifest["samples"]
        self.leads: tuple[str, ...] = tuple(self.manifest["leads"])
        self.lsb_mv: float = self.manifest["lsb_uv"] * 1e-3
        self._listed = {shard["name"]: shard for shard in self.manifest["shards"]}
        self._far_index = b"" if local else self._far(INDEX)
        self._columns: dict[str, pa.ChunkedArray] = {}
        self.schema: pa.Schema = self._parquet(pq.read_schema)
        shards = self.encoded("shard")
        numbers = shards.indices.to_numpy(zero_copy_only=False)
        used = pc.unique(shards.indices)  # in the order of the index, whatever the order of the file's dictionary
        self._names: list[str] = shards.dictionary.take(used).to_pylist()
        number_of = np.zeros(len(shards.dictionary), np.int32)
        number_of[used.to_numpy()] = np.arange(len(used))
        self._shard = number_of[numbers]
        self._offset = self.table(["ecg_offset"]).column(0).to_numpy()

    def __len__(self) -> int:
        return len(self._shard)

    def __str__(self) -> str:
        return self.place

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_opening", "_remote")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remote = Remote(self.place) if self._cache else None
        self._files, self._opening = {}, threading.Lock()
        if self._cache:
            self._cache.readers.add(self)

    @property
    def index(self) -> pa.Table:
        """Return the whole index, a row a sample."""
        return self.table(self.schema.names)

    @property
    def is_remote(self) -> bool:
        """Say whether the folder lies at a URL."""
        return self._remote is not None

    def table(self, names: Sequence[str]) -> pa.Table:
        """Return the index columns `names`; raises ShardError for one that there is not."""
        self._check(names)
        absent = [name for name in names if name not in self._columns]
        if absent:
            found = self._parquet(lambda file: pq.read_table(file, columns=absent))
            self._columns |= dict(zip(found.column_names, found.columns, strict=True))
        return pa.table({name: self._columns[name] for name in names})

    def column(self, name: str) -> list[Any] | NDArray[Any]:
        """Return an index column, a value a row: an array (N,) for numbers (NaN where null), else a list."""
        column = self.table([name]).column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return column.to_numpy()
        return column.to_pylist()

    def encoded(self, name: str) -> pa.DictionaryArray:
        """Return index column `name` as its distinct values, in text, and which of them each row has; read in one go, and not kept."""
        self._check([name])
        column = self._parquet(lambda file: pq.read_table(file, columns=[name], read_dictionary=[name])).column(0)
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        return column.combine_chunks()

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.schema.names:
                raise ShardError(f"{self.place}/{INDEX} has no column {name!r}; it has {', '.join(self.schema.names)}")

    def rows(self, split: str = "", where: str = "") -> NDArray[np.int64]:
        """Return the rows (N,) of a split (train, val, test; '' = all) for which the filter `where` is true, ascending.

        `where` is of the form ``fold <= 8 and device = 'CS100'`` (cmelt.shards.where); raises InputError for one that is not.
        """
        kept = np.ones(len(self), bool)
        if split:
            kept &= np.asarray(pc.fill_null(pc.equal(self.table(["split"]).column("split"), split), False), bool)
        if where:
            test = Where(where)
            test.check(self.schema, self.place)
            kept &= test.mask(self.table(test.columns))
        return np.flatnonzero(kept)

    def shard_of(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the number (N,), in ``names``, of the shard in which each of `rows` (N,) lies."""
        return self._shard[rows]

    @property
    def names(self) -> list[str]:
        """Return the names of the shards that have samples, in the order of the index."""
        return self._names

    def places(self, rows: NDArray[np.int64]) -> list[Place]:
        """Return where the samples of index `rows` (B,) lie, their files open; raises ShardError."""
        shards = self._shard[rows].tolist()
        files = {shard: self._file(shard) for shard in dict.fromkeys(shards)}
        if self._remote:
            for file in files.values():
                file.touch()
        return list(zip(map(files.__getitem__, shards), self._offset[rows].tolist(), strict=True))

    def ecg(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the samples (len(rows), 12, samples) of index `rows`, int16 in units of lsb_uv, in the order asked."""
        out = np.empty((len(rows), len(self.leads), self.samples), "<i2")
        read(self.places, np.asarray(rows, np.int64), out)
        return out

    def ecg_mv(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the samples (len(rows), 12, samples) of index `rows` in mV."""
        out = np.empty((len(rows), len(self.leads), self.samples), np.float32)
        read_mv(self.places, np.asarray(rows, np.int64), out, self.lsb_mv)
        return out

    def bad_shards(self, contents: bool = False) -> dict[str, str]:
        """Return what is wrong with which shard: missing, or not as long as the manifest says; `contents` hashes them all, too.

        At a URL contents are not asked for: every shard is hashed when it is fetched.
        """
        there = self._remote.entries() if self._remote else {}
        with ThreadPoolExecutor() as threads:
            found = threads.map(lambda shard: self._problem(shard, there, contents), self.manifest["shards"])
            return {shard["name"]: problem for shard, problem in zip(self.manifest["shards"], found, strict=True) if problem}

    def far_bytes(self) -> NDArray[np.int64]:
        """Return how many bytes (N,) each of ``names`` has that is to be fetched; 0 in a local folder."""
        return np.array([self._listed[name]["bytes"] if self._remote else 0 for name in self._names], np.int64)

    def wanted(self, shards: Iterable[int]) -> list[Wanted]:
        """Return shards, by their number, as `ShardCache.expect` wants them; [] for a local folder. The files of others are closed."""
        if not self._remote:
            return []
        numbers = [int(shard) for shard in shards]
        with self._opening:
            self._files = {number: file for number, file in self._files.items() if number in numbers}
        return [(self._remote, self._listed[self._names[number]]) for number in numbers]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Fetch the shards of `rows` (N,) in the background, in their order, where the folder lies at a URL; they are read next."""
        if self._cache:
            self._cache.expect(self.wanted(dict.fromkeys(self.shard_of(rows).tolist())))

    def close(self, path: Path) -> None:
        """Close the file at `path` where it is open: the cache has removed it."""
        with self._opening:
            self._files = {shard: file for shard, file in self._files.items() if file.path != path}

    def _problem(self, shard: dict[str, Any], there: dict[str, int], contents: bool) -> str:
        file = self.path / shard["name"]
        try:
            size = there.get(shard["name"], -1) if self._remote else file.stat().st_size
            if size != shard["bytes"]:
                return f"has {size} bytes of {shard['bytes']}" if size >= 0 else "is missing"
            return "has changed" if contents and not self._remote and file_sha256(file) != shard["sha256"] else ""
        except OSError as error:
            return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"

    def _far(self, name: str) -> bytes:
        assert self._remote
        try:
            return self._remote.read(name)
        except FileNotFoundError:
            raise ShardError(f"{self.place} has no {name}: unfinished, or no shard folder; make one with cmelt ingest") from None

    def _parquet(self, read: Any) -> Any:
        """Return what `read` makes of the index file; raises ShardError."""
        try:
            return read(pa.BufferReader(self._far_index) if self._remote else self.path / INDEX)
        except (OSError, pa.ArrowException) as error:
            said = str(error).splitlines()[0]
            raise ShardError(f"{self.place}/{INDEX}: {said}; make the folder again with cmelt ingest") from None

    def _file(self, shard: int) -> File:
        found = self._files.get(shard)
        while found is None:
            name = self._names[shard]
            fetched = self._cache.path(self._remote, self._listed[name]) if self._remote and self._cache else None
            with self._opening:
                while len(self._files) >= MOST_FILES:
                    del self._files[next(iter(self._files))]
                try:
                    found = self._files.setdefault(shard, File(fetched or self.path / name, f"{self.place}/{name}"))
                except FileNotFoundError as error:
                    if fetched is None:
                        raise unreadable(f"{self.place}/{name}", error) from None  # else another process has just made room: fetch it again
                except OSError as error:
                    raise unreadable(f"{self.place}/{name}", error) from None
        return found


class File:
    """An open shard, closed when nobody holds it any more: one thread may drop it while another reads."""

    def __init__(self, path: Path, name: str) -> None:
        """Open the file at `path`, which errors call `name`."""
        self.path, self.name = path, name
        self.handle = os.open(path, os.O_RDONLY)

    def read(self, offset: int, out: NDArray[np.int16]) -> None:
        """Read what begins at byte `offset` into the whole of `out`; raises ShardError."""
        try:
            if os.preadv(self.handle, [out.data], offset) == out.nbytes:
                return
        except OSError as error:
            raise unreadable(self.name, error) from None
        raise ShardError(f"{self.name} ends inside a sample; cmelt verify says what else is wrong")

    def touch(self) -> None:
        """Say that it is in use: of a cache, what was used longest ago makes room. Raises ShardError."""
        try:
            os.utime(self.handle)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at Python's own end modules are empty already
        if hasattr(self, "handle"):
            close(self.handle)


Place = tuple[File, int]
"""A shard, and the byte in it at which a sample begins."""


def read(places: Callable[[NDArray[np.int64]], list[Place]], rows: NDArray[np.int64], out: NDArray[np.int16]) -> None:
    """Read the samples of `rows` (B,), which lie where `places` says, into `out` (B, 12, samples); raises ShardError."""
    for start in range(0, len(rows), OPEN_AT_ONCE):
        some = slice(start, start + OPEN_AT_ONCE)
        for (file, offset), one in zip(places(rows[some]), out[some], strict=True):
            file.read(offset, one)


def read_mv(places: Callable[[NDArray[np.int64]], list[Place]], rows: NDArray[np.int64], out: NDArray[np.float32], lsb_mv: float) -> None:
    """Read the samples of `rows` (B,), which lie where `places` says, into `out` (B, 12, samples) in mV; raises ShardError."""
    units = np.empty((READ_AT_ONCE, *out.shape[1:]), "<i2")
    for start in range(0, len(rows), OPEN_AT_ONCE):
        found = places(rows[start : start + OPEN_AT_ONCE])
        for first in range(0, len(found), READ_AT_ONCE):
            some = out[start + first : start + min(first + READ_AT_ONCE, len(found))]
            # As little as can be stands between the reads: a thread that is between two keeps the others waiting.
            for (file, offset), one in zip(found[first : first + READ_AT_ONCE], units, strict=False):
                file.read(offset, one)
            np.copyto(some, units[: len(some)])
            some *= lsb_mv


def unreadable(name: str, error: OSError) -> ShardError:
    """Return what is said of shard `name` that the system does not give."""
    return ShardError(f"{name}: {error.strerror}; cmelt verify says what else is wrong")
