"""Samples of the files that hospitals export: MUSE and aECG XML, DICOM, SCP-ECG, EDF, and plain arrays with a layout.

Each ends as channels by name in mV, so that what a file lacks is derived, and what is wrong with it flagged, as anywhere else.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import RecordError
from cmelt.exports import guarded, lead_name, open_export, read_layout
from cmelt.raw import Raw
from cmelt.record import LEADS
from cmelt.signal.decode import INVALID16, Decoded, decoded_leads
from cmelt.signal.header import LOWEST_FS_HZ, MV_PER_UNIT

HIGHEST_FS_HZ = 100_000.0
MV_PER_WORD = MV_PER_UNIT | {"microvolts": 1e-3, "microvolt": 1e-3, "millivolts": 1.0, "millivolt": 1.0}
CODES = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {2 + n: f"V{n}" for n in range(1, 7)}
"""Lead numbers of SCP-ECG, which DICOM's codes (2:61, 5.6.3-9-61) end in."""

Channels = tuple[list[str], list[NDArray[Any]], float]
"""Names, as many arrays (samples,) in mV, NaN where invalid, and the rate in Hz."""


def decode_export(raw: Raw, path: str) -> Decoded:
    """Return the recording in file `path`, whatever format of ENDINGS it is in; raises RecordError."""
    kind, opened = open_export(raw, path)
    readers: dict[str, Callable[[], Channels]] = {
        "muse": lambda: muse(opened),
        "aecg": lambda: aecg(opened),
        "dicom": lambda: dicom(opened),
        "edf": lambda: edf(opened),
        "scp": lambda: scp(opened),
        "npy": lambda: plain(npy_array(opened), [], read_layout(raw, path)),
        "csv": lambda: plain(*csv_array(opened), read_layout(raw, path)),
    }
    names, channels, fs_hz = guarded(readers[kind], kind)
    if not LOWEST_FS_HZ <= fs_hz <= HIGHEST_FS_HZ:  # NaN neither
        raise RecordError("bad_header", f"{fs_hz:g} Hz")
    kept = [at for at, name in enumerate(names) if name.lstrip("-") in LEADS]
    if not kept:
        raise RecordError("missing_leads", f"none of the twelve leads is among {' '.join(names)[:80] or 'none'}")
    if len({channels[at].shape for at in kept}) > 1:
        raise RecordError("unreadable", f"leads of {sorted({len(channels[at]) for at in kept})} samples; they must be simultaneous")
    mv = np.array([channels[at] for at in kept], np.float64)
    mv[~np.isfinite(mv)] = np.nan
    return decoded_leads(mv, [names[at] for at in kept], fs_hz)


def muse(root: Any) -> Channels:
    """Return the rhythm leads of a GE MUSE XML: base64 of 16-bit numbers; III and the augmented leads are not in it."""
    waves = [wave for wave in root.findall("Waveform") if text(wave, "WaveformType").lower() == "rhythm"]
    if not waves:
        raise RecordError("unreadable", "MUSE: no rhythm waveform")
    names, channels = [], []
    for lead in waves[0].findall("LeadData"):
        if text(lead, "LeadSampleSize", "2") != "2":
            raise RecordError("unreadable", f"MUSE: samples of {text(lead, 'LeadSampleSize')} bytes")
        if float(text(lead, "LeadTimeOffset", "0")) or float(text(lead, "LeadOffsetFirstSample", "0")):
            raise RecordError("unreadable", "MUSE: leads that begin at different times")
        data = base64_bytes(text(lead, "WaveFormData"))
        samples = int(text(lead, "LeadSampleCountTotal", str(len(data) // 2)))
        if not 0 < 2 * samples <= len(data):
            raise RecordError("truncated", f"MUSE: {len(data) // 2} samples of {samples}")
        scale = float(text(lead, "LeadAmplitudeUnitsPerBit")) * mv_per(text(lead, "LeadAmplitudeUnits", "MICROVOLTS"))
        stored = np.frombuffer(data, "<i2", samples)
        names.append(lead_name(text(lead, "LeadID")))
        channels.append(np.where(stored == INVALID16, np.nan, stored * scale))
    return names, channels, float(text(waves[0], "SampleBase")) * 10.0 ** int(text(waves[0], "SampleExponent", "0"))


def base64_bytes(coded: str) -> bytes:
    """Return what base64 with line breaks codes; raises RecordError."""
    try:
        return base64.b64decode("".join(coded.split()), validate=True)
    except binascii.Error as error:
        raise RecordError("unreadable", f"MUSE: base64: {error}") from None


def aecg(root: Any) -> Channels:
    """Return the leads of an HL7 aECG: the set of sequences, of the series itself, that has the most of the twelve."""
    best: Channels = ([], [], 0.0)
    for block in root.findall("{*}component/{*}series/{*}component/{*}sequenceSet"):
        names, channels, fs_hz = [], [], 0.0
        for sequence in block.findall("{*}component/{*}sequence"):
            name, value = attribute(sequence, "{*}code", "code"), sequence.find("{*}value")
            if value is None:
                continue
            if name.startswith("TIME_"):
                unit = {"s": 1.0, "ms": 1e-3, "us": 1e-6}[attribute(value, "{*}increment", "unit", "s")]
                fs_hz = 1 / (float(attribute(value, "{*}increment", "value")) * unit)
                continue
            scale = float(attribute(value, "{*}scale", "value", "1")) * mv_per(attribute(value, "{*}scale", "unit", "uV"))
            origin = float(attribute(value, "{*}origin", "value", "0")) * mv_per(attribute(value, "{*}origin", "unit", "uV"))
            names.append(lead_name(name))
            channels.append(np.array(text(value, "{*}digits").split(), np.float64) * scale + origin)
        if count_leads(names) > count_leads(best[0]):
            best = names, channels, fs_hz
    return best


def dicom(data: Any) -> Channels:
    """Return the leads of a DICOM waveform: the multiplex group that has the most of the twelve, the longest of equals."""
    from pydicom.waveforms import multiplex_array

    best: tuple[int, int, int] = (0, 0, -1)
    for at, group in enumerate(data.get("WaveformSequence", ())):
        count = count_leads([channel_name(channel) for channel in group.ChannelDefinitionSequence])
        best = max(best, (count, int(group.NumberOfWaveformSamples), -1 - at))
    index = -1 - best[2]
    if not best[0]:
        raise RecordError("missing_leads", "DICOM: no waveform has any of the twelve leads")
    group = data.WaveformSequence[index]
    need = best[1] * int(group.NumberOfWaveformChannels) * int(group.WaveformBitsAllocated) // 8
    if not 0 < need <= len(group.WaveformData):
        raise RecordError("truncated", f"DICOM: {len(group.WaveformData)} bytes of {need}")
    stored = multiplex_array(data, index, as_raw=True)
    physical = multiplex_array(data, index, as_raw=False)
    padding = group.get("WaveformPaddingValue")
    if padding is not None:
        gone = np.frombuffer(padding, stored.dtype)[0] if isinstance(padding, bytes) else padding
        physical[stored == gone] = np.nan
    channels = list(group.ChannelDefinitionSequence)
    for samples, channel in zip(physical.T, channels, strict=True):
        if "ChannelSensitivity" in channel:
            samples *= mv_per(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
        else:
            samples[:] = np.nan  # numbers without a unit are no voltages
    return [channel_name(channel) for channel in channels], list(physical.T), float(group.SamplingFrequency)


def channel_name(channel: Any) -> str:
    """Return the lead of a DICOM channel by its code, else by what the code means, else by its label."""
    source = channel.get("ChannelSourceSequence")
    if not source:
        return lead_name(str(channel.get("ChannelLabel", "")))
    number = str(source[0].get("CodeValue", "")).replace(":", "-").rpartition("-")[2]
    known = CODES.get(int(number)) if number.isdecimal() and len(number) < 4 else None
    return known or lead_name(str(source[0].get("CodeMeaning", "")))


def edf(opened: Any) -> Channels:
    """Return the leads of an EDF file; raises RecordError where they differ in rate."""
    signals = [signal for signal in opened.signals if lead_name(signal.label).lstrip("-") in LEADS]
    rates = {signal.sampling_frequency for signal in signals}
    if len(rates) != 1:
        raise RecordError("unreadable", f"EDF: leads at {len(rates)} rates" if rates else "EDF: none of the twelve leads is there")
    channels = [signal.data * mv_per(signal.physical_dimension) for signal in signals]
    return [lead_name(signal.label) for signal in signals], channels, float(rates.pop())


def scp(record: Any) -> Channels:
    """Return the rhythm leads of an SCP-ECG record."""
    leads = record.leads
    if len({lead.annotations.get("start_sample", "1") for lead in leads}) > 1:
        raise RecordError("unreadable", "SCP-ECG: leads that begin at different times")
    channels = [lead.to_physical().samples * mv_per(lead.resolution_unit) for lead in leads]
    return [lead_name(lead.label) for lead in leads], channels, 1e6 / float(record.raw_metadata["rhythm_sample_interval_us"])


def plain(array: NDArray[Any], names: Sequence[str], layout: Mapping[str, Any]) -> Channels:
    """Return the leads of an array as `layout` describes it: fs_hz, unit or gain_adu_per_mv, leads (for those without `names`)."""
    leads = names or layout.get("leads") or LEADS
    leads = [lead_name(lead) for lead in (leads.replace(",", " ").split() if isinstance(leads, str) else leads)]
    if "fs_hz" not in layout or not {"unit", "gain_adu_per_mv"} & layout.keys():
        raise RecordError("bad_header", "no layout says its fs_hz and unit (a .json beside it, or a layout.json above)")
    if array.ndim != 2 or len(leads) not in array.shape:
        raise RecordError("bad_header", f"shape {array.shape} with {len(leads)} leads")
    across = array if array.shape[0] == len(leads) else array.T
    scale = mv_per(str(layout["unit"])) if "unit" in layout else 1 / float(layout["gain_adu_per_mv"])
    return leads, list(across.astype(np.float64) * scale), float(layout["fs_hz"])


def npy_array(data: bytes) -> NDArray[Any]:
    """Return the array in the bytes of a .npy file; raises RecordError for objects and for what is not there."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    count, start = 1, stream.tell()
    for length in shape:
        count *= int(length)
    if dtype.kind not in "iuf" or count <= 0:
        raise RecordError("unreadable", f".npy of {dtype} {shape}; numbers are read")
    if len(data) - start < count * dtype.itemsize:
        raise RecordError("truncated", f"{len(data) - start} bytes of {count * dtype.itemsize}")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")


def csv_array(data: bytes) -> tuple[NDArray[np.float64], list[str]]:
    """Return the numbers (samples, columns) of a CSV, NaN where a field is empty, and the names in its first line, if it has any.

    Parted by commas, semicolons (then a decimal comma is read too) or tabs.
    """
    lines = data.decode("utf-8-sig").splitlines()
    first = lines[0] if lines else ""
    mark = next((mark for mark in "\t;" if mark in first), ",")
    names = [name.strip().strip('"') for name in first.split(mark)]
    named = any(lead_name(name).lstrip("-") in LEADS for name in names)
    body = [line.replace(",", ".") if mark == ";" else line for line in lines[named:]]
    empty = any(f"{mark}{mark}" in line or line.startswith(mark) or line.endswith(mark) for line in body)
    values = np.loadtxt(body, delimiter=mark, ndmin=2, converters=float_or_nan if empty else None, comments=None)
    return values, names if named else []


def float_or_nan(field: str) -> float:
    """Return a number, NaN for an empty field."""
    return float(field) if field.strip() else float("nan")


def count_leads(names: Sequence[str]) -> int:
    """Return how many of the twelve leads `names` has."""
    return len({name.lstrip("-") for name in names} & set(LEADS))


def mv_per(unit: str) -> float:
    """Return mV per `unit`; raises RecordError for what is not a voltage."""
    if unit.strip().lower() not in MV_PER_WORD:
        raise RecordError("bad_header", f"unit {unit.strip()[:20]!r} is not a voltage")
    return MV_PER_WORD[unit.strip().lower()]


def text(element: Any, tag: str, otherwise: str | None = None) -> str:
    """Return the text of the child `tag` of an XML element; raises RecordError where there is none and nothing else to take."""
    found = (element.findtext(tag) or "").strip()
    if not found and otherwise is None:
        raise RecordError("bad_header", f"no {tag.rpartition('}')[2]}")
    return found or str(otherwise)


def attribute(element: Any, tag: str, name: str, otherwise: str = "") -> str:
    """Return an attribute of the child `tag` of an XML element, `otherwise` where it is absent."""
    child = element.find(tag)
    return otherwise if child is None else child.get(name, otherwise)
