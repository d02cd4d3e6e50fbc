"""The README.md of a shard folder: what it is, how it was made, how to read it, on what terms."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cmelt.errors import REASONS
from cmelt.record import FLAGS
from cmelt.shards.format import INDEX_SCHEMA, PLACE

LICENCES: dict[str, tuple[str, str]] = {
    "CC BY 4.0": ("cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/"),
    "Open Database License 1.0 (ODbL)": ("odbl", "https://opendatacommons.org/licenses/odbl/1-0/"),
}
"""Licence as a data set names it → its name on the Hugging Face hub, and where its text stands."""

MOST: dict[float, str] = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
"""So many samples at most → the size of a data set, as the hub words it."""

KINDS = {pa.string(): "string", pa.int32(): "int32", pa.int64(): "int64", pa.float64(): "float64"}
"""How the `datasets` library names a column's type."""

TEXT = """\
---
{card}
---
# {dataset} {version}: {kept} ECGs with reports, as cmelt shards

Made by cmelt {cmelt} from {title}.
Of {rows} recordings {kept} were kept and {refused} refused; `rejects.parquet` says which and why.
Each has {leads} leads ({names}), {duration:g} s at {fs:g} Hz, as 16-bit integers of {lsb} µV.

What was done to every record: {done}.

{remarks}

## Read it
```python
from cmelt.shards.read import ShardFolder
folder = ShardFolder(".")
rows = folder.rows("train")
ecg = folder.ecg_mv(rows[:8])           # (8, {leads}, {samples}) float32, mV
reports = folder.column("report")
```
Without cmelt, with Hugging Face's `datasets`: `load_dataset("PATH OF THIS FOLDER", split="samples")`; its rows are those of all splits,
and `row["json"]["split"]` says which.
The tars are plain WebDataset: `webdataset.WebDataset("{first}", shardshuffle=False).decode()` gives `ecg.npy`, `txt` and `json`
of each sample, and `tar xf` unpacks them. `index.parquet` has one row a sample; `ecg_offset` and `ecg_bytes` say where its
samples lie in its shard. `cmelt verify` re-hashes everything, `cmelt inspect` counts it.

| file | what |
| --- | --- |
| `manifest.json` | format, recipe, counts, hashes; written last: a folder without it is unfinished |
| `index.parquet` | key, place, source, patient, fold, split, age, sex, device, report, codes, flags, hash of the decoded signal |
| `rejects.parquet` | what was refused: key, source, reason, detail |
| `croissant.json` | this folder for tools that read MLCommons Croissant |
| `*.tar` | `KEY.ecg.npy`, `KEY.txt` (report), `KEY.json` (the rest) |

## Terms
The data: {licence}. {access}
{citation}"""


@dataclass(frozen=True, slots=True)
class About:
    """What a data set says of itself: what it is, on what terms it is had and where, what to cite ('' = nothing)."""

    title: str
    licence: str
    access: str
    citation: str = ""

    @property
    def url(self) -> str:
        """Return the page where it is had; '' where there is none."""
        found = re.search(r"https?://\S+", self.access)
        return found.group() if found else ""


def readme(manifest: dict[str, Any], about: About) -> str:
    """Return the text of README.md for a folder with `manifest`, made from the data set `about`: a data card, its front matter first."""
    counts = manifest["counts"]
    return TEXT.format(
        card=card(manifest, about),
        dataset=manifest["dataset"],
        version=manifest["dataset_version"],
        kept=counts["kept"],
        rows=counts["rows"],
        refused=sum(counts["refused"].values()),
        cmelt=manifest["cmelt_version"],
        title=about.title,
        leads=len(manifest["leads"]),
        names=", ".join(manifest["leads"]),
        duration=manifest["recipe"]["signal"]["duration_s"],
        fs=manifest["fs_hz"],
        lsb=manifest["lsb_uv"],
        samples=manifest["samples"],
        done=conditioning(manifest["recipe"]["signal"], manifest["mains_hz"]),
        remarks=remarks(counts),
        first=manifest["shards"][0]["name"] if manifest["shards"] else "NAME.tar",
        licence=about.licence,
        access=about.access,
        citation=f"Cite: {about.citation}\n" if about.citation else "",
    )


def card(manifest: dict[str, Any], about: About) -> str:
    """Return the front matter by which the Hugging Face hub and `datasets` know the folder: YAML, a line a key.

    The types are given because `datasets` would guess them from a few samples, and fail where those have no age, say.
    """
    array = {"array2_d": {"shape": [len(manifest["leads"]), manifest["samples"]], "dtype": "int16"}}
    known = [feature(column) for column in INDEX_SCHEMA if column.name not in (*PLACE, "report")]
    known += [{"name": "fs_hz", "dtype": "float64"}, {"name": "lsb_uv", "dtype": "int64"}, {"name": "leads", "list": "string"}]
    features = [{"name": "ecg.npy", "dtype": array}, {"name": "txt", "dtype": "string"}, {"name": "json", "struct": known}]
    entries = {
        "pretty_name": about.title,
        "license": LICENCES[about.licence][0] if about.licence in LICENCES else "other",
        "tags": ["ecg", "electrocardiogram", "medical", "webdataset"],
        "size_categories": [next((name for most, name in MOST.items() if manifest["counts"]["windows"] < most), "n>10M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "samples", "path": "*.tar"}]}],
        "dataset_info": {"features": [*features, *({"name": name, "dtype": "string"} for name in ("__key__", "__url__"))]},
    }
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in entries.items())


def feature(column: pa.Field) -> dict[str, str]:
    """Return an index column as the `datasets` library describes it."""
    if pa.types.is_list(column.type):
        return {"name": column.name, "list": KINDS[column.type.value_type]}
    return {"name": column.name, "dtype": KINDS[column.type]}


def remarks(counts: dict[str, Any]) -> str:
    """Return flags and reasons of refusal, each with its count and meaning, as a Markdown table; a sentence where there are none."""
    rows = [f"| flag `{name}` | {count} | {FLAGS.get(name, '')} |" for name, count in counts["flags"].items()]
    rows += [f"| refused `{name}` | {count} | {REASONS.get(name, '')} |" for name, count in counts["refused"].items()]
    return (
        "\n".join(["| remark | recordings | meaning |", "| --- | --- | --- |", *rows]) if rows else "No recording was flagged or refused."
    )


def conditioning(signal: dict[str, Any], mains_hz: float) -> str:
    """Return a recipe's signal settings as a sentence."""
    high, low = signal["highpass_hz"], signal["lowpass_hz"]
    notch = mains_hz if signal["notch_hz"] == "mains" else signal["notch_hz"]
    order = f"Butterworth of order {signal['filter_order']}, zero-phase"
    band = f"band-pass {high:g}-{low:g} Hz" if high and low else f"high-pass {high:g} Hz" if high else f"low-pass {low:g} Hz"
    parts = ["leads mapped by name", f"{band} ({order})" if high or low else "no band-pass"]
    parts.append(f"notch at {notch:g} Hz (Q {signal['notch_q']:g})" if notch else "no notch")
    return ", ".join([*parts, f"resampled to {signal['fs_hz']:g} Hz where the raw rate differs, cropped or zero-padded to length"])
