"""CODE-15 % (``exams.csv`` + ``exams_part*.hdf5``) and CODE-test (827 tracings, annotations and attributes by row).

There are no reports: their text is made from the six labels, and flagged. All recordings of CODE-test are test recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from cmelt.datasets.base import Dataset
from cmelt.datasets.headers import parse_age, parse_sex
from cmelt.datasets.splits import BY_PATIENT, seeded_fold, split_of
from cmelt.datasets.tables import read_rows
from cmelt.errors import InputError, MissingExtra
from cmelt.labels import class_texts, load_vocabulary
from cmelt.raw import Raw
from cmelt.record import Refused, Source

EXAMS = "exams.csv"
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")
TRUE = ("1", "1.0", "true")


class CODE15(Dataset):
    """CODE-15 %: a subset of the CODE data set of the Telehealth Network of Minas Gerais."""

    name = "code15"
    title = "CODE-15%: a large scale annotated dataset of 12-lead ECGs"
    licence = "CC BY 4.0"
    access = "open: https://doi.org/10.5281/zenodo.4916206"
    citation = "Ribeiro et al. CODE-15%: a large scale annotated dataset of 12-lead ECGs (2021). doi:10.5281/zenodo.4916206"
    size = "345,779 recordings, 60 GB"
    mains_hz = 60.0
    split_rule = BY_PATIENT
    decoder = "cmelt.signal.hdf5:decode_tracing"
    layout = MappingProxyType({"fs_hz": 400.0})

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        if not raw.exists(EXAMS):
            raise InputError(f"{raw.folder} has no {EXAMS}; give the folder that holds it and the unpacked exams_part*.hdf5")
        self.files = list(raw.files(".hdf5"))
        if not self.files and next(raw.files(".zip"), None):
            raise InputError(f"{raw.folder} holds zips but no .hdf5; unpack exams_part*.zip there first")

    @property
    def version(self) -> str:
        """Return 'unknown': the files carry no version."""
        return "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a recording for each row of the table, then those that only the HDF5 files have."""
        places: dict[int, str] = {}
        for file in self.files:
            for at, exam in enumerate(read_column(self.raw, file, "exam_id")):
                place = f"{file}#{at}"
                if exam == 0:  # the published files end in a row that is no exam
                    yield Refused(f"{file.rpartition('/')[2].partition('.')[0]}_{at}", place, "no_signal", "exam_id 0: a filler row")
                elif exam in places:
                    yield Refused(f"{exam}_{at}", place, "duplicate_key", f"exam {exam} is also {places[exam]}")
                else:
                    places[exam] = place
        listed: set[int] = set()
        for number, row in enumerate(read_rows(self.raw, EXAMS, ("exam_id", "patient_id", *LABELS)), 2):
            key = row["exam_id"].strip().removesuffix(".0")
            if not key.isdigit() or len(key) > 18:
                yield Refused(f"row{number}", EXAMS, "bad_row", f"{EXAMS}, record {number}: exam_id {key[:40]!r}")
                continue
            listed.add(int(key))
            if int(key) not in places:
                yield Refused(key, row.get("trace_file", "").strip() or EXAMS, "missing_file", f"no tracing of exam {key}")
            else:
                yield make_source(key, places[int(key)], row["patient_id"].strip().removesuffix(".0"), row)
        for exam, place in places.items():
            if exam not in listed:
                yield make_source(str(exam), place, "", {})


class CODETest(Dataset):
    """CODE-test: 827 tracings annotated by several cardiologists."""

    name = "code-test"
    title = "CODE-test: an annotated 12-lead ECG dataset"
    licence = "CC BY 4.0"
    access = "open: https://doi.org/10.5281/zenodo.3765780"
    citation = "Ribeiro et al. Automatic diagnosis of the 12-lead ECG using a deep neural network (2020). doi:10.1038/s41467-020-15432-4"
    size = "827 recordings, 200 MB"
    mains_hz = 60.0
    split_rule = "all test, as published"
    decoder = "cmelt.signal.hdf5:decode_tracing"
    layout = MappingProxyType({"fs_hz": 400.0, "order": "decided"})

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        self.truth, self.people, self.tracings = (
            next(raw.files(name), "") for name in ("gold_standard.csv", "attributes.csv", "ecg_tracings.hdf5")
        )
        if not self.truth:
            raise InputError(f"{raw.folder} has no annotations/gold_standard.csv; give the folder that the CODE-test download unpacks to")

    @property
    def version(self) -> str:
        """Return 'unknown': the files carry no version."""
        return "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a recording for each row of the annotations, and for each tracing beyond them."""
        rows = list(read_rows(self.raw, self.truth, LABELS))
        people = list(read_rows(self.raw, self.people, ("age", "sex"))) if self.people else []
        tracings = count_tracings(self.raw, self.tracings) if self.tracings else 0
        for number in range(max(len(rows), tracings)):
            key = f"ecg_tracings_{number:04d}"
            if number >= tracings:
                yield Refused(key, self.tracings or "data/ecg_tracings.hdf5", "missing_file", f"no tracing {number}")
                continue
            about = (rows[number] if number < len(rows) else {}) | (people[number] if number < len(people) else {})
            yield make_source(key, f"{self.tracings}#{number}", "", about, split="test")


def make_source(key: str, path: str, patient: str, row: Mapping[str, str], split: str = "") -> Source:
    """Return the Source of one exam by its row."""
    codes = tuple(label for label in LABELS if row.get(label, "").strip().lower() in TRUE)
    vocabulary, texts = load_vocabulary("code"), class_texts("code")
    names = [texts[name]["name"] for code in codes for name in vocabulary.classes_of([code])]
    if row.get("normal_ecg", "").strip().lower() in TRUE:
        names.append("normal ecg")
    male = row.get("is_male", "").strip().lower()
    fold = 0 if split else seeded_fold(patient or key)
    return Source(
        key=key,
        path=path,
        patient_id=patient,
        fold=fold,
        split=split or split_of(fold),
        age=parse_age(row.get("age", "")),
        sex=("male" if male in TRUE else "female") if male else parse_sex(row.get("sex", "")),
        report_raw=". ".join(names),
        codes=codes,
        flags=("report_from_labels",) if names else (),
    )


def read_column(raw: Raw, file: str, name: str) -> list[int]:
    """Return a column of whole numbers of an HDF5 file; raises InputError where it has none."""
    with open_hdf5(raw, file) as opened:
        if name not in opened:
            raise InputError(f"{raw.folder}/{file} has no {name}; download it again")
        return [int(value) for value in opened[name][:].ravel()]


def count_tracings(raw: Raw, file: str) -> int:
    """Return how many tracings an HDF5 file has."""
    with open_hdf5(raw, file) as opened:
        if "tracings" not in opened:
            raise InputError(f"{raw.folder}/{file} has no tracings; download it again")
        return len(opened["tracings"])


def open_hdf5(raw: Raw, file: str) -> Any:
    """Return an HDF5 file opened for reading; raises MissingExtra without h5py, InputError for a damaged file."""
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", "hdf5") from None
    try:
        return h5py.File(raw.random_access(file), "r")
    except OSError as error:
        raise InputError(f"{raw.folder}/{file} cannot be read ({str(error).splitlines()[0][:100]}); download it again") from None
