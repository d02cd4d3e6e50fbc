"""MIMIC-IV-ECG: ``record_list.csv`` names the recordings; ``machine_measurements.csv`` has the machine's report of each study.

The two are joined by ``study_id``: their rows are not in the same order. Patients are known, so splits are drawn by patient.
Age and sex stand in MIMIC-IV itself, not here.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmelt.datasets.base import Dataset, key_of
from cmelt.datasets.splits import BY_PATIENT, seeded_fold, split_of
from cmelt.datasets.tables import read_rows
from cmelt.errors import InputError
from cmelt.raw import Raw, is_inside
from cmelt.record import Refused, Source

LIST = "record_list.csv"
REPORTS = "machine_measurements.csv"
LINES = tuple(f"report_{number}" for number in range(18))


class MIMICIVECG(Dataset):
    """MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset."""

    name = "mimic-iv-ecg"
    title = "MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset"
    licence = "Open Database License 1.0 (ODbL)"
    access = "open: https://physionet.org/content/mimic-iv-ecg/"
    citation = "Gow et al. MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched Subset (2023). doi:10.13026/4nqg-sb35"
    size = "800,035 recordings, 90 GB"
    mains_hz = 60.0
    split_rule = BY_PATIENT

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        if not raw.exists(LIST):
            raise InputError(f"{raw.folder} has no {LIST}; give the folder that the MIMIC-IV-ECG download unpacks to")

    @property
    def version(self) -> str:
        """Return 1.0: the only version published."""
        return "1.0"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a recording for each row of the list, then those that lie there without a row."""
        reports = read_reports(self.raw)
        listed: set[str] = set()
        for number, row in enumerate(read_rows(self.raw, LIST, ("subject_id", "study_id", "path")), 2):
            path = f"{row['path'].strip()}.hea"
            key = key_of(path)
            listed.add(key)
            study, patient = row["study_id"].strip(), row["subject_id"].strip()
            if not study.isdigit() or not patient.isdigit() or not is_inside(path):
                yield Refused(
                    key, path, "bad_row", f"{LIST}, record {number}: subject {patient[:20]!r}, study {study[:20]!r}, {path[:80]!r}"
                )
                continue
            absent = next((file for file in (path, f"{path[:-4]}.dat") if not self.raw.exists(file)), None)
            if absent:
                yield Refused(key, path, "missing_file", absent)
                continue
            yield make_source(key, path, patient, reports.get(int(study), ""))
        for path in self.raw.files(".hea"):
            if (key := key_of(path)) not in listed:
                patient = next((part[1:] for part in path.split("/") if part[:1] == "p" and len(part) == 9 and part[1:].isdigit()), "")
                yield make_source(key, path, patient, reports.get(int(key), "") if key.isdigit() else "")


def make_source(key: str, path: str, patient: str, report: str) -> Source:
    """Return the Source of one recording."""
    fold = seeded_fold(patient or key)
    return Source(key, path, patient, fold, split_of(fold), report_raw=report)


def read_reports(raw: Raw) -> dict[int, str]:
    """Return study → its report's lines, joined; equal reports are one string in memory."""
    reports: dict[int, str] = {}
    distinct: dict[str, str] = {}
    for row in read_rows(raw, REPORTS, ("study_id", LINES[0])) if raw.exists(REPORTS) else ():
        study = row["study_id"].strip()
        if study.isdigit():
            report = ". ".join(line for name in LINES if (line := row.get(name, "").strip()))
            reports[int(study)] = distinct.setdefault(report, report)
    return reports
