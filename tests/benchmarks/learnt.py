"""What a run has learnt, for the docs: ``python -m tests.benchmarks.learnt NAME RUN --data WORDS [--command C] [--commit C]``.

Collects RUN/results/probe-*.json and zeroshot-*.json, and the last validation, into docs/results/NAME.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.protocols import entry
from tests.benchmarks.results import write_result


def learnt(run: Path) -> dict[str, Any]:
    """Return the figures of a run folder: who it is, its last validation, probes by task and protocol, zero-shot by task."""
    told = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    figures: dict[str, Any] = {
        "parameters": told["parameters"],
        "steps": told["recipe"]["train"]["steps"],
        "batch": told["recipe"]["train"]["batch"],
        "counts": told["counts"],
        "validation": [line for line in lines if line["split"] == "val"][-1],
        "probe": {},
        "zeroshot": {},
    }
    for file in sorted((run / "results").glob("probe-*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        figures["checkpoint_sha256"] = result["checkpoint_sha256"]
        shares = {f"{found['fraction']:.0%}": entry(found) for found in result["fractions"]}
        counts = {name: result["fractions"][-1][name] for name in ("n_train", "n_val", "n_test")}
        figures["probe"].setdefault(result["task"], {})[result["protocol"]] = counts | {"labels": shares}
    for file in sorted((run / "results").glob("zeroshot-*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        found = result["fractions"][0]
        classes = {name: one["auc"] for name, one in found["per_class"].items()}
        figures["zeroshot"][result["task"]] = entry(found) | {
            "per_class": classes,
            "rule": result["rule"],
            "retrieval": result.get("retrieval", {}),
        }
    return figures


def main() -> None:
    """Collect, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, help="in words: which recordings, how many")
    parser.add_argument("--command", help="what made the run; default: this command")
    parser.add_argument("--commit", help="the state of the code that made the run; default: the present one")
    options = parser.parse_args()
    facts = {name: value for name, value in (("command", options.command), ("commit", options.commit)) if value}
    write_result(options.name, learnt(options.run), data=options.data, **facts)


if __name__ == "__main__":
    main()
