"""What the published data sets hold, counted on the published files: an ingest of a whole one is held against it.

Facts from protocols of each data set's own publication; for PTB-XL also how many recordings have a label of each set.
"""

from __future__ import annotations

from collections.abc import Mapping

from cmelt.origins import DATABASES

RECORDINGS: dict[tuple[str, str], int] = {
    ("ptbxl", "1.0.1"): 21_837,
    ("ptbxl", "1.0.3"): 21_799,
    ("cinc2021", "unknown"): sum(count for _, count in DATABASES.values()),
    ("cpsc2018", "unknown"): 6_877,
    ("csn", "1.0.0"): 45_152,
    ("mimic-iv-ecg", "1.0"): 800_035,
    ("code15", "unknown"): 345_779,
    ("code-test", "unknown"): 827,
}
"""Data set and version → recordings."""

LABELLED: dict[tuple[str, str], dict[str, int]] = {
    ("ptbxl", "1.0.1"): {"superclass": 21_430, "subclass": 21_430, "form": 8_988, "rhythm": 21_066, "diagnostic": 21_430, "all": 21_837},
    ("ptbxl", "1.0.3"): {"superclass": 21_388, "subclass": 21_388, "form": 8_978, "rhythm": 21_030},
}
"""Data set and version → task → recordings with a label of it."""


def differences(
    dataset: str, version: str, rows: int, kept: int, labelled: Mapping[str, int], databases: tuple[str, ...] = ()
) -> list[str]:
    """Return, in words, in what an ingest differs from the published data set; [] where there is nothing to compare with.

    `rows` and `kept` are its counts; `labelled` says how many kept recordings have a label of each task, and is compared only
    where every recording was kept. `databases` are those asked for, of CinC.
    """
    published = sum(DATABASES[name][1] for name in databases) if databases else RECORDINGS.get((dataset, version))
    if published is None:
        return []
    found = []
    if rows != published:
        found.append(f"{rows:,} recordings were found, {published:,} are published: this is not the whole data set as published")
    elif kept != published:
        found.append(f"{kept:,} of the {published:,} published recordings were kept")
    else:
        expected = LABELLED.get((dataset, version), {})
        found += [
            f"{labelled[task]:,} recordings have a label of {task}, {count:,} are published"
            for task, count in expected.items()
            if task in labelled and labelled[task] != count
        ]
    return found
