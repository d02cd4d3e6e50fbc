"""Files that hospitals export: which format each is in, and the file opened by its library, safely.

Who was recorded (datasets/files.py) and what (signal/exports.py) are both read from what ``open_export`` returns. A file is
read whole, within a limit, and its library sees bytes or this file's own path: no path and no size in it is believed.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cmelt.errors import MissingExtra, RecordError
from cmelt.raw import Raw
from cmelt.record import LEADS

ENDINGS = {".xml": "xml", ".dcm": "dicom", ".dicom": "dicom", ".scp": "scp", ".edf": "edf", ".npy": "npy", ".csv": "csv"}
"""How a recording's file name ends → what reads it. A name without an ending may be DICOM's."""

LAYOUT = "layout.json"
"""What is said of the .npy and .csv files in its folder and below; ``X.json`` beside ``X.npy`` says it of one."""

MEBIBYTE = 1 << 20
MOST_BYTES = {"xml": 16 * MEBIBYTE, "dicom": 16 * MEBIBYTE, "scp": 4 * MEBIBYTE, "csv": 64 * MEBIBYTE}
"""A larger file is no resting ECG; parsed, it would take fifty times as much memory."""
MOST_BYTES_OF_ARRAYS = 1 << 28
MOST_BYTES_OF_LAYOUT = MEBIBYTE

ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, EOFError, ArithmeticError, MemoryError, RuntimeError)
"""What libraries raise over damaged files; RuntimeError is also recursion too deep."""

DEFLATED = b"1.2.840.10008.1.2.1.99"
PREAMBLE = 128
LEAD = re.compile(r"(?:MDC_ECG_LEAD_|(?:EKG|ECG|LEAD)[\s_:.-]*)*(-?AV[RLF]|-?V[1-6]|I{1,3})", re.IGNORECASE)

Export = tuple[str, Any]
"""The format and what its library makes of the file: an XML element, a DICOM data set, an Edf, an ECGRecord, bytes."""


def kind_of(raw: Raw, path: str) -> str:
    """Return which of ENDINGS' formats file `path` is in, '' for none; a file without an ending is looked into."""
    name = path.rpartition("/")[2]
    ending = name[name.rfind(".") :].lower() if "." in name else ""
    if ending in ENDINGS:
        return ENDINGS[ending]
    plain = not ending or ending[1:].isdigit()  # DICOM's names are often bare UIDs
    return "dicom" if plain and raw.read(path, PREAMBLE + 4)[PREAMBLE:] == b"DICM" else ""


def open_export(raw: Raw, path: str) -> Export:
    """Return what file `path` is and holds; raises RecordError, and MissingExtra where its library is not installed."""
    kind = kind_of(raw, path)
    most, size = MOST_BYTES.get(kind, MOST_BYTES_OF_ARRAYS), raw.size(path)
    if size > most:
        raise RecordError("unreadable", f"{size:,} bytes; a resting ECG in this format has fewer than {most:,}")
    data = raw.read(path)
    if kind == "xml":
        return open_xml(data)
    opener: dict[str, Callable[[], Any]] = {
        "dicom": lambda: open_dicom(data),
        "edf": lambda: open_edf(data),
        "scp": lambda: open_scp(raw, path),
        "npy": lambda: data,
        "csv": lambda: data,
    }
    if kind not in opener:
        raise RecordError("unreadable", "none of the formats that are read: " + " ".join(ENDINGS))
    return kind, opener[kind]()


def guarded(open_it: Callable[[], Any], what: str, *errors: type[Exception]) -> Any:
    """Return what `open_it` returns, its warnings unsaid; its errors, and the library's own `errors`, are RecordError unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_it()
    except RecordError:
        raise
    except ERRORS + errors as error:
        said = " ".join(str(error).split())[:120]
        raise RecordError("unreadable", f"{what}: {said or type(error).__name__}") from None


def open_xml(data: bytes) -> Export:
    """Return ('muse' or 'aecg', root element) of an XML file; entities and anything outside the file are refused."""
    try:
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise MissingExtra("defusedxml", "xml") from None
    try:
        root = fromstring(data)
    except ParseError as error:
        raise RecordError("unreadable", f"XML: {error}") from None
    except (ValueError, LookupError) as error:  # entities, or an encoding that nobody knows
        raise RecordError("unreadable", f"XML: {str(error)[:120]}") from None
    name = root.tag.rpartition("}")[2]
    kinds = {"RestingECG": "muse", "AnnotatedECG": "aecg"}
    if name not in kinds:
        raise RecordError("unreadable", f"XML of a {name[:40]}; MUSE's RestingECG and HL7's AnnotatedECG are read")
    return kinds[name], root


def open_dicom(data: bytes) -> Any:
    """Return the DICOM data set in `data`."""
    try:
        from pydicom import dcmread
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError:
        raise MissingExtra("pydicom", "dicom") from None
    if DEFLATED in data[:1024]:
        raise RecordError("unreadable", "DICOM: deflated, which waveforms are not")
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # what it warns of is refused, or harmless
    data_set = guarded(lambda: dcmread(io.BytesIO(data)), "DICOM", BytesLengthException, InvalidDicomError)
    guarded(data_set.decode, "DICOM", BytesLengthException)  # elements are converted on first use: now, where errors are caught
    return data_set


def open_edf(data: bytes) -> Any:
    """Return the EDF or EDF+ file in `data`; raises RecordError truncated where it has fewer records than it says."""
    try:
        from edfio import read_edf
    except ImportError:
        raise MissingExtra("edfio", "edf") from None
    claimed = guarded(lambda: int(data[236:244]), "EDF")
    edf = guarded(lambda: read_edf(data, header_encoding="latin-1"), "EDF")
    if claimed > edf.num_data_records:
        raise RecordError("truncated", f"{edf.num_data_records} data records of {claimed}")
    if data[192:197] == b"EDF+D":
        raise RecordError("unreadable", "EDF+D: a recording with gaps")
    return edf


def open_scp(raw: Raw, path: str) -> Any:
    """Return the SCP-ECG record in file `path`."""
    try:
        from ecgdatakit.exceptions import ECGDataKitError
        from ecgdatakit.parsing.parsers.scp_ecg import SCPECGParser
    except ImportError:
        raise MissingExtra("ecgdatakit", "scp") from None
    with raw.on_disk([path]) as there:
        return guarded(lambda: SCPECGParser().parse(Path(there) / path), "SCP-ECG", ECGDataKitError)


def read_layout(raw: Raw, path: str) -> Mapping[str, Any]:
    """Return what JSON files say of the array at `path`: its own beside it, else the nearest LAYOUT of the folders above."""
    folders = path.split("/")[:-1]
    above = ["/".join([*folders[:depth], LAYOUT]) for depth in range(len(folders), -1, -1)]
    file = next((name for name in (f"{path.rpartition('.')[0]}.json", *above) if raw.exists(name)), "")
    if not file:
        return {}
    try:
        said = json.loads(raw.read(file, MOST_BYTES_OF_LAYOUT))
    except (ValueError, RecursionError) as error:
        raise RecordError("bad_header", f"{file}: {str(error)[:80]}") from None
    if not isinstance(said, dict):
        raise RecordError("bad_header", f"{file} is not a JSON object")
    return said


def lead_name(text: str) -> str:
    """Return a lead's name as LEADS spells it (``MDC_ECG_LEAD_AVR``, ``Lead aVR``, ``EKG aVR`` → ``aVR``); others as they stand."""
    found = LEAD.fullmatch(text.strip().removesuffix(" (Einthoven)"))
    if not found:
        return text.strip()
    sign, plain = ("-", found[1][1:]) if found[1].startswith("-") else ("", found[1])
    return sign + next(lead for lead in LEADS if lead.upper() == plain.upper())
