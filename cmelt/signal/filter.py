"""Filter and resample a whole record in one real FFT; where its length is usual, by what is faster and the same (blocks.py).

What it equals, within 1 % of the record's peak at every sample: one zero-phase pass of ``scipy.signal.sosfiltfilt`` over
the joint sections of ``butter(order, [high, low], "band")`` and ``iirnotch``, odd padding min(5 s, n - 1), then ideal
resampling, but that the last tenth below a lower rate's Nyquist frequency fades. How: the record is extended oddly on both sides,
a straight line is taken out so that its two ends meet, its spectrum is multiplied by |H|² (forwards and backwards) and cut
or filled to the new rate on the way back. A high-pass removes straight lines, so the line returns only where there is none.
Filters that still ring after the padding (a high-pass of 0.05 Hz, records of a second) depend on how the record is continued;
there scipy itself filters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import RecordError
from cmelt.signal.band import Band, power, sections, slowest
from cmelt.signal.blocks import Blocks, block_size, make_blocks

PADDING_S = 5.0
HIGHEST = 0.45
"""Low-pass and notch lie below this share of the raw rate, or are skipped."""

RINGING = 2e-3
"""What may be left of a filter's slowest mode where the padding ends."""

FADE = 0.1
"""The share of a lower rate's frequencies, the highest, that fade: cut off sharply they would ring far."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The fixed part of filtering records of one length and rate: paddings, FFT lengths and |H|²."""

    sections: NDArray[np.float64] | None
    """Filters that ring longer than the padding: for scipy; then `gain` has none."""
    left: int
    right: int
    length: int
    """Of the forward FFT; what the padded record does not fill is 0."""
    length_out: int
    start_out: int
    samples_out: int
    gain: NDArray[np.float32]
    """|H|² at the frequencies that both rates have, times length_out / length; each twice, for real and imaginary part."""
    line: NDArray[np.float32]
    """One and the number of the sample, counted in the padded record, (2, samples): of these a straight line is made."""


@lru_cache(64)
def make_plan(samples: int, fs_raw_hz: float, fs_hz: float, band: Band) -> Plan | Blocks:
    """Return how records of `samples` at `fs_raw_hz`, wanted at `fs_hz`, are filtered."""
    ratio = (Fraction(fs_hz).limit_denominator(1000) / Fraction(fs_raw_hz).limit_denominator(1000)).limit_denominator(10_000)
    up, down = ratio.numerator, ratio.denominator
    right = min(round(PADDING_S * fs_raw_hz), samples - 1)
    left = right // down * down  # the record must start on a sample of both rates
    slow = not band.is_off and slowest(band, fs_raw_hz) ** right > RINGING
    size = block_size(samples, fs_raw_hz, down) if band.highpass_hz and not slow else 0
    if size:
        length = 5 * samples
        response = np.fft.irfft(gains(band, length, fs_raw_hz, fs_hz), length * up) * up
        return make_blocks(response, samples, size, up, down)
    from scipy.fft import next_fast_len

    length = down * next_fast_len(-(-(left + samples + right) // down), real=True)
    gain = gains(replace(band, highpass_hz=0, lowpass_hz=0, notch_hz=0) if slow else band, length, fs_raw_hz, fs_hz)
    length_out = length // down * up
    line = np.stack([np.ones(samples), np.arange(left, left + samples)]).astype(np.float32)
    twice = np.repeat((gain * (length_out / length)).astype(np.float32), 2)
    sos = sections(band, fs_raw_hz) if slow else None
    return Plan(sos, left, right, length, length_out, left // down * up, samples * up // down, twice, line)


def gains(band: Band, length: int, fs_raw_hz: float, fs_hz: float) -> NDArray[np.float64]:
    """Return |H|² of `band` at the frequencies of an FFT of `length` that both rates have, faded where the new rate is lower."""
    top_hz = min(fs_raw_hz, fs_hz) / 2
    hz = np.arange(length // 2 + 1, dtype=np.float64) * (fs_raw_hz / length)
    hz = hz[hz <= top_hz * (1 + 1e-9)]
    gain = power(band, fs_raw_hz, hz)
    if fs_hz < fs_raw_hz:
        gain *= np.sin(np.pi / 2 * np.clip((top_hz - hz) / (FADE * top_hz), 0, 1)) ** 2
    return gain


def filter_and_resample(signal: NDArray[np.float32], fs_raw_hz: float, fs_hz: float, band: Band) -> NDArray[np.float32]:
    """Return `signal` (leads, samples at fs_raw_hz) filtered by `band`, at `fs_hz`: (leads, samples · fs_hz / fs_raw_hz)."""
    if band.is_off and fs_raw_hz == fs_hz:
        return signal
    leads, samples = signal.shape
    if samples < 2:
        raise RecordError("too_short", f"{samples} samples")
    plan = make_plan(samples, fs_raw_hz, fs_hz, band)
    if isinstance(plan, Blocks):
        return plan.apply(signal)
    from scipy.fft import irfft, rfft

    if plan.sections is not None:
        from scipy.signal import sosfiltfilt

        filtered = sosfiltfilt(plan.sections, signal, padtype="odd", padlen=plan.right).astype(np.float32)
        return filter_and_resample(filtered, fs_raw_hz, fs_hz, replace(band, highpass_hz=0, lowpass_hz=0, notch_hz=0))
    left, end = plan.left, plan.left + samples
    stop = end + plan.right
    first = 2 * signal[:, 0] - signal[:, left]  # what odd extension makes of the padded record's two ends
    slope = (2 * signal[:, -1] - signal[:, -1 - plan.right] - first) / (stop - 1)
    lines = np.stack([first, slope], 1)
    padded = np.empty((leads, plan.length), np.float32)
    padded[:, stop:] = 0
    inner = padded[:, left:end]
    np.subtract(signal, lines @ plan.line, out=inner)  # before extending: a line's odd extension is itself
    np.subtract(2 * inner[:, :1], inner[:, left:0:-1], out=padded[:, :left])
    np.subtract(2 * inner[:, -1:], inner[:, -2 : -2 - plan.right : -1], out=padded[:, end:stop])
    spectrum = rfft(padded)
    parts = spectrum.view(np.float32)[:, : len(plan.gain)]
    parts *= plan.gain
    filtered = irfft(spectrum[:, : len(plan.gain) // 2], plan.length_out)
    result = filtered[:, plan.start_out : plan.start_out + plan.samples_out]
    if not band.highpass_hz:
        time = np.arange(plan.samples_out, dtype=np.float32) * np.float32(fs_raw_hz / fs_hz) + left
        result += first[:, None] + slope[:, None] * time
    return result
