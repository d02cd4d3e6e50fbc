"""WFDB headers: text in, a checked Header out, or a reason.

Strict where a wrong guess would change the signal (formats, gains, file names) and lenient where headers in the wild
differ without meaning (dates before times, record names that end in ``.mat``, blanks). Tokens repeat from record to
record, so their parsing is cached.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cmelt.errors import RecordError

DEFAULT_FS_HZ = 250.0
DEFAULT_GAIN = 200.0
"""What the WFDB format says where a header leaves out the rate or the gain (adu/mV)."""

MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}

MAX_SIGNALS = 1024
MOST_PER_FRAME, MOST_SKEW = 1 << 12, 1 << 16
LOWEST_FS_HZ = 20.0
"""No ECG is sampled more slowly; a header that says so would make hours of a few samples."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RATE = re.compile(rf"({NUMBER})(?:/({NUMBER})(?:\(({NUMBER})\))?)?$", re.ASCII)
FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?$", re.ASCII)
GAIN = re.compile(rf"({NUMBER})(?:\(([-+]?\d+)\))?(?:/(\S+))?$", re.ASCII)


class Channel(NamedTuple):
    """One signal line: which file, how its samples are stored, and what one unit of them means."""

    file: str
    format: int
    samples_per_frame: int
    skew: int
    offset: int
    gain_adu_per_unit: float
    baseline_adu: int
    mv_per_unit: float
    gain_assumed: bool
    name: str


@dataclass(frozen=True, slots=True)
class Header:
    """A record: its rate, samples per signal (0 where the header does not say), channels, or names of segments; comments."""

    fs_hz: float
    samples: int
    channels: tuple[Channel, ...]
    segments: tuple[str, ...]
    comments: tuple[str, ...]


def parse_header(text: str) -> Header:
    """Return the Header that `text` says; raises RecordError bad_header or path_outside."""
    lines, comments = [], []
    for raw_line in text.splitlines():
        line = raw_line.strip()
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line:
            lines.append(line)
    if not lines:
        raise bad("no record line")
    fields = lines[0].split()
    if len(fields) < 2:
        raise bad(f"record line {lines[0][:80]!r}")
    _, slash, segments = fields[0].partition("/")
    count = whole(fields[1], "number of signals", MAX_SIGNALS)
    fs_hz = parse_rate(fields[2]) if len(fields) > 2 else DEFAULT_FS_HZ
    samples = whole(fields[3], "number of samples") if len(fields) > 3 else 0
    if slash:
        expected = whole(segments, "number of segments")
        names = tuple(inside(line.split()[0]) for line in lines[1:])
        if len(names) != expected:
            raise bad(f"{len(names)} segment lines, {expected} announced")
        return Header(fs_hz, samples, (), names, tuple(comments))
    if len(lines) - 1 != count:
        raise bad(f"{len(lines) - 1} signal lines, {count} announced")
    return Header(fs_hz, samples, tuple(parse_channel(line) for line in lines[1:]), (), tuple(comments))


def parse_channel(line: str) -> Channel:
    """Return the Channel of one signal line."""
    fields = line.split(None, 8)
    count = len(fields)
    if count < 2:
        raise bad(f"signal line {line[:80]!r}")
    return Channel._make(
        (
            inside(fields[0]),
            *parse_format(fields[1]),
            *parse_meaning(fields[2] if count > 2 else "0", fields[4] if count > 4 else "0"),
            fields[8].strip() if count > 8 else "",
        )
    )


@lru_cache(4096)
def parse_format(token: str) -> tuple[int, int, int, int]:
    """Return format, samples per frame, skew and byte offset of a token such as ``16x1+24``."""
    match = FORMAT.match(token)
    if match is None or len(token) > 40:
        raise bad(f"format {token[:40]!r}")
    format_, per_frame, skew, offset = (int(number or default) for number, default in zip(match.groups(), (0, 1, 0, 0), strict=True))
    if per_frame > MOST_PER_FRAME or skew > MOST_SKEW:  # a decoder makes room for them before it reads
        raise bad(f"format {token[:40]!r}")
    return format_, per_frame, skew, offset


def parse_gain(token: str) -> tuple[float, int | None, float, bool]:
    """Return adu per unit, baseline in adu (None: not said), mV per unit and whether the gain is assumed, of ``1000.0(0)/mV``, say."""
    match = GAIN.match(token)
    if match is None or len(token) > 80:
        raise bad(f"gain {token[:40]!r}")
    number, baseline, unit = match.groups()
    mv = MV_PER_UNIT.get((unit or "mV").lower())
    if mv is None:
        raise bad(f"unit {unit[:20]!r} is not a voltage")
    gain = float(number)
    if abs(gain) == float("inf"):
        raise bad(f"gain {token[:40]!r}")
    return gain or DEFAULT_GAIN, None if baseline is None else integer(baseline, "baseline"), mv, gain == 0


@lru_cache(4096)
def parse_meaning(gain_token: str, zero_token: str) -> tuple[float, int, float, bool]:
    """Return what `parse_gain` does, the baseline being the ADC zero of `zero_token` where the gain does not say it."""
    gain, baseline, mv, assumed = parse_gain(gain_token)
    return gain, integer(zero_token, "ADC zero") if baseline is None else baseline, mv, assumed


@lru_cache(256)
def parse_rate(token: str) -> float:
    """Return Hz of a token such as ``500`` or ``500/360(0)``."""
    match = RATE.match(token)
    rate = float(match.group(1)) if match and len(token) < 80 else 0.0
    if not LOWEST_FS_HZ <= rate < 1e6:
        raise bad(f"rate {token[:40]!r}")
    return rate


def integer(token: str, what: str) -> int:
    """Return a 32-bit integer."""
    if re.fullmatch(r"[-+]?[0-9]{1,10}", token) is None or abs(int(token)) > 2**31:
        raise bad(f"{what} {token[:40]!r}")
    return int(token)


def whole(token: str, what: str, most: int = 10**15) -> int:
    """Return an integer from 0 to `most`."""
    if re.fullmatch(r"[0-9]{1,16}", token) is None or int(token) > most:
        raise bad(f"{what} {token[:40]!r}")
    return int(token)


@lru_cache(64)  # the twelve lines of a record name one file
def inside(name: str) -> str:
    """Return a file name that stays in the header's own folder; raises RecordError path_outside."""
    if "/" in name or "\\" in name or "\0" in name or name in ("", ".", ".."):
        raise RecordError("path_outside", f"the header names {name[:80]!r}")
    return name


def bad(detail: str) -> RecordError:
    """Return the refusal of a header."""
    return RecordError("bad_header", detail)
