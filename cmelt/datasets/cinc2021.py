"""PhysioNet/CinC Challenge 2021, and the 2020 headers still in the wild: eight databases of ``X.hea`` + ``X.mat``, labels in comments.

The comments give age, sex and SNOMED codes (``#Dx:`` or ``# Dx:``). There are no reports: their text is made from the codes,
and flagged. No patient ids are published, so splits are drawn by recording: two recordings of one patient may part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cmelt.config import did_you_mean
from cmelt.datasets.base import Dataset, key_of
from cmelt.datasets.headers import recordings, report_of
from cmelt.datasets.splits import BY_RECORDING, seeded_fold, split_of
from cmelt.errors import InputError
from cmelt.origins import DATABASES, database_of
from cmelt.raw import Raw
from cmelt.record import Refused, Source

MAINS_HZ = {"georgia": 60.0}
"""Where the mains are not 50 Hz."""


class CinC2021(Dataset):
    """The Challenge's databases, all or those named, wherever they lie below the folder."""

    name = "cinc2021"
    title = "PhysioNet/Computing in Cardiology Challenge 2021"
    licence = "CC BY 4.0"
    access = "open: https://physionet.org/content/challenge-2021/"
    citation = "Reyna et al. Will Two Do? Varying Dimensions in Electrocardiography (2021). doi:10.23919/CinC53138.2021.9662687"
    size = "88,253 recordings, 7 GB"
    mains_hz = 50.0
    split_rule = BY_RECORDING

    def __init__(self, raw: Raw, databases: Sequence[str] | str = ()) -> None:
        chosen = databases.split(",") if isinstance(databases, str) else databases
        self.databases = tuple(name.strip() for name in chosen if name.strip())
        for name in self.databases:
            if name not in DATABASES:
                raise InputError(f"no CinC database {name!r}{did_you_mean(name, DATABASES)}; known: {', '.join(DATABASES)}")
        super().__init__(raw, databases=list(self.databases))

    @property
    def version(self) -> str:
        """Return 'unknown': headers do not say whether they are of 2020 or 2021."""
        return "unknown"

    def sources(self) -> Iterator[Source | Refused]:
        """Yield a Source for each recording of the databases asked for, Refused where a header or signal file is not there."""
        for item in recordings(self.raw, ".mat"):
            path = item.path if isinstance(item, Refused) else item[0]
            database = database_of(path)
            if self.databases and database not in self.databases:
                continue
            if isinstance(item, Refused):
                yield item
                continue
            of, key = item[1], key_of(path)
            fold, report = seeded_fold(key), report_of(of.codes)
            yield Source(
                key=key,
                path=path,
                fold=fold,
                split=split_of(fold),
                age=of.age,
                sex=of.sex,
                report_raw=report,
                codes=of.codes,
                flags=("report_from_labels",) if report else (),
                mains_hz=MAINS_HZ.get(database, 0.0),
            )
