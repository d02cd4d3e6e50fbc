"""The one door to a raw data set, a folder, a zip as downloaded, or a URL: every file is opened here, by a path that cannot leave it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cmelt.archive import Archive, BadArchive, open_archive
from cmelt.errors import InputError, RecordError
from cmelt.remote import Remote, local_path


def is_inside(path: str) -> bool:
    """Say whether a relative path with forward slashes stays in its folder whatever the folder is."""
    return bool(path) and not path.startswith("/") and "\\" not in path and "\0" not in path and ".." not in path.split("/")


def inside(path: str) -> str:
    """Return `path`, which stays in its folder; raises RecordError path_outside."""
    if not is_inside(path):
        raise RecordError("path_outside", f"{path!r} leaves the raw folder")
    return path


class Raw:
    """A raw folder, a zip of one, or a folder at an fsspec URL, read in place. Paths are relative to it, with forward slashes.

    A path that would leave it is refused as ``path_outside``. In a zip, one folder that holds everything is left out of the paths.
    """

    def __init__(self, folder: Path | str) -> None:
        place = local_path(folder)
        self.folder = str(place or folder)
        self.archive: Archive | None = None
        self.remote: Remote | None = None
        if place is None:
            self.remote = Remote(self.folder)
            if not self.remote.entries():
                raise InputError(f"{folder} holds nothing; give the URL of the raw data set's folder, unpacked")
            return
        folder = place
        if Path(folder).is_dir():
            return
        if not Path(folder).is_file():
            raise InputError(f"{folder} is not a folder; give the raw data set's folder, or its zip, as it was downloaded")
        try:
            self.archive = open_archive(folder)
        except (BadArchive, OSError) as error:
            raise InputError(f"{folder} is neither a folder nor a zip that can be read ({error}); download it again") from None

    def local(self, path: str) -> str:
        """Return the file system path of `path` in a folder."""
        return f"{self.folder}/{inside(path)}"

    def random_access(self, path: str) -> str | BinaryIO:
        """Return what a library reads file `path` by in any order: its file system path, or an open file where it has none."""
        return self.open(path) if self.archive or self.remote else self.local(path)

    def stamp(self, path: str) -> tuple[int, int]:
        """Return what changes when file `path` does: when it (or its zip) was written, and its bytes."""
        size = self.size(path)
        if self.remote:
            return 0, size
        return os.stat(self.folder if self.archive else self.local(path)).st_mtime_ns, size  # noqa: PTH116

    def exists(self, path: str) -> bool:
        """Say whether `path` is a file."""
        if self.archive:
            return is_inside(path) and self.archive.find(path) is not None
        if self.remote:
            return self.remote.exists(inside(path))
        return os.path.isfile(self.local(path))  # noqa: PTH113 - a million calls, and Path costs four times as much

    def size(self, path: str) -> int:
        """Return the bytes of file `path`."""
        if self.archive:
            return self._member(path)[1]
        try:
            if self.remote:
                return self.remote.size(inside(path))
            return os.stat(self.local(path)).st_size  # noqa: PTH116
        except OSError as error:
            raise refusal(path, error) from None

    def read(self, path: str, limit: int = -1) -> bytes:
        """Return the bytes of file `path`, at most `limit` of them."""
        if self.archive:
            try:
                return self.archive.read(self._member(path)[0], path, limit)
            except BadArchive as error:
                raise RecordError("unreadable", f"{path}: {error}") from None
            except OSError as error:
                raise refusal(path, error) from None
        try:
            if self.remote:
                return self.remote.read(inside(path), limit)
            with open(self.local(path), "rb", buffering=0) as file:  # noqa: PTH123
                if limit >= 0:  # the buffer is made before reading: never of a size that only a header claims
                    limit = min(limit, os.fstat(file.fileno()).st_size)
                return file.read(limit) or b""
        except (OSError, ValueError) as error:  # ValueError: a name that no file system can have
            raise refusal(path, error) from None

    def open(self, path: str) -> BinaryIO:
        """Return file `path` opened at its start: a table of a gigabyte is not to lie in memory."""
        try:
            if self.archive:
                return self.archive.open(self._member(path)[0], path)
            if self.remote:
                return self.remote.open(inside(path))
            return open(self.local(path), "rb")  # noqa: PTH123
        except BadArchive as error:
            raise RecordError("unreadable", f"{path}: {error}") from None
        except OSError as error:
            raise refusal(path, error) from None

    def files(self, *endings: str) -> Iterator[str]:
        """Yield every file whose name ends in one of `endings` (any case), sorted within each folder."""
        wanted = tuple(ending.lower() for ending in endings)
        if self.archive:
            yield from sorted(name for name in self.archive.names() if name.lower().endswith(wanted) and is_inside(name))
        elif self.remote:
            yield from walk_remote(self.remote, "", wanted)
        else:
            yield from walk(self.folder, "", wanted, frozenset())

    @contextlib.contextmanager
    def on_disk(self, paths: Iterable[str]) -> Iterator[str]:
        """Give a folder below which the files `paths` lie: this one, or one made for the while from a zip or a URL."""
        if not self.archive and not self.remote:
            yield self.folder
            return
        with tempfile.TemporaryDirectory() as folder:
            for path in paths:
                file = Path(folder, inside(path))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.read(path))
            yield folder

    def _member(self, path: str) -> tuple[int, int]:
        """Return the place and bytes of a member of the zip."""
        assert self.archive
        found = self.archive.find(inside(path))
        if found is None:
            raise RecordError("missing_file", path)
        return found


def walk(root: str, folder: str, endings: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield the files below `folder` of `root` that end in `endings`; a link to a folder above itself is not followed."""
    here = os.stat(f"{root}/{folder}")  # noqa: PTH116
    if (here.st_dev, here.st_ino) in above:
        return
    above |= {(here.st_dev, here.st_ino)}
    with os.scandir(f"{root}/{folder}") as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{folder}{entry.name}"
        if entry.is_dir():
            yield from walk(root, f"{path}/", endings, above)
        elif entry.name.lower().endswith(endings):
            yield path


def walk_remote(remote: Remote, folder: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Yield the files below `folder` of `remote` that end in `endings`, in the order of `walk`."""
    for name, size in sorted(remote.entries(folder.rstrip("/")).items()):
        if size < 0:
            yield from walk_remote(remote, f"{folder}{name}/", endings)
        elif name.lower().endswith(endings):
            yield f"{folder}{name}"


def refusal(path: str, error: OSError | ValueError) -> RecordError:
    """Return why a file cannot be read as the reason for which its recording is refused."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    said = error.strerror if isinstance(error, OSError) else error
    return RecordError("missing_file" if missing else "unreadable", path if missing else f"{path}: {said}")
