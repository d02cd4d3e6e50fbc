"""Data sets: one file a family, one line each in DATASETS."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from cmelt.config import did_you_mean
from cmelt.datasets.base import Dataset
from cmelt.errors import InputError
from cmelt.raw import Raw

DATASETS: dict[str, str] = {
    "ptbxl": "cmelt.datasets.ptbxl:PTBXL",
    "cinc2021": "cmelt.datasets.cinc2021:CinC2021",
    "cpsc2018": "cmelt.datasets.cpsc2018:CPSC2018",
    "csn": "cmelt.datasets.csn:CSN",
    "mimic-iv-ecg": "cmelt.datasets.mimic:MIMICIVECG",
    "code15": "cmelt.datasets.code:CODE15",
    "code-test": "cmelt.datasets.code:CODETest",
    "wfdb": "cmelt.datasets.wfdb:WFDB",
    "files": "cmelt.datasets.files:Files",
}


def dataset_class(name: str) -> type[Dataset]:
    """Return the class of data set `name`; raises InputError for an unknown one."""
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}{did_you_mean(name, DATASETS)}; known: {', '.join(DATASETS)}")
    module, _, kind = DATASETS[name].partition(":")
    found: type[Dataset] = getattr(importlib.import_module(module), kind)
    return found


def open_dataset(name: str, raw: Raw, **options: Any) -> Dataset:
    """Return data set `name` in folder `raw`; `options` are the family's own (PTB-XL: records100=True)."""
    kind = dataset_class(name)
    known = [option for option in inspect.signature(kind).parameters if option != "raw"]
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}{did_you_mean(option, known)}; it has: {', '.join(known) or 'none'}")
    return kind(raw, **options)


def list_datasets() -> list[dict[str, str]]:
    """Return what ``cmelt datasets`` shows, a row a family: name, title, size, licence, access, command."""
    rows = []
    for name in DATASETS:
        kind = dataset_class(name)
        about = {field: getattr(kind, field) for field in ("title", "size", "licence", "access")}
        rows.append({"name": name, **about, "command": f"cmelt ingest {name} RAW OUT"})
    return rows
