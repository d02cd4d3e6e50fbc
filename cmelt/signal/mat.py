"""CPSC2018's containers: MATLAB 5 files that hold a struct ``ECG`` of sex, age and data (12 x n, mV, 500 Hz).

Read by a few lines of our own: scipy's reader believes the sizes that a damaged file claims.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import RecordError
from cmelt.raw import Raw
from cmelt.signal.decode import Decoded, decoded_leads

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""MATLAB's element types → numpy's, little-endian."""
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHARACTERS = 1, 2, 4
MOST_BYTES = 1 << 28
"""No recording unpacks to more."""
MOST_DEPTH = 4

Element = tuple[int, memoryview]


def decode_struct(raw: Raw, path: str, *, fs_hz: float, leads: Sequence[str]) -> Decoded:
    """Return the recording in MATLAB file `path`: field ``data`` of its struct, (leads, samples) in mV at `fs_hz`."""
    fields = read_struct(raw.read(path))
    data = fields.get("data")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[0] != len(leads):
        raise RecordError("unreadable", f"{path} holds no data of {len(leads)} leads")
    decoded = decoded_leads(np.asarray(data, np.float64), leads, fs_hz)
    age, sex = fields.get("age"), fields.get("sex")
    if isinstance(age, np.ndarray) and age.size == 1 and 0 <= (years := float(age.flat[0])) <= 130:
        decoded.age = years
    if isinstance(sex, str) and sex.lower() in ("male", "female"):
        decoded.sex = sex.lower()
    return decoded


def read_struct(data: bytes) -> dict[str, Any]:
    """Return the fields of the first struct in the bytes of a MATLAB 5 file: arrays and strings; raises RecordError unreadable."""
    if len(data) < 128 or data[126:128] != b"IM":
        raise broken("not a MATLAB 5 file")
    try:
        return first_struct(memoryview(data)[128:])
    except (struct.error, ValueError, zlib.error, IndexError) as error:
        raise broken(str(error)) from None


def first_struct(data: memoryview) -> dict[str, Any]:
    """Return the fields of the first struct among the elements of `data`."""
    for kind, body in elements(data):
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(body, MOST_BYTES)
            kind, body = next(elements(memoryview(unpacked)), (0, body))
        if kind == MATRIX:
            value = matrix(body, 0)
            if isinstance(value, dict):
                return value
    raise broken("no struct in it")


def elements(data: memoryview) -> Any:
    """Yield (type, body) of each element; a short one carries its body in its tag."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:
            kind, size, body, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        else:
            body, step = at + 8, 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if body + size > len(data):
            raise RecordError("truncated", "the MATLAB file ends inside an element")
        yield kind, data[body : body + size]
        at += step


def matrix(body: memoryview, depth: int) -> Any:
    """Return what a matrix element holds: an array, a string, or a dict of fields; None for what is not read here."""
    if depth > MOST_DEPTH:
        raise broken("structs too deep")
    parts = list(elements(body))
    if len(parts) < 3:
        return None
    kind = parts[0][1][0]
    shape = numbers(parts[1]).tolist()
    if min(shape, default=-1) < 0:
        raise broken(f"shape {shape}")
    if kind == STRUCT:
        width = int(numbers(parts[3])[0])
        text = bytes(parts[4][1])
        names = [text[at : at + width].partition(b"\0")[0].decode("ascii", "replace") for at in range(0, len(text), width)]
        return {name: matrix(part[1], depth + 1) for name, part in zip(names, parts[5:], strict=False)}
    if len(parts) < 4 or kind == CELL:
        return None
    values = numbers(parts[3]) if parts[3][0] in NUMBERS else np.frombuffer(parts[3][1], "u1")
    if kind == CHARACTERS:
        return "".join(map(chr, values.tolist()[:1000]))
    return values.reshape(shape, order="F")


def numbers(element: Element) -> NDArray[Any]:
    """Return an element's numbers."""
    if element[0] not in NUMBERS:
        raise broken(f"element type {element[0]}")
    return np.frombuffer(element[1], "<" + NUMBERS[element[0]])


def broken(detail: str) -> RecordError:
    """Return the refusal of a MATLAB file."""
    return RecordError("unreadable", f"MATLAB file: {detail}")
