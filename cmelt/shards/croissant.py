"""The croissant.json of a shard folder: what lies in it, column by column, as tools that know MLCommons Croissant 1.0 read it.

Everything is taken from the manifest and from what the data set says of itself, so equal folders have equal files. The arrays are
described, but are no record set: mlcroissant unpacks a tar by its name alone, and would read those of another folder with tars of
the same names. The index says where each lies.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cmelt.files import json_bytes
from cmelt.shards.format import INDEX, INDEX_SCHEMA
from cmelt.shards.readme import LICENCES, About

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
TERMS = """citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset jsonPath key md5
    parentField path recordSet references regex repeated replace samplingRate separator source subField transform""".split()  # noqa: SIM905
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS},
}
"""The prefixes and terms that the specification gives to every such file."""

COLUMNS: dict[str, str] = {
    "key": "the sample's name; its files in the tar are KEY.ecg.npy, KEY.txt and KEY.json",
    "shard": "file name of the tar that holds it",
    "ecg_offset": "where the array's samples, int16 (leads, samples) in C order, begin in the tar, in bytes",
    "ecg_bytes": "how many bytes the array's samples are",
    "source": "where the recording lay in the raw folder",
    "patient_id": "the patient, comparable within this data set only; empty if unknown",
    "fold": "the fold, 1 to 10; 0 where there are none",
    "split": "train, val or test",
    "age": "the patient's age in years; null if unknown",
    "sex": "male, female, or empty if unknown",
    "device": "the recorder, as published; empty if unknown",
    "fs_raw_hz": "sampling rate of the recording before anything was done, in Hz",
    "raw_duration_s": "length of the recording before anything was done, in s",
    "start_s": "where the kept window begins in the recording, in s",
    "report": "the report as a model reads it: cleaned, in English where it was translated",
    "report_raw": "the report as published",
    "codes": "the data set's own diagnostic codes",
    "likelihoods": "how likely each code is, in %, where that is published",
    "flags": "what was done to the recording or noticed about it",
    "signal_sha1": "SHA-1 of the decoded recording, whatever was done to it afterwards",
}
"""What each column of the index means, with its unit."""

KINDS: dict[pa.DataType, str] = {pa.string(): "sc:Text", pa.int32(): "sc:Integer", pa.int64(): "sc:Integer", pa.float64(): "sc:Float"}
"""How Croissant calls a column's type."""


def croissant(manifest: dict[str, Any], about: About) -> bytes:
    """Return the bytes of croissant.json for a folder with `manifest`, made from a data set with these terms."""
    tars = [file_object(shard["name"], "application/x-tar", shard["sha256"], f"{shard['bytes']} B") for shard in manifest["shards"]]
    arrays = {
        "@type": "cr:FileSet",
        "@id": "ecg-arrays",
        "description": f"One .npy file a sample: {array_of(manifest)}.",
        "containedIn": [{"@id": tar["@id"]} for tar in tars],
        "encodingFormat": "application/octet-stream",
        "includes": "*.ecg.npy",
    }
    whole: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": f"{manifest['dataset']}-cmelt-shards",
        "description": f"{manifest['counts']['kept']} ECGs with their reports, made by cmelt from {about.title}: {array_of(manifest)}.",
        "license": LICENCES[about.licence][1] if about.licence in LICENCES else about.licence,
        "url": about.url,
        "citeAs": about.citation,
        "version": version(manifest["dataset_version"]),
        "keywords": ["ECG", "electrocardiogram", "12-lead", "report", "WebDataset"],
        "distribution": [file_object(INDEX, "application/x-parquet", manifest["index_sha256"]), *tars, *([arrays] if tars else [])],
        "recordSet": [index_records()],
    }
    return json_bytes({name: value for name, value in whole.items() if value})


def version(published: str) -> str:
    """Return a data set's version in three numbers, as Croissant wants it; '' where it is not known."""
    numbers = published.split(".")
    return ".".join([*numbers, "0", "0"][:3]) if all(number.isdigit() for number in numbers) else ""


def array_of(manifest: dict[str, Any]) -> str:
    """Return in words what array a sample is."""
    leads, samples = len(manifest["leads"]), manifest["samples"]
    shape = f"int16 ({leads}, {samples}), leads {', '.join(manifest['leads'])}"
    return f"{shape}, {manifest['fs_hz']:g} Hz, in units of {manifest['lsb_uv']} µV"


def file_object(name: str, kind: str, sha256: str, size: str = "") -> dict[str, str]:
    """Return the entry of file `name` of the folder."""
    entry = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "contentSize": size}
    return {key: value for key, value in {**entry, "encodingFormat": kind, "sha256": sha256}.items() if value}


def index_records() -> dict[str, Any]:
    """Return the records of the index: a row a sample, a field a column."""
    fields = []
    for column in INDEX_SCHEMA:
        listed = pa.types.is_list(column.type)
        source = {"fileObject": {"@id": INDEX}, "extract": {"column": column.name}}
        kind = ["sc:Text", "cr:Split"] if column.name == "split" else KINDS[column.type.value_type if listed else column.type]
        entry = {"@type": "cr:Field", "@id": f"index/{column.name}", "name": column.name, "description": COLUMNS[column.name]}
        fields.append(entry | {"dataType": kind, "source": source} | ({"repeated": True} if listed else {}))
    records = {"@type": "cr:RecordSet", "@id": "index", "name": "index", "description": "What is known of each sample."}
    return {**records, "key": {"@id": "index/key"}, "field": fields}
