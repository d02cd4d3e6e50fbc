"""A zip's members by random access, in 40 bytes of memory each: PhysioNet's archives have more than a million.

The central directory is read once a process into sorted arrays (hash of the name → place, sizes, checksum, method); names
themselves stay in the file, and each read compares its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

STORED, DEFLATED = 0, 8
END = struct.Struct("<4s4H2LH")
END64_PLACE = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
ENCRYPTED = 1
PIECE = 1 << 20
IN_MEMORY, MOST_UNPACKED = 1 << 24, 1 << 30
"""A packed member that is opened is unpacked: up to so many bytes in memory, up to so many into a temporary file, no larger one."""

MEMBER = np.dtype([("hash", "i8"), ("place", "i8"), ("packed", "i8"), ("bytes", "i8"), ("crc", "u4"), ("method", "u2"), ("flags", "u2")])


class BadArchive(Exception):
    """A zip, or a member of it, is not as zips are."""


class Archive:
    """An open zip file. Member paths leave out the one folder that holds everything, where there is one."""

    def __init__(self, file: Path | str) -> None:
        self.file = os.open(file, os.O_RDONLY)
        self.start, self.length, self.count = self._directory()
        tops = {name.partition("/")[0] if "/" in name else "" for name, _ in self._entries()}
        self.top = f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""
        self.members = np.fromiter(
            ((hash(name.removeprefix(self.top)), *entry) for name, entry in self._entries()), MEMBER, count=self.count
        )
        self.members.sort(order="hash")

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)

    def names(self) -> Iterator[str]:
        """Yield the path of every member that is a file, in the order of the directory."""
        for name, _ in self._entries():
            if not name.endswith("/"):
                yield name.removeprefix(self.top)

    def find(self, path: str) -> tuple[int, int] | None:
        """Return the number of member `path` and its bytes, None where there is none."""
        wanted = hash(path)
        at = int(np.searchsorted(self.members["hash"], wanted))
        return (at, int(self.members["bytes"][at])) if at < self.count and self.members["hash"][at] == wanted else None

    def read(self, number: int, path: str, limit: int = -1) -> bytes:
        """Return the bytes of member `number`, called `path`, at most `limit`; raises BadArchive where they are not what was packed."""
        start, packed, size, crc, method = self._locate(number, path)
        limit = size if limit < 0 else min(limit, size)
        data = os.pread(self.file, packed if method == DEFLATED else limit, start)
        if method == DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit) if limit else b""
            except zlib.error as error:
                raise BadArchive(str(error)) from None
        if len(data) != limit or (limit == size and zlib.crc32(data) != crc):
            raise BadArchive("the zip is damaged here")
        return data

    def open(self, number: int, path: str) -> BinaryIO:
        """Return member `number`, called `path`, opened to be read in any order; raises BadArchive.

        What lies there as it is, is read in place, its checksum unread; what is packed is unpacked first, as IN_MEMORY says.
        """
        start, packed, size, crc, method = self._locate(number, path)
        if method == STORED:
            return io.BufferedReader(Stretch(self.file, start, size, self))
        if size <= IN_MEMORY:
            return io.BytesIO(self.read(number, path))
        if size > MOST_UNPACKED:
            raise BadArchive(f"{size:,} bytes, packed; unpack the zip first")
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile())
            unpacker, found, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, size
            for at in range(start, start + packed, PIECE):
                try:
                    data = unpacker.decompress(os.pread(self.file, min(PIECE, start + packed - at), at), left + 1)
                except zlib.error as error:
                    raise BadArchive(str(error)) from None
                found, left = zlib.crc32(data, found), left - len(data)
                if left < 0:
                    break
                file.write(data)
            if left or found != crc:
                raise BadArchive("the zip is damaged here")
            file.flush()
            stack.pop_all()  # it stays open
        return io.BufferedReader(Stretch(file.fileno(), 0, size, file))

    def _locate(self, number: int, path: str) -> tuple[int, int, int, int, int]:
        """Return where the bytes of member `number`, called `path`, start, how many are packed and unpacked, checksum, method."""
        _, place, packed, size, crc, method, flags = (int(value) for value in self.members[number])
        if flags & ENCRYPTED or method not in (STORED, DEFLATED):
            raise BadArchive("encrypted, or packed in a way that is not read here; unpack it first")
        head = os.pread(self.file, LOCAL.size, place)
        if len(head) < LOCAL.size or head[:4] != b"PK\3\4":
            raise BadArchive("the zip is damaged")
        *_, name_bytes, extra_bytes = LOCAL.unpack(head)
        name = os.pread(self.file, name_bytes, place + LOCAL.size)
        if text(name, flags) != self.top + path:
            raise BadArchive("the zip's directory and its members disagree")
        if place + packed > self.start or (method == STORED and packed != size):
            raise BadArchive("the zip is damaged")
        return place + LOCAL.size + name_bytes + extra_bytes, packed, size, crc, method

    def _directory(self) -> tuple[int, int, int]:
        """Return where the central directory starts, its bytes and its entries."""
        size = os.fstat(self.file).st_size
        tail_start = max(0, size - END.size - 0xFFFF - END64_PLACE.size)
        tail = os.pread(self.file, size - tail_start, tail_start)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < END.size:
            raise BadArchive("not a zip, or cut short")
        _, _, _, _, count, length, start, _ = END.unpack_from(tail, at)
        place = at - END64_PLACE.size
        if place >= 0 and tail[place : place + 4] == b"PK\6\7":
            _, _, end64, _ = END64_PLACE.unpack_from(tail, place)
            record = os.pread(self.file, END64.size, end64)
            if len(record) < END64.size or record[:4] != b"PK\6\6":
                raise BadArchive("its directory is damaged")
            *_, count, length, start = END64.unpack(record)
        if start + length > size or count * ENTRY.size > length:
            raise BadArchive("its directory is damaged")
        return start, length, count

    def _entries(self) -> Iterator[tuple[str, tuple[int, int, int, int, int, int]]]:
        """Yield the name of each member and (place, packed bytes, bytes, checksum, method, flags)."""
        buffer, at, read = b"", 0, 0
        for _ in range(self.count):
            if len(buffer) - at < 4 * 0xFFFF and read < self.length:
                piece = os.pread(self.file, min(PIECE, self.length - read), self.start + read)
                buffer, at, read = buffer[at:] + piece, 0, read + max(1, len(piece))
            if len(buffer) - at < ENTRY.size or buffer[at : at + 4] != b"PK\1\2":
                raise BadArchive("its directory is damaged")
            _, _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes, comment_bytes, _, _, _, place = ENTRY.unpack_from(
                buffer, at
            )
            name_at = at + ENTRY.size
            extra_at = name_at + name_bytes
            name = text(buffer[name_at:extra_at], flags)
            if 0xFFFFFFFF in (packed, size, place):
                size, packed, place = wide(buffer[extra_at : extra_at + extra_bytes], size, packed, place)
            yield name, (place, packed, size, crc, method, flags)
            at = extra_at + extra_bytes + comment_bytes


class Stretch(io.RawIOBase):
    """A stretch of an open file, read in any order; who owns the file lives as long as this, and a temporary file no longer."""

    def __init__(self, file: int, start: int, size: int, owner: Archive | IO[bytes]) -> None:
        self.file, self.start, self.size, self.owner, self.at = file, start, size, owner, 0

    def close(self) -> None:
        """Close it, and a temporary file with it."""
        if not isinstance(self.owner, Archive):
            self.owner.close()
        super().close()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read in any order."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to `offset` from the start, from here or from the end."""
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence])
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from here on; returns how many bytes there were."""
        data = os.pread(self.file, min(len(buffer), max(0, self.size - self.at)), self.start + self.at)
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


def wide(extra: bytes, size: int, packed: int, place: int) -> tuple[int, int, int]:
    """Return the three numbers, those that do not fit 32 bits taken from the entry's extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1 and at + 4 + length <= len(extra):
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            size, packed, place = (next(values, -1) if number == 0xFFFFFFFF else number for number in (size, packed, place))
            break
        at += 4 + length
    if not all(0 <= number < 2**62 for number in (size, packed, place)):
        raise BadArchive("its directory is damaged")
    return size, packed, place


def text(name: bytes, flags: int) -> str:
    """Return a member's name: UTF-8 where its flags say so, else the code page of old."""
    return name.decode("utf-8" if flags & 0x800 else "cp437", "replace")


@lru_cache(4)
def _archive(file: str, _stamp: tuple[int, int]) -> Archive:
    return Archive(file)


def open_archive(file: Path | str) -> Archive:
    """Return the zip `file`, opened once a process; raises BadArchive and OSError."""
    about = os.stat(file)  # noqa: PTH116
    return _archive(str(file), (about.st_mtime_ns, about.st_size))
