"""Files that appear whole or not at all: written as ``NAME.XXXXXXXX.part``, put on disk, renamed.

What stops the writing (a full disk, no right to write, a folder of that name) is an OutputError, one line. And locks between processes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cmelt.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there
    fcntl = None  # type: ignore[assignment]

TO_TELL = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
)
"""Errors of writing that the user can mend; others, a raw file that is gone say, are not about the file that is written."""

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system says that has no locks."""


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the name to write `path` under, for what writes by name; when that is done it becomes `path`. Its folder is made."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # its own: a worker that was given up may still write another
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            sync(part)
            part.replace(path)
            sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears whole or not at all; raises OutputError."""
    with whole(path) as part, part.open("wb") as file:
        yield file


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` as file `path`, whole or not at all; raises OutputError."""
    with open_whole(path) as file:
        file.write(data)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as JSON, whole or not at all; raises OutputError."""
    write_whole(path, json_bytes(value))


def json_bytes(value: dict[str, Any]) -> bytes:
    """Return `value` as a JSON file that people read too."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn what stops the writing of `path`, a file or a folder, into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in TO_TELL and not names(error, path):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror}; make room or rights there, or choose another place") from None


def names(error: OSError, path: Path) -> bool:
    """Say whether `error` is about `path`, a file beside it that becomes it, or a folder above it: a place where nothing can be made."""
    about = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
    return about is not None and (
        about in (path, *path.parents) or (about.parent == path.parent and about.name.startswith(f"{path.name}."))
    )


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, where they are not there; raises OutputError."""
    with telling(folder):
        folder.mkdir(parents=True, exist_ok=True)


def sync(path: Path) -> None:
    """Put a file's bytes, or the names in a folder, on disk: they survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(file: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock `file`, alone or `shared`; says whether it was to be had. On a system without locks it always is."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise
            held = True
        if not held or os.fstat(handle).st_nlink:
            break
        os.close(handle)  # removed by its last holder between the two lines: it locks nothing
    try:
        yield held
    finally:
        os.close(handle)
