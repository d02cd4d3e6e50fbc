"""A folder at an fsspec URL (s3://, gs://, memory://): read, listed and written with patience, as networks need it.

Credentials come from the environment (or the machine's role), never from a URL or a recipe. What fails is tried again; what goes on
failing is an InputError that ends the work: a network that is down is no reason to refuse a recording.
"""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

from cmelt.errors import InputError, MissingExtra, OutputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar("Result")

PAUSES_S = (0.2, 1.0, 4.0, 15.0)
"""Between the attempts at one request, beside those of the library below."""

EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs")}
"""Protocol → the library that speaks it, and the extra that brings it."""

FOLDERS_KEPT = 64
"""Listings kept in memory; a data set's table walks its folders one after the other."""

LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What no second attempt mends."""

NO_KEYS = (
    *(("botocore.exceptions", name) for name in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")),
    ("google.auth.exceptions", "DefaultCredentialsError"),
)
"""What the libraries raise that find no credentials."""


def local_path(place: Path | str) -> Path | None:
    """Return `place` as a path where it is one (``file://`` is too), None for any other URL."""
    if "://" not in str(place):
        return Path(place)
    parts = urlsplit(str(place))
    return Path(parts.path) if parts.scheme in ("file", "local") else None


def absolute(place: Path | str) -> str:
    """Return `place` so that it is found from any folder: a URL as it is, a path resolved."""
    local = local_path(place)
    return str(local.resolve()) if local else str(place)


class Remote:
    """A folder at a URL; paths are relative to it, with forward slashes."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.fs, self.root = connect(self.url)
        self._folder = lru_cache(FOLDERS_KEPT)(self.entries)

    def read(self, path: str, limit: int = -1) -> bytes:
        """Return the bytes of file `path`, at most `limit` of them; raises FileNotFoundError."""

        def get() -> bytes:
            try:
                found: bytes = self.fs.cat_file(self._at(path), start=None if limit < 0 else 0, end=None if limit < 0 else limit)
            except OSError as error:
                if error.errno == errno.EINVAL and self.fs.size(self._at(path)) == 0:
                    return b""  # no range of an empty object is a valid one
                raise
            return found

        return self._patiently(path, get)

    def open(self, path: str) -> BinaryIO:
        """Return file `path` opened to be read, piece by piece; raises FileNotFoundError."""
        file: BinaryIO = self._patiently(path, lambda: self.fs.open(self._at(path), "rb"))
        return file

    def size(self, path: str) -> int:
        """Return the bytes of file `path`; raises FileNotFoundError."""
        return int(self._patiently(path, lambda: self.fs.size(self._at(path))))

    def exists(self, path: str) -> bool:
        """Say whether `path` is a file, by the listing of its folder: a request a folder, not one a file."""
        folder, _, name = path.rpartition("/")
        return self._folder(folder).get(name, -1) >= 0

    def entries(self, folder: str = "") -> dict[str, int]:
        """Return what lies in `folder`: name → bytes, -1 for a folder; {} where there is none."""
        where = self._at(folder).rstrip("/")
        try:
            found = self._patiently(folder, lambda: self.fs.ls(where, detail=True, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        names = ((item["name"].rstrip("/").rpartition("/")[2], item) for item in found if item["name"].strip("/") != where.strip("/"))
        return {name: int(item["size"] or 0) if item["type"] == "file" else -1 for name, item in names}

    def get(self, path: str, file: Path) -> None:
        """Download `path` as local `file`; raises FileNotFoundError, and OSError where this disk is full."""
        self._patiently(path, lambda: self.fs.get_file(self._at(path), str(file)))

    def put(self, file: Path, path: str) -> None:
        """Upload local `file` as `path`, whole, and see that it arrived so."""

        def upload() -> None:
            self.fs.put_file(str(file), self._at(path))
            there = self.fs.size(self._at(path))
            if there != file.stat().st_size:
                raise OSError(errno.EIO, f"{there} bytes arrived of {file.stat().st_size}")

        try:
            self._patiently(path, upload)
        except FileNotFoundError as error:
            raise OutputError(f"{self.url} cannot be written ({error}); make the bucket first") from None

    def remove(self, path: str) -> None:
        """Remove file `path` where it is there."""
        try:
            self._patiently(path, lambda: self.fs.rm_file(self._at(path)))
        except FileNotFoundError:
            return

    def _at(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def _patiently(self, path: str, request: Callable[[], Result]) -> Result:
        """Return what `request` about `path` gives, tried again after each pause; raises InputError where it goes on failing."""
        for pause in (*PAUSES_S, None):
            try:
                return request()
            except FileNotFoundError:
                raise
            except transport_errors() as error:
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    raise  # the disk here, not the network
                self.fs.invalidate_cache()
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                if isinstance(error, (PermissionError, *loaded(NO_KEYS))):
                    raise InputError(f"{self.url}/{path}: no access ({said}); put credentials for it into the environment") from None
                if pause is None or isinstance(error, LASTING) or getattr(error, "errno", None) == errno.EINVAL:
                    raise InputError(f"{self.url}/{path} cannot be reached ({said}); run the same command again later") from None
                time.sleep(pause)
        raise AssertionError("the last pause is None")


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of `url` and the path in it; raises InputError and MissingExtra."""
    import fsspec

    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InputError(f"{parts.scheme}://{parts.hostname}{parts.path}: keys do not belong in a URL; put them into the environment")
    try:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        if parts.scheme in EXTRAS:
            raise MissingExtra(*EXTRAS[parts.scheme]) from None
        raise InputError(f"{url}: {error}") from None
    except ValueError as error:
        raise InputError(f"{url} is no place that fsspec knows ({error}); give a folder or a URL such as s3://bucket/folder") from None
    return fs, root


def transport_errors() -> tuple[type[Exception], ...]:
    """Return what a failing network raises: OSError, and the errors of the libraries in use that are none."""
    others = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"))
    return (OSError, EOFError, *loaded((*others, *NO_KEYS)))


def loaded(names: Iterable[tuple[str, str]]) -> tuple[type[Exception], ...]:
    """Return those of the (module, name) whose module is in use."""
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


def free_bytes(place: Path) -> int:
    """Return the bytes that may be written where `place` is, or would be made."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
