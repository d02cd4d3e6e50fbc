"""Chapman-Shaoxing-Ningbo (ecg-arrhythmia): ``WFDBRecords/NN/NNN/JS*.{hea,mat}``, one recording a patient, SNOMED codes in comments.

There are no reports: their text is made from the codes, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmelt.datasets.base import Dataset, key_of
from cmelt.datasets.headers import recordings, report_of
from cmelt.datasets.splits import BY_RECORDING, seeded_fold, split_of
from cmelt.errors import InputError
from cmelt.raw import Raw
from cmelt.record import Refused, Source

TABLE = "ConditionNames_SNOMED-CT.csv"


class CSN(Dataset):
    """The 12-lead ECG database of Chapman University, Shaoxing People's Hospital and Ningbo First Hospital."""

    name = "csn"
    title = "A large scale 12-lead electrocardiogram database for arrhythmia study (Chapman, Shaoxing, Ningbo)"
    licence = "CC BY 4.0"
    access = "open: https://physionet.org/content/ecg-arrhythmia/"
    citation = "Zheng et al. A large scale 12-lead electrocardiogram database for arrhythmia study (2022). doi:10.13026/wgex-er52"
    size = "45,152 recordings, 5 GB"
    mains_hz = 50.0
    split_rule = BY_RECORDING

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        if not raw.exists(TABLE) and not next(raw.files(".hea"), None):
            raise InputError(f"{raw.folder} has neither {TABLE} nor WFDB headers; give the folder that ecg-arrhythmia unpacks to")

    @property
    def version(self) -> str:
        """Return 1.0.0, the only one published, where the label dictionary is there."""
        return "1.0.0" if self.raw.exists(TABLE) else "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a Source for each recording; Refused where a header or signal file is not there."""
        for item in recordings(self.raw, ".mat"):
            if isinstance(item, Refused):
                yield item
                continue
            path, of = item
            key = key_of(path)
            fold, report = seeded_fold(key), report_of(of.codes)
            flags = ("report_from_labels",) if report else ()
            yield Source(key, path, "", fold, split_of(fold), of.age, of.sex, report_raw=report, codes=of.codes, flags=flags)
