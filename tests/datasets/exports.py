"""Files as hospitals export them, written by other hands than those that read them: XML and SCP-ECG here, DICOM and EDF by libraries."""

from __future__ import annotations

import base64
import binascii
import struct
import warnings
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import numpy as np

from cmelt.record import LEADS

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
NUMBERS = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{n}": n + 2 for n in range(1, 7)}


def stored(mv: np.ndarray, uv_per_bit: float) -> np.ndarray:
    """Return (leads, samples) mV as 16-bit numbers of `uv_per_bit`."""
    return np.rint(mv * 1000 / uv_per_bit).astype("<i2")


def muse(file: Path, mv: np.ndarray, fs_hz: int = 500, uv_per_bit: float = 4.88, leads: Sequence[str] = EIGHT, more: str = "") -> None:
    """Write `mv` (12, samples) as a GE MUSE XML of eight leads: a median beat first, then the rhythm."""
    rows = stored(mv[[LEADS.index(lead) for lead in leads]], uv_per_bit)
    waves = ""
    for kind, of in (("Median", rows[:, :600]), ("Rhythm", rows)):
        waves += f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>{len(leads)}</NumberofLeads>"
        waves += f"<SampleBase>{fs_hz}</SampleBase><SampleExponent>0</SampleExponent>"
        for lead, samples in zip(leads, of, strict=True):
            coded = base64.encodebytes(samples.tobytes()).decode()
            waves += f"<LeadData><LeadByteCountTotal>{2 * samples.size}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>"
            waves += f"<LeadSampleCountTotal>{samples.size}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>{uv_per_bit}"
            waves += f"</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{lead}</LeadID>"
            waves += f"<LeadSampleSize>2</LeadSampleSize><WaveFormData>\n{coded}</WaveFormData></LeadData>"
        waves += "</Waveform>"
    file.write_text(
        f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG>
<PatientDemographics><PatientID>M-17</PatientID><PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>FEMALE</Gender>
<PatientLastName>Björk</PatientLastName></PatientDemographics>
<TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice></TestDemographics>
<Diagnosis><DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText></DiagnosisStatement>
<DiagnosisStatement><StmtText>Possible</StmtText></DiagnosisStatement>
<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>left atrial enlargement</StmtText></DiagnosisStatement></Diagnosis>
{waves}{more}</RestingECG>
""",
        encoding="latin-1",
    )


def aecg(file: Path, mv: np.ndarray, fs_hz: int = 500, uv_per_bit: float = 2.5) -> None:
    """Write `mv` (12, samples) as an HL7 aECG with all twelve leads and an interpretation."""
    leads = ""
    for lead, samples in zip(LEADS, stored(mv, uv_per_bit), strict=True):
        leads += f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24"/>'
        leads += f'<value xsi:type="SLIST_PQ"><origin value="0" unit="uV"/><scale value="{uv_per_bit}" unit="uV"/>'
        leads += f"<digits>{' '.join(map(str, samples))}</digits></value></sequence></component>"
    note = '<annotation><code code="MDC_ECG_INTERPRETATION_STATEMENT"/><value xsi:type="ST">{}</value></annotation>'
    notes = "".join(f"<component>{note.format(line)}</component>" for line in ("Atrial fibrillation", "Abnormal ECG &lt;1&gt;"))
    file.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<effectiveTime><low value="20200302101500"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><id root="1.2.3" extension="A-9"/>
<subjectDemographicPerson><administrativeGenderCode code="M"/><birthTime value="19500303"/></subjectDemographicPerson>
</trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
<component><series><code code="RHYTHM"/><author><seriesAuthor><manufacturedSeriesDevice>
<manufacturerModelName>ELI 350</manufacturerModelName>
</manufacturedSeriesDevice></seriesAuthor></author>
<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20200302101500.000"/>
<increment value="{1 / fs_hz:g}" unit="s"/></value></sequence></component>{leads}</sequenceSet></component>
<subjectOf><annotationSet>{notes}</annotationSet></subjectOf></series></component>
</AnnotatedECG>
""",
        encoding="utf-8",
    )


def dicom(file: Path, mv: np.ndarray, fs_hz: int = 500, uv_per_bit: float = 1.25, baseline_uv: float = 0.0) -> None:
    """Write `mv` (12, samples) as DICOM's 12-lead ECG waveform, after a group of one channel that is no lead."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    def coded(value: str, meaning: str, scheme: str) -> list[Dataset]:
        code = Dataset()
        code.CodeValue, code.CodeMeaning, code.CodingSchemeDesignator = value, meaning, scheme
        return [code]

    def group(rows: np.ndarray, codes: Sequence[tuple[str, str]]) -> Dataset:
        item = Dataset()
        item.WaveformOriginality, item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = "ORIGINAL", *rows.shape
        item.SamplingFrequency, item.WaveformBitsAllocated, item.WaveformSampleInterpretation = fs_hz, 16, "SS"
        item.ChannelDefinitionSequence = []
        for value, meaning in codes:
            channel = Dataset()
            channel.ChannelSourceSequence = coded(value, meaning, "MDC")
            channel.ChannelSensitivity, channel.ChannelBaseline, channel.ChannelSensitivityCorrectionFactor = uv_per_bit / 2, baseline_uv, 2
            channel.ChannelSensitivityUnitsSequence = coded("uV", "microvolt", "UCUM")
            channel.WaveformBitsStored = 16
            item.ChannelDefinitionSequence.append(channel)
        item.WaveformPaddingValue = struct.pack("<h", -32768)
        item.WaveformData = rows.T.astype("<i2").tobytes()
        return item

    rows = stored(mv - baseline_uv / 1000, uv_per_bit)
    names = [f"Lead {lead}" + " (Einthoven)" * (lead in LEADS[:3]) for lead in LEADS]
    codes = [(f"2:{NUMBERS[lead]}" if row % 2 else "", name) for row, (lead, name) in enumerate(zip(LEADS, names, strict=True))]
    data, note = Dataset(), Dataset()
    data.PatientID, data.PatientAge, data.PatientSex, data.PatientName = "D-3", "072Y", "F", "Doe^Jane"
    data.ManufacturerModelName, data.SOPClassUID, data.SOPInstanceUID = "PageWriter TC50", TwelveLeadECGWaveformStorage, generate_uid()
    note.UnformattedTextValue = "Left bundle branch block"
    data.WaveformAnnotationSequence = [note]
    data.WaveformSequence = [group(np.zeros((1, 9000), "<i2"), [("2:16", "Lead X")]), group(rows, codes)]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.save_as(file, enforce_file_format=True)


def edf(file: Path, mv: np.ndarray, fs_hz: int = 500, rates: Sequence[int] = ()) -> float:
    """Write `mv` (12, samples) as EDF+ of ±5 mV with a respiration channel; return µV per bit."""
    import pyedflib

    with pyedflib.EdfWriter(str(file), 13, file_type=pyedflib.FILETYPE_EDFPLUS) as out:
        names = [*(f"ECG {lead}" for lead in LEADS), "RESP"]
        for at, name in enumerate(names):
            span = {"physical_min": -5000, "physical_max": 5000, "digital_min": -32768, "digital_max": 32767}
            out.setSignalHeader(at, {"label": name, "dimension": "uV", "sample_frequency": [*rates, *[fs_hz] * 13][at], **span})
        out.setPatientCode("E-5")
        out.setPatientName("Jane_Doe")
        out.setSex(0)
        out.setBirthdate(date(1960, 6, 1))
        out.setStartdatetime(datetime(2020, 5, 31, 9))
        out.setEquipment("holter_7")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out.writeSamples([*(row * 1000 for row in mv), np.zeros(mv.shape[1])])
    return 10000 / 65535


def scp(file: Path, mv: np.ndarray, fs_hz: int = 500, uv_per_bit: float = 2.5, huffman: bool = True, leads: Sequence[str] = EIGHT) -> None:
    """Write `mv` (12, samples) as SCP-ECG: eight leads, second differences by the default Huffman table, or plain numbers."""
    rows = stored(mv[[LEADS.index(lead) for lead in leads]], uv_per_bit).astype(int)
    data = []
    for row in rows:
        seconds = np.concatenate((row[:2], row[2:] - 2 * row[1:-1] + row[:-2]))
        data.append(huffman_bits(seconds) if huffman else row.astype("<i2").tobytes())

    def tag(number: int, value: bytes) -> bytes:
        return struct.pack("<BH", number, len(value)) + value

    machine = bytearray(36) + b"CARDIO\0"
    machine[8:14] = b"ELI250"
    sections = {
        1: tag(2, b"S-8\0") + tag(4, struct.pack("<HB", 55, 1)) + tag(8, b"\1") + tag(14, bytes(machine)) + tag(255, b""),
        3: bytes([len(leads), 0x04 | len(leads) << 3]) + b"".join(struct.pack("<IIB", 1, rows.shape[1], NUMBERS[lead]) for lead in leads),
        6: struct.pack("<HHBB", round(uv_per_bit * 1000), round(1e6 / fs_hz), 2 if huffman else 0, 0)
        + struct.pack(f"<{len(leads)}H", *map(len, data))
        + b"".join(data),
        8: bytes([0]) + struct.pack("<HBB3B", 2020, 1, 2, 3, 4, 5) + bytes([1]) + struct.pack("<BH", 1, 14) + b"Sinus rhythm.\0",
    } | ({2: struct.pack("<H", 19999)} if huffman else {})
    bodies = {number: body + b"\0" * (len(body) % 2) for number, body in sorted(sections.items())}
    place, pointers = 7 + 16 + 12 * 10, {}
    for number, body in bodies.items():
        pointers[number] = (16 + len(body), place)
        place += 16 + len(body)
    pointers[0] = (16 + 120, 7)
    table = b"".join(struct.pack("<HII", number, *pointers.get(number, (0, 0))) for number in range(12))
    record = b"".join(section(number, body) for number, body in ((0, table), *bodies.items()))
    whole = struct.pack("<I", len(record) + 6) + record
    file.write_bytes(struct.pack("<H", binascii.crc_hqx(whole, 0xFFFF)) + whole)


def section(number: int, body: bytes) -> bytes:
    """Return a section of SCP-ECG with its header."""
    head = struct.pack("<HIBB6s", number, 16 + len(body), 20, 20, b"SCPECG" if number == 0 else b"\0" * 6)
    return struct.pack("<H", binascii.crc_hqx(head + body, 0xFFFF)) + head + body


def huffman_bits(values: np.ndarray) -> bytes:
    """Return numbers by SCP-ECG's default table: up to eight by a prefix and a sign, others by 8 or 16 bits after ten."""
    bits = []
    for value in values.tolist():
        if value == 0:
            bits.append("0")
        elif abs(value) <= 8:
            bits.append("1" * abs(value) + "0" + ("1" if value < 0 else "0"))
        elif -128 <= value < 128:
            bits.append("1111111110" + f"{value & 0xFF:08b}")
        else:
            bits.append("1111111111" + f"{value & 0xFFFF:016b}")
    whole = "".join(bits)
    whole += "0" * (-len(whole) % 8)
    return int(whole, 2).to_bytes(len(whole) // 8, "big")
