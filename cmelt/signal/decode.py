"""Recordings in: the samples of a WFDB record by lead name, exact in µV, with the hash that names them.

Formats 16 (PTB-XL, CinC, MIMIC-IV-ECG) and 212 (MIT's own) are decoded here; all others by ``wfdb``, once their headers are checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import RecordError
from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.gains import right_gains
from cmelt.signal.header import MV_PER_UNIT, Channel, Header, parse_header
from cmelt.signal.leads import map_leads

INVALID = -(2**31)
"""How a sample that is not a number is written before hashing."""

INVALID16, INVALID212 = -(2**15), -(2**11)
"""How format 16, and 212, store a sample that is not a number."""

BITS = {16: 16, 212: 12}
"""Of a sample in the formats that are decoded here."""

HEADER_LIMIT = 1 << 20
"""No header is longer; what lies beyond would be somebody's signal file."""

SAMPLES_PER_BYTE = {8: 1, 16: 0.5, 24: 1 / 3, 32: 0.25, 61: 0.5, 80: 1, 160: 0.5, 212: 2 / 3, 310: 0.75, 311: 0.75}
FLAC_SAMPLES_PER_BYTE = 1000
"""More samples than this many times the file's bytes cannot be in it, so a header that says so is not believed."""

WFDB_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, ArithmeticError, MemoryError, RuntimeError)
"""What it raises over damaged files; RuntimeError is its FLAC library's."""


@dataclass(slots=True)
class Decoded:
    """A recording as it was stored: ``signal`` (12, samples) float32 mV in the order of LEADS, NaN where absent or invalid."""

    signal: NDArray[np.float32]
    present: set[int]
    """Rows of LEADS that the recording has."""
    fs_hz: float
    signal_sha1: str
    flags: list[str] = field(default_factory=list)
    age: float | None = None
    sex: str = ""
    """What the file itself says of the patient, for where the data set's table does not."""


def decode(raw: Raw, path: str) -> Decoded:
    """Return the recording whose header is `path`; raises RecordError with the reason where it cannot be had."""
    header = read_header(raw, path)
    channels, flags = header.channels, list[str]()
    folder = path[: path.rfind("/") + 1]
    if channels and all(c.format in BITS and c.samples_per_frame == 1 and c.skew == 0 for c in channels):
        stored = read_stored(raw, folder, header)
        channels, flags = right_gains(path, channels, stored, header.fs_hz)
        mapped = map_leads([channel.name for channel in channels])
        plain = len(channels) == len(LEADS) and all(is_plain(c) and mapped.get(row) == (row, 1) for row, c in enumerate(channels))
        signal, uv = plain_to_leads(stored) if plain else to_leads(stored_to_mv(stored, channels), mapped)
    else:
        names, mv = read_wfdb(raw, path, folder, header)
        mapped = map_leads(names)
        signal, uv = to_leads(mv, mapped)
    if any(channels[channel].gain_assumed for channel, _ in mapped.values() if channels):
        flags.append("gain_assumed")
    return name_signal(signal, uv, set(mapped), header.fs_hz, flags)


def decoded_leads(mv: NDArray[np.float64], names: Sequence[str], fs_hz: float) -> Decoded:
    """Return the recording whose channels, called `names`, are `mv` (channels, samples) in mV: how other containers end."""
    mapped = map_leads(names)
    return name_signal(*to_leads(mv, mapped), set(mapped), fs_hz, [])


def name_signal(signal: NDArray[np.float32], uv: NDArray[np.int32], present: set[int], fs_hz: float, flags: list[str]) -> Decoded:
    """Return the recording of `signal` in mV with the hash of its µV; raises RecordError where there is none."""
    if not present:
        raise RecordError("missing_leads", "none of the twelve leads is there")
    if uv.shape[1] == 0:
        raise RecordError("too_short", "no samples")
    return Decoded(signal, present, fs_hz, hashlib.sha1(uv.data, usedforsecurity=False).hexdigest(), flags)


def read_header(raw: Raw, path: str) -> Header:
    """Return the Header in file `path`."""
    return parse_header(raw.read(path, HEADER_LIMIT).decode("utf-8", "replace"))


def read_stored(raw: Raw, folder: str, header: Header) -> NDArray[np.int16]:
    """Return the stored samples (channels, samples) of a record whose channels are all in formats of BITS, by one read a file."""
    files: dict[str, list[int]] = {}
    for index, channel in enumerate(header.channels):
        files.setdefault(channel.file, []).append(index)
    blocks = []
    for file, members in files.items():
        _, form, _, _, offset, *_ = header.channels[members[0]]
        if any(header.channels[member].format != form for member in members):
            raise RecordError("bad_header", f"two formats in {file}")
        count = len(members)
        wanted = (BITS[form] * count * header.samples + 7) // 8
        data = raw.read(folder + file, offset + wanted if wanted else -1)
        if len(data) < offset + wanted:
            raise RecordError("truncated", f"{file} has {len(data)} bytes of {offset + wanted}")
        samples = header.samples or max(0, len(data) - offset) * 8 // (BITS[form] * count)
        values = np.frombuffer(data, "<i2", samples * count, offset) if form == 16 else unpack212(data, samples * count, offset)
        blocks.append(values.reshape(samples, count).T)
    if len(blocks) == 1:
        return blocks[0]
    if len({block.shape[1] for block in blocks}) > 1:
        raise RecordError("truncated", "signal files of different lengths")
    order = np.argsort(np.concatenate(list(files.values())))
    return np.concatenate(blocks)[order]


def unpack212(data: bytes, count: int, offset: int) -> NDArray[np.int16]:
    """Return `count` samples of 12 bits, two in three bytes from `offset` on; INVALID16 where invalid."""
    size = (3 * count + 1) // 2
    packed = np.zeros((-(-size // 3), 3), np.int16)
    packed.ravel()[:size] = np.frombuffer(data, np.uint8, size, offset)
    low, middle, high = packed.T
    values = np.stack([low | (middle & 0x0F) << 8, high | (middle & 0xF0) << 4], 1).ravel()[:count]
    values <<= 4
    values >>= 4  # the sign
    values[values == INVALID212] = INVALID16
    return values


def is_plain(channel: Channel) -> bool:
    """Say whether one stored unit is one µV."""
    return channel.gain_adu_per_unit == 1000 and channel.mv_per_unit == 1 and channel.baseline_adu == 0


def plain_to_leads(stored: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return mV and µV as ``to_leads`` does, from stored samples that are µV in the order of LEADS: PTB-XL, most of CinC."""
    uv = stored.astype("<i4", order="C")
    signal = uv.astype(np.float32)
    signal *= np.float32(1e-3)
    if stored.min(initial=0) == INVALID16:
        invalid = uv == INVALID16
        uv[invalid], signal[invalid] = INVALID, np.nan
    return signal, uv


def stored_to_mv(stored: NDArray[np.int16], channels: Sequence[Channel]) -> NDArray[np.float64]:
    """Return mV (channels, samples), NaN where invalid, computed as wfdb does: values half-way between two µV round alike."""
    mv = np.empty(stored.shape)
    for row, of, channel in zip(mv, stored, channels, strict=True):
        np.subtract(of, channel.baseline_adu, out=row, dtype=np.float64)
        with np.errstate(over="ignore"):
            row /= channel.gain_adu_per_unit
            row *= channel.mv_per_unit
        row[of == INVALID16] = np.nan
    return mv


def to_leads(mv: NDArray[np.float64], mapped: dict[int, tuple[int, int]]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return mV (12, samples) with NaN where absent or invalid, and µV as it is hashed, from mV (channels, samples)."""
    signal = np.full((len(LEADS), mv.shape[1]), np.nan, np.float32)
    uv = np.full((len(LEADS), mv.shape[1]), INVALID, "<i4")
    for row, (channel, sign) in mapped.items():
        with np.errstate(over="ignore"):
            rounded = np.rint(mv[channel] * (1000 * sign))
        valid = np.abs(rounded) < -INVALID  # what does not fit the hash's integers is no number either: kilovolts
        signal[row, valid] = sign * mv[channel][valid]
        uv[row, valid] = rounded[valid]
    return signal, uv


def read_wfdb(raw: Raw, path: str, folder: str, header: Header) -> tuple[list[str], NDArray[np.float64]]:
    """Return channel names and mV (channels, samples) as ``wfdb`` decodes them, once no file outside the folder is named."""
    import wfdb  # half a second; the common formats never need it

    parts = {path: header}
    if header.segments:
        names = [f"{folder}{name}.hea" for name in header.segments if name != "~"]
        if len(set(names)) < len(names):
            raise RecordError("bad_header", "a segment stands there twice")
        parts |= {name: read_header(raw, name) for name in names}
    files = list(parts)
    for of, part in parts.items():
        if part.segments and of != path:
            raise RecordError("bad_header", "segments within segments")
        check_sizes(raw, folder, part)
        files += {folder + channel.file for channel in part.channels if channel.file != "~"}
    try:
        with raw.on_disk(files) as there:
            record = wfdb.rdrecord(f"{there}/{path.removesuffix('.hea')}", return_res=64)
    except WFDB_ERRORS as error:
        raise RecordError("unreadable", f"wfdb: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}") from None
    if record.p_signal is None:
        raise RecordError("unreadable", "wfdb returns no samples")
    scale = [MV_PER_UNIT.get(unit.lower(), 0.0) for unit in record.units]
    if 0.0 in scale:
        raise RecordError("bad_header", f"unit {record.units[scale.index(0.0)][:20]!r} is not a voltage")
    return [name or "" for name in record.sig_name], (record.p_signal * scale).T


def check_sizes(raw: Raw, folder: str, header: Header) -> None:
    """Raise RecordError where a signal file cannot hold the samples that its header claims, before anything is allocated for them."""
    claimed: dict[str, float] = {}
    for channel in header.channels:
        density = SAMPLES_PER_BYTE.get(channel.format, FLAC_SAMPLES_PER_BYTE)
        need = header.samples * channel.samples_per_frame / density
        claimed[channel.file] = claimed.get(channel.file, channel.offset) + need
    for file, need in claimed.items():
        if file != "~" and raw.size(folder + file) + 4 < need:
            raise RecordError("truncated", f"{file} has {raw.size(folder + file)} bytes of {need:.0f}")
