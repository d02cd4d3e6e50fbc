"""Any folder of the files that hospitals export: GE MUSE XML, HL7 aECG, DICOM, SCP-ECG, EDF, and .npy or CSV with a layout.

Who was recorded is read from each file: patient id, age, sex, device, and the interpretation as its report; no names, no dates.
A table, as of the family ``wfdb``, says the rest, and wins where both speak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from cmelt.datasets.base import key_of
from cmelt.datasets.headers import About, parse_age, parse_sex
from cmelt.datasets.wfdb import WFDB, join
from cmelt.errors import InputError, RecordError
from cmelt.exports import ENDINGS, guarded, kind_of, open_export, read_layout
from cmelt.raw import Raw
from cmelt.record import Refused, Source

SEEDED = (
    "seeded: fold = 1 + blake2b(patient id) mod 10, of the key where no patient id is given; "
    "folds 1-8 train, 9 val, 10 test; what the table says goes before"
)
YEARS_PER = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25, "h": 1 / 8766}
"""Units of ages, by their first letter."""
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class Files(WFDB):
    """Exported files below a folder, of any of ENDINGS' formats, mixed as they lie."""

    name = "files"
    title = "a folder of exported ECGs"
    decoder = "cmelt.signal.exports:decode_export"

    def __init__(self, raw: Raw, table: Path | str = "", mains_hz: float = 50.0) -> None:
        super().__init__(raw, table, mains_hz)
        self.split_rule = SEEDED
        self.table = Path(table).resolve() if table else None

    def sources(self) -> Iterator[Source | Refused]:
        """Yield every recording found, with its row of the table; then the rows without a recording."""
        found = [self.read_about(path) for path in self.raw.files("") if self.is_recording(path)]
        if not found:
            raise InputError(f"{self.raw.folder} holds none of {' '.join(ENDINGS)}; give the folder that holds the exported files")
        return join(found, self.rows, names_of)

    def is_recording(self, path: str) -> bool:
        """Say whether file `path` is of a format that is read, and not the table itself."""
        return bool(kind_of(self.raw, path)) and not (self.table and Path(self.raw.folder, path).resolve() == self.table)

    def read_about(self, path: str) -> tuple[str, About] | Refused:
        """Return what file `path` says of its patient; Refused where it cannot be opened."""
        try:
            kind, opened = open_export(self.raw, path)
            if kind in ("npy", "csv"):
                opened = read_layout(self.raw, path)
            return path, guarded(lambda: ABOUT[kind](opened), kind)
        except RecordError as error:
            return Refused(key_of(path), path, error.reason, error.detail)


def names_of(path: str) -> tuple[str, ...]:
    """Return a file's names: its key, its key where others have that too, and what else a table may call it."""
    folder, _, file = path.rpartition("/")
    stem, dot, ending = file.rpartition(".")
    name = stem if dot and f".{ending.lower()}" in ENDINGS else file
    return (
        key_of(name.replace(".", "_")),
        key_of(path.replace("/", "_").replace(".", "_")),
        path,
        f"{folder}/{name}".lstrip("/"),
        file,
        name,
    )


def about_muse(root: Any) -> About:
    """Return what a MUSE XML says: the statements of its diagnosis, a line each."""
    lines, line = [], list[str]()
    for statement in root.findall("Diagnosis/DiagnosisStatement"):
        line += (statement.findtext("StmtText") or "").split()
        if any((flag.text or "").strip() == "ENDSLINE" for flag in statement.findall("StmtFlag")):
            lines.append(" ".join(line))
            line = []
    patient = "PatientDemographics/"
    return make_about(
        patient=root.findtext(f"{patient}PatientID"),
        age=in_years(root.findtext(f"{patient}PatientAge"), root.findtext(f"{patient}AgeUnits") or "years"),
        sex=root.findtext(f"{patient}Gender"),
        lines=[*lines, " ".join(line)],
        device=root.findtext("TestDemographics/AcquisitionDevice"),
    )


def about_aecg(root: Any) -> About:
    """Return what an HL7 aECG says; the age is the time from birth to recording."""

    def said(path: str, name: str) -> str:
        found = root.find(".//" + "/".join(f"{{*}}{part}" for part in path.split("/")))
        return "" if found is None else str(found.get(name, ""))

    lines = [
        value.text
        for annotation in root.iter("{urn:hl7-org:v3}annotation")
        if (code := annotation.find("{*}code")) is not None and code.get("code", "").startswith("MDC_ECG_INTERPRETATION")
        if (value := annotation.find("{*}value")) is not None
    ]
    return make_about(
        patient=said("trialSubject/id", "extension") or said("trialSubject/id", "root"),
        age=between(said("subjectDemographicPerson/birthTime", "value"), said("effectiveTime/low", "value")),
        sex=said("subjectDemographicPerson/administrativeGenderCode", "code"),
        lines=lines,
        device=root.findtext(".//{*}manufacturerModelName"),
    )


def about_dicom(data: Any) -> About:
    """Return what a DICOM data set says: the texts of its annotations as the report."""
    age = str(data.get("PatientAge") or "")
    return make_about(
        patient=data.get("PatientID"),
        age=in_years(age[:-1], age[-1:]) if age else between(data.get("PatientBirthDate"), data.get("StudyDate")),
        sex=data.get("PatientSex"),
        lines=[note.get("UnformattedTextValue") for note in data.get("WaveformAnnotationSequence", ())],
        device=data.get("ManufacturerModelName"),
    )


def about_edf(edf: Any) -> About:
    """Return what an EDF+ header says; a plain EDF's free text is not taken apart, for it may be a name."""
    if not edf.reserved.startswith("EDF+"):
        return About()
    patient, recording = edf.local_patient_identification.split(), edf.local_recording_identification.split()
    code, sex, birth = (*patient, "", "", "")[:3]
    begun = recording[1] if len(recording) > 1 else ""

    def compact(day: str) -> str:
        parts = day.upper().split("-")
        return f"{parts[2]}{MONTHS.index(parts[1]) + 1:02d}{parts[0]}" if len(parts) == 3 and parts[1] in MONTHS else ""

    return make_about(
        patient="" if code == "X" else code,
        age=between(compact(birth), compact(begun)),
        sex=sex,
        device=recording[4].replace("_", " ") if len(recording) > 4 and recording[4] != "X" else "",
    )


def about_scp(record: Any) -> About:
    """Return what an SCP-ECG record says: its statements as the report."""
    patient, device = record.patient, record.recording.device
    return make_about(
        patient=patient.patient_id,
        age=patient.age,
        sex=patient.sex,
        lines=[" ".join(statement) for statement in record.interpretation.statements],
        device=device.model,
    )


def about_layout(layout: Mapping[str, Any]) -> About:
    """Return what the JSON beside an array says under the table's names."""
    return make_about(
        patient=layout.get("patient"),
        age=layout.get("age"),
        sex=layout.get("sex"),
        lines=[layout.get("report")],
        device=layout.get("device"),
        codes=tuple(map(str, layout.get("labels", ()))),
    )


ABOUT: dict[str, Callable[[Any], About]] = {
    "muse": about_muse,
    "aecg": about_aecg,
    "dicom": about_dicom,
    "edf": about_edf,
    "scp": about_scp,
    "npy": about_layout,
    "csv": about_layout,
}
"""What an opened file is → what reads it."""


def make_about(*, patient: Any, age: Any, sex: Any, lines: Any = (), device: Any = "", codes: tuple[str, ...] = ()) -> About:
    """Return an About of values as the formats have them; what is absent or makes no sense is left out."""
    told = [" ".join(str(line).split()) for line in lines if line]
    return About(
        patient=str(patient or "").strip(),
        age=None if age is None else parse_age(str(age)),
        sex=parse_sex(str(sex or "")),
        report=". ".join(line.rstrip(". ") for line in told if line),
        device=str(device or "").strip(),
        codes=codes,
    )


def in_years(number: str | None, unit: str) -> float | None:
    """Return an age in years from a number of years, months, weeks, days or hours."""
    age, per = parse_age(number or ""), YEARS_PER.get(unit.strip()[:1].lower())
    return None if age is None or per is None else round(age * per, 2)


def between(birth: Any, then: Any) -> float | None:
    """Return the whole years between two dates that begin YYYYMMDD; None where either is not one."""
    try:
        first, last = (date(int(day[:4]), int(day[4:6]), int(day[6:8])) for day in (str(birth or ""), str(then or "")))
    except ValueError:
        return None
    return float(last.year - first.year - ((last.month, last.day) < (first.month, first.day)))
