"""docs/results.md from docs/results/NAME.json: figures stand in JSON, words in the templates beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parents[1] / "results"


class Results(dict[str, dict[str, Any]]):
    """Result files by name; remembers which were asked for."""

    def __init__(self, folder: Path = FOLDER) -> None:
        super().__init__({file.stem: {"name": file.stem} | json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")})
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> dict[str, Any]:
        self.used.add(name)
        return super().__getitem__(name)


def results_page(results: Results | None = None) -> str:
    """Return the page of results as Markdown; a figure that a template asks for and no JSON holds is an error."""
    house = Environment(
        loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    house.filters |= {
        "auc": auc,
        "interval": interval,
        "difference": difference,
        "n": number,
        "percent": percent,
        "times": times,
        "told": told,
        "at": at,
        "unit": unit,
    }
    house.globals["results"] = results or Results()
    return house.get_template("page.md.j2").render()


def number(value: float, digits: int = 0) -> str:
    """Write a number with thousands set apart by commas, and a true minus sign."""
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float, digits: int = 0) -> str:
    """Write a share as a percentage."""
    return f"{number(100 * share, digits)} %"


def times(ratio: float, digits: int = 1) -> str:
    """Write a ratio as a multiple."""
    return f"{number(ratio, digits)} ×"


def at(figures: Any, path: str) -> Any:
    """Return the figure that a dotted path names."""
    for part in path.split("."):
        figures = figures[int(part) if isinstance(figures, list) else part]
    return figures


def unit(value: float, name: str, asked: bool = False) -> str:
    """Write a figure with its unit: %, ×, AUC (none is written), or the name of one; what was asked for as it was asked."""
    if name == "%":
        return percent(value)
    digits = {"×": 2, "AUC": 3, "s": 2 if value < 10 else 0}.get(name, 0)
    return (f"{value:,g}" if asked else number(value, digits)) + ("" if name == "AUC" else f" {name}")


def auc(value: float | Mapping[str, Any]) -> str:
    """Write an AUC, or that of an entry, to three places."""
    return f"{value['macro_auc'] if isinstance(value, Mapping) else value:.3f}"


def interval(entry: Mapping[str, Any]) -> str:
    """Write the AUC of an entry with its 95 % interval."""
    low, high = entry["ci95"]
    return f"{auc(entry)} [{low:.3f}–{high:.3f}]"


def difference(base: Mapping[str, Any]) -> str:
    """Write by how much a model is ahead of a baseline, with the paired 95 % interval."""
    low, high = base["difference_ci95"]
    return f"{base['difference']:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")


def told(result: Mapping[str, Any], whole: Mapping[str, Any] | None = None) -> str:
    """Write what a figure was measured by; `whole` is the file's content where `result` is a part of it."""
    whole = whole or result
    return f"`{result['command']}`, commit {result['commit']}, {whole['date']} ([figures](results/{whole['name']}.json))"
