"""Write a run as the model that cmelt ships: half precision, no paths, a card with its figures.

    python -m pipelines.ship RUN FOLDER [--figures FOLDER_OF_JSON [--keep]]

The figures are what `cmelt probe --json` and `cmelt zeroshot --json` printed: probe-real.json, zeroshot-real.json, queries-real.json
(by entity queries), and the same on simulated recordings; `--keep` puts them into docs/results/sim-small.json. The same run gives
the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from cmelt.errors import CheckpointError
from cmelt.files import write_json
from cmelt.models import store
from cmelt.models.cmelt import CMELT
from cmelt.training.checkpoint import CHOSEN, RECIPE
from cmelt.training.resume import read_facts

MOST_BYTES = 10_000_000
"""All files of the shipped model together."""
GROUNDS = {"real": "real records (PTB-XL, never trained on)", "simulated": "simulated records, held out"}

CARD = """---
library_name: cmelt
pipeline_tag: feature-extraction
license: mit
tags: [ecg, electrocardiogram, medical, multimodal, simulated-data]
---
# cmelt-sim-small

A small C-MELT: an ECG encoder and a text encoder that learnt together from **simulated** 12-lead ECGs and their reports, and from
nothing else. No patient was ever recorded for it: it is free of anybody's data, and under the MIT licence like the code.

**Not for clinical use.** It is no medical device, and no clinical decision may rest on it.

```python
from cmelt import CMELT

model = CMELT.from_pretrained("cmelt-sim-small")  # comes with the package: no network, no download
ecg = model.encode_ecg(ecg_mv, fs_hz=500, leads=["I", "II", ...])  # (B, {width})
text = model.encode_text(["sinus rhythm. normal ecg."])  # (N, {width})
```

`cmelt predict`, `embed`, `search`, `zeroshot`, `probe` and `finetune` take it where there is no run of your own.

| | |
| --- | --- |
| parameters | {millions:.1f} M; {megabytes:.1f} MB in half precision, single precision once loaded |
| input | 12 leads, {fs_hz:g} Hz, {duration_s:g} s, mV; conditioned as `cmelt ingest` does by default |
| learnt from | {train:,} simulated recordings ({val:,} to validate), {steps:,} steps of {batch} pairs |
| how | `sh pipelines/sim-small.sh WORK`; every setting stands in `recipe.json` |
| embedding | {width} numbers |

## Figures

{figures}

## Limits

- It knows what the simulator knows: rhythms, conduction, infarcts, ST-T changes, hypertrophy and the others that `cmelt simulate` draws, as
  textbooks have them. What is rare or mixed in real life it has not seen, nor artefacts beyond the simulated noise.
- Its words are those of the simulated reports, English and some German. Other wordings may fall on deaf ears.
- Real records were used to choose its training and scoring (PTB-XL's folds 1 to 9), never to train it. Other machines and people
  may be served worse.
- Its similarities are no probabilities, and those that it gives for findings (entity queries) hold among simulated patients, who are
  iller than most.
"""


def ship(run: Path, out: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """Write the model of `run` as folder `out`, in the place of what was there; return what it is. Raises CheckpointError."""
    model, told = CMELT.from_pretrained(run), read_facts(run)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    store.write(model, part, half=True)
    kept = {name: told[name] for name in ("version", "recipe", "counts", "parameters")}
    if (run / CHOSEN).is_file():
        kept["chosen"] = json.loads((run / CHOSEN).read_text(encoding="utf-8"))
    write_json(part / RECIPE, kept)
    size = sum(file.stat().st_size for file in part.iterdir())
    if size > MOST_BYTES:
        raise CheckpointError(
            f"{run}: {size / 1e6:.1f} MB in half precision; at most {MOST_BYTES / 1e6:.0f} are shipped, take a smaller model"
        )
    train, config = told["recipe"]["train"], model.config
    facts: dict[str, Any] = {"width": config.width, "millions": told["parameters"] / 1e6, "megabytes": size / 1e6, "fs_hz": config.fs_hz}
    facts |= {"duration_s": config.samples / config.fs_hz, "steps": train["steps"], "batch": train["batch"]}
    facts |= {name: told["counts"][name] for name in ("train", "val")}
    (part / store.CARD).write_text(CARD.format(**facts, figures=figure_lines(figures)), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return facts


def read_figures(folder: Path) -> dict[str, Any]:
    """Return what the JSON files of `folder` say, by recordings: macro AUROC by share of the labels, zero-shot by class, retrieval."""
    out: dict[str, Any] = {}
    for name in GROUNDS:
        files = {kind: folder / f"{kind}-{name}.json" for kind in ("zeroshot", "queries", "probe")}
        results = {kind: json.loads(file.read_text(encoding="utf-8")) for kind, file in files.items() if file.is_file()}
        for kind, result in results.items():
            found = out.setdefault(name, {"labels": {}, "fold": result.get("fold", "test"), "sha256": result["checkpoint_sha256"]})
            if kind == "queries":
                entry = result["fractions"][0]
                found["by_entities"] = {key: entry[key] for key in ("n_test", "macro_auc", "ci95")}
                continue
            for entry in result["fractions"]:
                told = {key: entry[key] for key in ("n_train", "n_test", "macro_auc", "ci95", "not_computed") if key in entry}
                told |= {
                    base: {key: of[key] for key in ("macro_auc", "difference", "difference_ci95")}
                    for base, of in entry.get("baselines", {}).items()
                }
                found["labels"][f"{entry['fraction']:.0%}"] = told
            if kind == "zeroshot":
                entry = result["fractions"][0]
                found |= {"rule": result["rule"], "retrieval": result["retrieval"]}
                found["per_class"] = {label: one["auc"] for label, one in entry["per_class"].items()}
    return out


def figure_lines(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = []
    for name, found in figures.items():
        tested = next(one["n_test"] for one in found["labels"].values() if "n_test" in one)
        lines += [f"On {GROUNDS[name]}: PTB-XL's five superclasses, {found['fold']} fold, {tested} recordings; macro AUROC with its"]
        lines += ["95 % interval over patients.", ""]
        lines += ["| labels | training records | this model | random initialisation |", "| --- | --- | --- | --- |"]
        for share, one in found["labels"].items():
            base = one.get("random_init")
            value = one["not_computed"] if "not_computed" in one else f"{one['macro_auc']:.3f} [{one['ci95'][0]:.3f}, {one['ci95'][1]:.3f}]"
            label = "none (zero-shot)" if share == "0%" else share
            beside = f"{base['macro_auc']:.3f}" if base else ""
            lines.append(f"| {label} | {one['n_train']} | {value} | {beside} |")
        if "by_entities" in found:
            one = found["by_entities"]
            lines.append(
                f"| none (zero-shot by entity queries) | 0 | {one['macro_auc']:.3f} [{one['ci95'][0]:.3f}, {one['ci95'][1]:.3f}] | |"
            )
        if "per_class" in found:
            classes = ", ".join(f"{label} {auc:.3f}" for label, auc in found["per_class"].items() if auc is not None)
            recall = found["retrieval"].get("ecg_to_text@10")
            lines += [
                "",
                f"Zero-shot by class: {classes}." + (f" Reports found by ECG, recall@10: {recall:.3f}." if recall is not None else ""),
            ]
        lines.append("")
    return "\n".join(lines).strip() or "Not measured yet."


def main() -> None:
    """Ship, and with --keep keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--keep", action="store_true", help="write docs/results/sim-small.json")
    given = parser.parse_args()
    figures = read_figures(given.figures) if given.figures else {}
    facts = ship(given.run, given.out, figures)
    if given.keep:
        from tests.benchmarks.results import write_result

        took = {file.name: int(file.read_text()) for file in sorted((given.run.parent / "done").glob("*"))}
        told = facts | figures | {"seconds": took}
        command = "sh pipelines/sim-small.sh WORK PTBXL_SHARDS test"
        write_result("sim-small", told, command=command, protocol="strict", data=f"{facts['train']} simulated recordings")


if __name__ == "__main__":
    main()
