"""The one door to a raw folder: every file of RAW is opened here, by a path that cannot leave it."""

from __future__ import annotations

import os
from pathlib import Path

from cmelt.errors import InputError, RecordError


def is_inside(path: str) -> bool:
    """Say whether a relative path with forward slashes stays in its folder whatever the folder is."""
    return bool(path) and not path.startswith("/") and "\\" not in path and "\0" not in path and ".." not in path.split("/")


class Raw:
    """A raw folder. Paths are relative to it, with forward slashes; one that would leave it is refused as ``path_outside``."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = str(folder)
        if not Path(folder).is_dir():
            raise InputError(f"{folder} is not a folder; give the raw data set's folder as it was downloaded")

    def local(self, path: str) -> str:
        """Return the file system path of `path`."""
        if not is_inside(path):
            raise RecordError("path_outside", f"{path!r} leaves the raw folder")
        return f"{self.folder}/{path}"

    def exists(self, path: str) -> bool:
        """Say whether `path` is a file."""
        return os.path.isfile(self.local(path))  # noqa: PTH113 - a million calls, and Path costs four times as much

    def size(self, path: str) -> int:
        """Return the bytes of file `path`."""
        try:
            return os.stat(self.local(path)).st_size  # noqa: PTH116
        except OSError as error:
            raise refusal(path, error) from None

    def read(self, path: str, limit: int = -1) -> bytes:
        """Return the bytes of file `path`, at most `limit` of them."""
        try:
            with open(self.local(path), "rb", buffering=0) as file:  # noqa: PTH123
                if limit >= 0:  # the buffer is made before reading: never of a size that only a header claims
                    limit = min(limit, os.fstat(file.fileno()).st_size)
                return file.read(limit) or b""
        except OSError as error:
            raise refusal(path, error) from None


def refusal(path: str, error: OSError) -> RecordError:
    """Return why a file cannot be read as the reason for which its recording is refused."""
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    return RecordError("missing_file" if missing else "unreadable", path if missing else f"{path}: {error.strerror}")
