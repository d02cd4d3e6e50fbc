"""Where a shard folder lies: a local folder, or a URL that is written through a local spool, file by whole file.

A local folder is one ingest's at a time: ``.cmelt/lock`` is held by the process that leads, ``.cmelt/busy`` shared by whoever
makes a shard. Locks end with their processes. A URL has no locks; two ingests of one plan there do the same work twice, no harm.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cmelt.errors import OutputError
from cmelt.files import locked, make_folder, write_whole
from cmelt.remote import Remote, local_path

WORK = ".cmelt"
LOCK, BUSY = f"{WORK}/lock", f"{WORK}/busy"


class Store:
    """A shard folder as a place to write: names are relative to it; a file appears in it whole or not at all."""

    def __init__(self, place: Path | str) -> None:
        self.place = str(place)
        self.path = local_path(place)
        self.remote = None if self.path else Remote(self.place)

    def __str__(self) -> str:
        return self.place

    def exists(self, name: str) -> bool:
        """Say whether file `name` is there."""
        if self.path:
            return (self.path / name).exists()
        folder, _, last = name.rpartition("/")
        return last in self.names(folder)

    def names(self, folder: str = "") -> set[str]:
        """Return what lies in the place, or in `folder` of it."""
        if self.remote:
            return set(self.remote.entries(folder))
        assert self.path
        here = self.path / folder
        return {entry.name for entry in here.iterdir()} if here.is_dir() else set()

    def read(self, name: str) -> bytes:
        """Return the bytes of file `name`; raises FileNotFoundError."""
        return (self.path / name).read_bytes() if self.path else self._remote.read(name)

    def open(self, name: str) -> BinaryIO:
        """Return file `name` opened to be read."""
        return (self.path / name).open("rb") if self.path else self._remote.open(name)

    @contextlib.contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        """Give the local path to write file `name` at, whole; where the place is a URL it is uploaded then."""
        if self.path:
            if not (self.path / WORK).is_dir():  # a worker that was given up comes too late
                raise OutputError(f"{self} was finished or removed meanwhile; run the same command again")
            yield self.path / name
            return
        with tempfile.TemporaryDirectory(prefix="cmelt-spool-") as spool:
            file = Path(spool, name.rpartition("/")[2])
            yield file
            if file.exists():
                self._remote.put(file, name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        with self.whole(name) as file:
            write_whole(file, data)

    def remove(self, name: str) -> None:
        """Remove file `name` where it is there."""
        if self.path:
            (self.path / name).unlink(missing_ok=True)
        else:
            self._remote.remove(name)

    def make(self) -> None:
        """Make the folder for the work; raises OutputError."""
        if self.path:
            make_folder(self.path / WORK)

    def clear_work(self, last: str = "") -> None:
        """Remove what lies in the folder for the work but the locks, file `last` as the last."""
        names = self.names(WORK)
        for name in sorted(names - {last, "lock", "busy"}) + [last] * (last in names):
            self.remove(f"{WORK}/{name}")

    def end_work(self) -> None:
        """Remove the folder for the work."""
        self.clear_work("plan.json")
        if self.path:
            for name in (LOCK, BUSY):
                self.remove(name)
            with contextlib.suppress(OSError):  # another ingest has just come and holds its lock there
                (self.path / WORK).rmdir()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lead the work on this place, which no other process does meanwhile; waits for what an earlier one's workers still finish."""
        if not self.path:
            yield
            return
        with locked(self.path / LOCK, wait=False) as held:
            if not held:
                raise OutputError(f"another ingest is writing {self}; wait for it, or choose another OUT")
            with locked(self.path / BUSY):
                pass
            try:
                yield
            finally:
                if self.names(WORK) <= {"lock", "busy"}:
                    self.end_work()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Make a shard of this place."""
        if not self.path:
            yield
            return
        with locked(self.path / BUSY, shared=True):
            yield

    @property
    def is_led(self) -> bool:
        """Say whether a process leads work on this place now."""
        if not self.path or not (self.path / LOCK).exists():
            return False
        with locked(self.path / LOCK, shared=True, wait=False) as held:
            return not held

    @property
    def _remote(self) -> Remote:
        assert self.remote
        return self.remote
