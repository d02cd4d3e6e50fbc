"""Pages: the one door through which HTML leaves cmelt (the templates of ``templates/``, the pictures of plots.py).

A page is one file that asks nothing of any network: styles and pictures stand in it, there is no script, and its security
policy tells the browser to fetch nothing. Whatever comes from data is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cmelt import __version__
from cmelt.errors import REASONS
from cmelt.files import write_whole
from cmelt.labels import load_vocabulary
from cmelt.plots import INK, plot_ecg, plot_histogram, svg
from cmelt.record import FLAGS

SIMULATED = "-simulated"
"""How the name of a simulated data set ends, in the manifest of its shards."""


def write_page(file: Path | str, template: str, **values: Any) -> Path:
    """Fill `template` and write it as `file`, whole or not at all; returns the path. Raises OutputError where it cannot be written."""
    path = Path(file)
    text = _environment().get_template(template).render(values)
    write_whole(path, text.encode())
    return path


def picture(figure: Figure, label: str) -> Markup:
    """Return a figure as an inline picture for a template; `label` says what it shows."""
    return Markup(svg(figure, label))  # svg() has escaped what is text


def ecg_picture(signal_mv: NDArray[Any], fs_hz: float, key: str, age: float | None, sex: str) -> Markup:
    """Return an ECG, (12, samples) mV, on paper, headed as a print is but without a name: record key, age, sex."""
    known = [key, f"{age:.0f} years" if age is not None and math.isfinite(age) else "", sex]
    figure = plot_ecg(signal_mv, fs_hz, title=" · ".join(filter(None, known)))
    return picture(figure, f"12-lead ECG of record {key}")


def about_shards(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a shard folder's manifest says, for the macro of that name: rows of (label, count, explanation)."""
    counts = manifest["counts"]
    refused = sorted(counts["refused"].items(), key=lambda item: -item[1])
    return {
        "dataset": manifest["dataset"],
        "version": manifest["dataset_version"],
        "rows": counts["rows"],
        "kept": counts["kept"],
        "refused": sum(counts["refused"].values()),
        "seconds": manifest["samples"] / manifest["fs_hz"],
        "fs_hz": manifest["fs_hz"],
        "splits": ", ".join(f"{number(n)} {split}" for split, n in counts["splits"].items()),
        "flow": [("kept", counts["kept"], ""), *((f"refused: {words(r)}", n, REASONS.get(r, "")) for r, n in refused)],
        "folds": [(f"fold {fold}", n, "") for fold, n in counts["folds"].items()],
        "flags": [(words(flag), n, FLAGS.get(flag, "")) for flag, n in sorted(counts["flags"].items(), key=lambda item: -item[1])],
    }


def about_classes(codes: Sequence[Iterable[str]], tasks: Iterable[str]) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return (task, rows) for each of `tasks` that any of the recordings' `codes` speaks to, the commonest class first."""
    found = []
    for task in tasks:
        vocabulary = load_vocabulary(task)
        count = vocabulary.targets(codes).sum(axis=0, dtype=int).tolist()
        rows = class_rows(task, dict(zip(vocabulary.classes, count, strict=True)))
        if rows:
            found.append((task, rows))
    return found


def class_rows(task: str, counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return rows of (class, count, its plain name) for the classes of `task` that occur, the commonest first."""
    describe = load_vocabulary(task).describe
    return sorted(((name, n, describe(name)) for name, n in counts.items() if n), key=lambda row: -row[1])


@dataclass(frozen=True)
class Score:
    """A bar of an AUC chart: its label and what explains it; ``mark``: another model's AUC to set beside it."""

    label: str
    hint: str
    auc: float | None
    ci95: Sequence[float] | None = None
    is_baseline: bool = False
    mark: float | None = None


@dataclass(frozen=True)
class Example:
    """A recording to show: ``signal_mv`` (12, samples); ``why`` it was chosen."""

    key: str
    signal_mv: NDArray[Any]
    report: str = ""
    flags: Sequence[str] = ()
    age: float | None = None
    sex: str = ""
    patient_id: str = ""
    why: str = ""


def write_shard_page(
    file: Path | str,
    summary: Mapping[str, Any],
    *,
    report_words: ArrayLike = (),
    languages: Mapping[str, int] | None = None,
    amplitude_mv: ArrayLike = (),
    heart_rate_bpm: ArrayLike = (),
    examples: Sequence[Example] = (),
    with_ids: bool = False,
) -> Path:
    """Write the page about one shard folder, of which `summary` is what ``inspect`` found; returns its path.

    The arrays hold one value a recording and are drawn as distributions. Patient ids are shown only `with_ids`.
    """
    version = summary["dataset_version"]
    panels = {
        "words of a report": plot_histogram(report_words, title="Length of reports", x_label="words"),
        "amplitude": plot_histogram(amplitude_mv, title="Amplitude", x_label="peak of the median lead, mV"),
        "heart rate": plot_histogram(heart_rate_bpm, title="Heart rate", x_label="beats per minute"),
    }
    wanted = [np.size(values) > 0 for values in (report_words, amplitude_mv, heart_rate_bpm)]
    return write_page(
        file,
        "inspect.html",
        title=f"{summary['dataset']}{'' if version == 'unknown' else f' {version}'}: what the shards hold",
        simulated=summary["dataset"].endswith(SIMULATED),
        shard=about_shards(summary),
        classes=[(summary["task"], class_rows(summary["task"], summary["classes"]))] if any(summary["classes"].values()) else [],
        summary=summary,
        languages=[(name, n, "") for name, n in (languages or {}).items()],
        panels=[picture(figure, name) for (name, figure), has_values in zip(panels.items(), wanted, strict=True) if has_values],
        examples=[(one, ecg_picture(one.signal_mv, summary["fs_hz"], one.key, one.age, one.sex)) for one in examples],
        with_ids=with_ids,
    )


@cache
def _environment() -> Environment:
    """Return the templates, with what they share."""
    environment = Environment(
        loader=PackageLoader("cmelt"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(version=__version__, ink=INK, simulated=False)
    environment.filters.update(number=number, auc=auc, along=along, percent=percent, words=words)
    return environment


def words(name: str) -> str:
    """Return a name of a closed list as words: ``missing_file`` → ``missing file``."""
    return name.replace("_", " ")


def number(value: float) -> str:
    """Return a count as read by people: 21837 → ``21,837``."""
    return f"{value:,.0f}"


def auc(value: float | None) -> str:
    """Return an area under the curve with three places, a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """Return a share as a percentage: 0.01 → ``1 %``."""
    return f"{100 * value:.3g} %"


def along(value: float, low: float) -> str:
    """Return how far `value` lies along a scale from `low` to 1, in percent, for a style attribute."""
    return f"{100 * min(max((value - low) / (1 - low), 0.0), 1.0):.2f}"
