"""The README.md of a shard folder: what it is, how it was made, how to read it, on what terms."""

from __future__ import annotations

from typing import Any

from cmelt.errors import REASONS
from cmelt.record import FLAGS

TEXT = """\
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
The tars are plain WebDataset: `webdataset.WebDataset("{first}", shardshuffle=False).decode()` gives `ecg.npy`, `txt` and `json`
of each sample, and `tar xf` unpacks them. `index.parquet` has one row a sample; `ecg_offset` and `ecg_bytes` say where its
samples lie in its shard. `cmelt verify` re-hashes everything, `cmelt inspect` counts it.

| file | what |
| --- | --- |
| `manifest.json` | format, recipe, counts, hashes; written last: a folder without it is unfinished |
| `index.parquet` | key, place, source, patient, fold, split, age, sex, device, report, codes, flags, hash of the decoded signal |
| `rejects.parquet` | what was refused: key, source, reason, detail |
| `*.tar` | `KEY.ecg.npy`, `KEY.txt` (report), `KEY.json` (the rest) |

## Terms
The data: {licence}. {access}
"""


def readme(manifest: dict[str, Any], title: str, licence: str, access: str) -> str:
    """Return the text of README.md for a folder with `manifest`, made from a data set with these terms."""
    counts = manifest["counts"]
    return TEXT.format(
        dataset=manifest["dataset"],
        version=manifest["dataset_version"],
        kept=counts["kept"],
        rows=counts["rows"],
        refused=sum(counts["refused"].values()),
        cmelt=manifest["cmelt_version"],
        title=title,
        leads=len(manifest["leads"]),
        names=", ".join(manifest["leads"]),
        duration=manifest["recipe"]["signal"]["duration_s"],
        fs=manifest["fs_hz"],
        lsb=manifest["lsb_uv"],
        samples=manifest["samples"],
        done=conditioning(manifest["recipe"]["signal"], manifest["mains_hz"]),
        remarks=remarks(counts),
        first=manifest["shards"][0]["name"] if manifest["shards"] else "NAME.tar",
        licence=licence,
        access=access,
    )


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
