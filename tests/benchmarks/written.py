"""Keep what `cmelt generate score` found: of runs, their figures as docs/results/NAME.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.results import options, write_result


def figures_of(run: Path, fold: str) -> dict[str, Any]:
    """Return what a run's result of `fold` says, and how the run was trained."""
    result = json.loads((run / "results" / ("generate.json" if fold == "test" else f"generate-{fold}.json")).read_text(encoding="utf-8"))
    facts = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    chosen = json.loads((run / "writer" / "chosen.json").read_text(encoding="utf-8"))
    told = {name: value for name, value in result.items() if name not in ("version", "task", "run", "shards")}
    return told | {
        "parameters": facts["parameters"],
        "steps": facts["recipe"]["train"]["steps"],
        "batch": facts["recipe"]["train"]["batch"],
        "chosen": chosen,
    }


def main() -> None:
    """Write the figures of each NAME=RUN or NAME=RUN:FOLD that is given."""
    parser = options(__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN[:FOLD]")
    for fact in ("data", "command", "commit"):
        parser.add_argument(f"--{fact}", default="")
    given = parser.parse_args()
    figures = {}
    for one in given.runs:
        name, _, place = one.partition("=")
        run, _, fold = place.partition(":")
        figures[name] = figures_of(Path(run), fold or "test")
    facts = {fact: value for fact in ("data", "command", "commit") if (value := getattr(given, fact))}
    print(write_result(given.name, figures, **facts))


if __name__ == "__main__":
    main()
