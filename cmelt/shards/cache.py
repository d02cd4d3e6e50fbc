"""Shards of a URL on this machine's disk: fetched whole, ahead of their use, and bounded: what was used longest ago makes room.

A shard lies there under the hash of its content, so it is never out of date, and several URLs, runs and ranks share it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from cmelt.errors import ShardError
from cmelt.files import locked, whole
from cmelt.remote import Remote
from cmelt.shards.manifest import file_sha256

PLACE = "CMELT_CACHE"
"""The environment variable that names the folder of the cache; default: ~/.cache/cmelt."""
LIMIT_GB = 50.0
AT_ONCE = 4
"""Shards fetched at the same time: one request seldom fills a network."""
STALE_S = 3600.0
"""A half-fetched shard that has not grown for so long is nobody's."""

Wanted = tuple[Remote, dict[str, Any]]
"""A shard as its manifest lists it, and the folder in which it lies."""


class Reader(Protocol):
    """Who reads shards, and keeps their files open."""

    def close(self, path: Path) -> None:
        """Close the file at `path` where it is open."""


class ShardCache:
    """The cache; threads and processes may share it. Nothing is kept but files: each process holds its own downloads to the limit."""

    def __init__(self, limit_bytes: float = LIMIT_GB * 1e9, root: Path | None = None) -> None:
        self.limit = limit_bytes
        self.root = root or Path(os.environ.get(PLACE) or Path.home() / ".cache" / "cmelt") / "shards"
        self.readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        """Who may hold a file open."""
        self._lock = threading.Condition()
        self._coming: dict[str, int] = {}  # bytes of what is being fetched
        self._kept: frozenset[str] = frozenset()
        self._threads: ThreadPoolExecutor | None = None
        self._ahead: dict[str, Future[None]] = {}

    def __reduce__(self) -> tuple[type[ShardCache], tuple[float, Path]]:
        return type(self), (self.limit, self.root)

    def path(self, folder: Remote, shard: dict[str, Any]) -> Path:
        """Return where `shard` of `folder` lies on this disk, fetched now where it does not yet; raises ShardError."""
        self._bring(folder, shard, now=True)
        return self.root / file_name(shard)

    def expect(self, wanted: Sequence[Wanted]) -> None:
        """Fetch `wanted` in this order in the background, making room of what is not; replaces what was expected before."""
        with self._lock:
            self._kept = frozenset(file_name(shard) for _, shard in wanted)
            for name in [name for name, future in self._ahead.items() if name not in self._kept or future.done()]:
                self._ahead.pop(name).cancel()
            self._threads = self._threads or ThreadPoolExecutor(AT_ONCE, "cmelt-fetch")
            for folder, shard in wanted:
                name = file_name(shard)
                if name not in self._ahead and not (self.root / name).exists():
                    self._ahead[name] = self._threads.submit(self._bring, folder, shard, now=False)

    def _bring(self, folder: Remote, shard: dict[str, Any], now: bool) -> None:
        """Have `shard` here; not `now` = only where there is room beside what is expected, for somebody will ask again."""
        file = self.root / file_name(shard)
        if touched(file):
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock")):  # another thread or rank may be fetching it
            try:
                if not touched(file) and self._make_room(folder, shard, now):
                    self._fetch(folder, shard, file)
            finally:
                file.with_suffix(".lock").unlink(missing_ok=True)

    def _fetch(self, folder: Remote, shard: dict[str, Any], file: Path) -> None:
        """Download `shard` as `file`, whole and as its manifest says; what goes wrong twice is a ShardError that names it."""
        where = f"{folder.url}/{shard['name']}"
        try:
            for last in (False, True):
                try:
                    with whole(file) as part:
                        folder.get(shard["name"], part)
                        refuse_damaged(part, shard, where)
                    return
                except ShardError:
                    if last:
                        raise
        except FileNotFoundError:
            raise ShardError(f"{where} is missing; upload it again") from None
        finally:
            with self._lock:
                self._coming.pop(file.name)
                self._lock.notify_all()

    def _make_room(self, folder: Remote, shard: dict[str, Any], now: bool) -> bool:
        """Remove what was used longest ago until `shard` fits, what is expected last and only `now`; says whether it does."""
        size, name = shard["bytes"], file_name(shard)
        if size > self.limit:
            raise ShardError(f"{folder.url}/{shard['name']} does not fit into {self.limit / 1e9:g} GB; raise data.cache_gb")
        with self._lock:
            while True:
                files = self._files()
                used = sum(stat.st_size for stat in files.values()) + sum(self._coming.values())
                for old in sorted(files, key=lambda old: (old in self._kept, files[old].st_mtime_ns)):
                    if used + size > self.limit and (now or old not in self._kept):
                        (self.root / old).unlink(missing_ok=True)
                        for reader in list(self.readers):
                            reader.close(self.root / old)  # or it would go on taking room
                        used -= files[old].st_size
                if used + size <= self.limit:
                    self._coming[name] = size
                    return True
                if not now:
                    return False
                self._lock.wait()  # for what else is being fetched

    def _files(self) -> dict[str, os.stat_result]:
        """Return the shards that are here, without those on their way; what a killed process left half-fetched is removed."""
        found = {}
        for entry in os.scandir(self.root):
            try:
                if entry.name.endswith(".tar") and entry.name not in self._coming:
                    found[entry.name] = entry.stat()
                elif entry.name.endswith(".part") and time.time() - entry.stat().st_mtime > STALE_S:
                    (self.root / entry.name).unlink()
            except FileNotFoundError:
                continue  # another process has just made room
        return found


def file_name(shard: dict[str, Any]) -> str:
    """Return the name under which `shard` lies in a cache."""
    return f"{shard['sha256']}.tar"


def refuse_damaged(file: Path, shard: dict[str, Any], where: str) -> None:
    """Raise ShardError where `file` is not what its manifest says of `shard`."""
    size = file.stat().st_size
    if size != shard["bytes"]:
        raise ShardError(f"{where} has {size} bytes of {shard['bytes']}; make it again with cmelt ingest")
    if file_sha256(file) != shard["sha256"]:
        raise ShardError(f"{where} has changed: its hash is not the manifest's; make it again with cmelt ingest")


def touched(file: Path) -> bool:
    """Note that `file` is used now; False where there is none."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    return True
