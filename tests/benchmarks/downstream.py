"""What was asked of a run downstream, for the docs: ``python -m tests.benchmarks.downstream RUN [TUNED …] --data WORDS --command C``.

Collects baselines, lead curves and patients found again under RUN/results, and the results of fine-tuned runs, into
docs/results/downstream.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cmelt.tasks.compare import compare
from tests.benchmarks.protocols import entry
from tests.benchmarks.results import write_result

KEPT = ("n_train", "n_val", "n_test", "macro_auc", "ci95", "macro_ap", "macro_f1", "macro_ece", "challenge_score")


def read(file: Path) -> dict[str, Any]:
    """Return a result file."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def tuned(run: Path) -> dict[str, Any]:
    """Return what a fine-tuned run says: task, how it was tuned, its numbers on the test fold."""
    (file,) = (run / "results").glob("finetune-*.json")
    result = read(file)
    (found,) = result["fractions"]
    how = {"task": result["task"], "layers": result["recipe"]["tune"]["layers"], "leads": len(result["leads"])}
    return how | {name: found[name] for name in KEPT if name in found} | found["chosen"][0]


def main() -> None:
    """Collect, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("tuned", type=Path, nargs="*")
    for name in ("data", "command", "commit"):
        parser.add_argument(f"--{name}", required=name != "commit")
    options = parser.parse_args()
    results, told = options.run / "results", read(options.run / "recipe.json")
    shares = read(results / "probe-superclass.json")["fractions"]
    figures: dict[str, Any] = {
        "steps": told["recipe"]["train"]["steps"],
        "baselines": {f"{one['fraction']:.0%}": {"n_train": one["n_train"], **entry(one)} for one in shares if "not_computed" not in one},
        "leads": {file.stem.removeprefix("leads-"): read(file)["points"] for file in sorted((results / "curves").glob("*.json"))},
        "identify": {name: read(results / "people/identify.json")[name] for name in ("pairs", "scores", "arcface")},
        "finetune": {run.name: tuned(run) for run in options.tuned},
    }
    if len(options.tuned) > 1:
        (found,) = compare(*(next((run / "results").glob("finetune-*.parquet")) for run in options.tuned[:2]))["shares"]
        figures["first_minus_second"] = {"difference": found["difference"], "difference_ci95": found["ci95"], "p": found["p"]}
    facts = {name: getattr(options, name) for name in ("data", "command", "commit") if getattr(options, name)}
    write_result("downstream", figures, **facts)


if __name__ == "__main__":
    main()
