"""Pictures: the 12-lead ECG on paper, curves, reconstructions, distributions; as files or as SVG for a page.

Every function returns a matplotlib Figure and touches no pyplot state. Colours are roles (INK); `svg` turns each role into the
CSS variable of its name, so a picture in a page follows the page's light or dark theme; `save` writes a file in light colours.
"""

from __future__ import annotations

import io
import re
import textwrap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter1d

from cmelt.errors import InputError, OutputError
from cmelt.files import open_whole
from cmelt.record import LEADS

INK = {
    "ink": "#1d2129",
    "faint": "#6a727f",
    "line": "#dfe2e7",
    "accent": "#0b6e8a",
    "accent2": "#c4553b",
    "bar": "#2b8aa6",
    "shade": "#e9ecf1",
    "paper": "#fffaf8",
    "fine": "#fbdcd8",
    "bold": "#f0b1aa",
    "trace": "#12141b",
}
"""Role → light colour; each hex stands for one role only."""

NEUTRAL = {"paper": "#ffffff", "fine": "#eceef1", "bold": "#cfd4da"}
"""What the ``neutral`` theme of the ECG paper puts in the place of pink."""

MM = 1 / 25.4
"""Inches in a millimetre."""
DPI = 8 / MM
"""Eight pixels to the millimetre: every grid line falls on whole pixels."""

SPEED_MM_PER_S = 25.0
GAIN_MM_PER_MV = 10.0

_rc_lock = threading.Lock()


def plot_ecg(
    signal_mv: ArrayLike, fs_hz: float, file: Path | str | None = None,
    *, title: str = "", note: str = "", theme: str = "pink", weights: ArrayLike | None = None,
) -> Figure:  # fmt: skip
    """Draw a 12-lead ECG, (12, samples) mV at `fs_hz`, on ECG paper at 25 mm/s and 10 mm/mV; save it where `file` is given.

    10 s are drawn as 3 rows × 4 columns of 2.5 s with lead II as a rhythm strip below, shorter records in 2 columns (from 5 s)
    or 1; of longer ones the first 10 s. Time runs on from column to column. Each piece is drawn about its median, NaN as gaps.
    `note` (a report, say) goes below `title`, in at most three lines. With `weights`, (12,), each lead is shaded by its own, in one
    colour above 0 and another below, and the number stands below its trace.
    """
    signal = np.asarray(signal_mv, dtype=float)
    if signal.ndim != 2 or len(signal) != len(LEADS) or not signal.shape[1] or fs_hz <= 0:
        raise InputError(f"an ECG of shape {signal.shape} at {fs_hz} Hz cannot be drawn; give (12, samples) in mV, leads first")
    seconds = min(signal.shape[1] / fs_hz, 10.0)
    columns = 4 if seconds > 9.9 else 2 if seconds >= 5 else 1
    rows, samples = len(LEADS) // columns, round(seconds * fs_hz)
    cuts = np.linspace(0, samples, columns + 1).astype(int)
    strips = [
        Strip.cut(signal, fs_hz, row, column * rows + row, cuts[column], cuts[column + 1])
        for row in range(rows)
        for column in range(columns)
    ]
    if columns == 4:
        strips.append(Strip.cut(signal, fs_hz, rows, LEADS.index("II"), 0, samples))
    base, paper_mm = _base_lines(strips)

    left, right, foot = 15, 5, 7
    width_mm = left + 5 * int(np.ceil(seconds * SPEED_MM_PER_S / 5)) + right
    lines = textwrap.wrap(note, int(width_mm / 1.75), max_lines=3, placeholder=" …")
    head = 9 + 4 * len(lines)
    height_mm = head + paper_mm + foot
    colours = INK | (NEUTRAL if theme == "neutral" else {})
    figure, axes = _sheet(width_mm, paper_mm, head, foot, colours)
    pen = {"color": colours["trace"], "lw": 0.75, "solid_joinstyle": "round"}
    shares = None if weights is None else np.asarray(weights, float)
    edges = [paper_mm, *((np.array(base[:-1]) + base[1:]) / 2), 0]  # between the rows
    for strip in strips:
        x, y = left + strip.x_mm, base[strip.row]
        axes.plot(x, y + strip.y_mm, **pen)
        if strip.x_mm[0] > 0:
            axes.plot([x[0], x[0]], [y - 4, y + 4], color=colours["faint"], lw=0.6)
        peak = np.nan_to_num(strip.y_mm[x < x[0] + 9]).max()  # the name goes over the grid, above the start of the trace, behind it
        name = axes.text(x[0] + 1.2, y + np.clip(peak + 1.5, 6.5, 14), LEADS[strip.lead], fontsize=9, weight="bold", zorder=1)
        name.set(color=colours["trace"], path_effects=[withStroke(linewidth=2.5, foreground=colours["paper"])])
        if shares is not None and strip.row < rows:  # the rhythm strip shows a lead again
            share, role = shares[strip.lead], "accent" if shares[strip.lead] >= 0 else "accent2"
            alpha = 0.35 * abs(share) / max(np.abs(shares).max(), 1e-12)
            high, low = edges[strip.row] - 0.5, edges[strip.row + 1] + 0.5
            axes.fill_between(x[[0, -1]], high, low, color=colours[role], alpha=alpha, lw=0, zorder=0.5)
            number = axes.text(_room(x, y + strip.y_mm, low + 5), low + 1, f"{share:+.3f}", fontsize=8, color=colours["trace"], zorder=1)
            number.set_path_effects([withStroke(linewidth=2.5, foreground=colours["paper"])])
    for y in base:  # 1 mV for 0.2 s before every row
        axes.plot([4, 6, 6, 11, 11, 13], y + np.array([0, 0, 1, 1, 0, 0]) * GAIN_MM_PER_MV, **pen)
    scale = f"{SPEED_MM_PER_S:g} mm/s · {GAIN_MM_PER_MV:g} mm/mV · {fs_hz:g} Hz"
    texts = [(5.0, height_mm - 4.5, title, "left", 10, "ink"), (5, foot / 2, scale, "left", 8, "faint")]
    texts += [(5, height_mm - 9 - 4 * number, line, "left", 8, "faint") for number, line in enumerate(lines)]
    texts += [(width_mm - 5, foot / 2, "not for clinical use", "right", 8, "faint")]
    for x_mm, y_mm, words, side, size, role in texts:
        text = figure.text(x_mm / width_mm, y_mm / height_mm, words, ha=side, va="center", fontsize=size, parse_math=False)
        text.set_color(colours[role])
    if file is not None:
        save(figure, file)
    return figure


@dataclass(frozen=True)
class Strip:
    """A piece of one lead on paper: its row, its lead, and its trace in mm (time since the first sample; height over the base line)."""

    row: int
    lead: int
    x_mm: NDArray[Any]
    y_mm: NDArray[Any]

    @classmethod
    def cut(cls, signal: NDArray[Any], fs_hz: float, row: int, lead: int, first: int, last: int) -> Strip:
        """Cut samples `first` to `last` of a lead of `signal`, (12, samples) mV."""
        piece = signal[lead, first:last]
        seen = piece[np.isfinite(piece)]
        middle = np.median(seen) if len(seen) else 0.0
        return cls(row, lead, SPEED_MM_PER_S * np.arange(first, last) / fs_hz, GAIN_MM_PER_MV * (piece - middle))


def _room(x: NDArray[Any], y: NDArray[Any], above: float, width: float = 13) -> float:
    """Return where a number of `width` mm stands below a trace (mm): the first place over which it stays `above`, else its highest."""
    starts = np.arange(x[0] + 1.2, max(x[-1] - width, x[0] + 2), 2.5)
    lowest = [np.nan_to_num(y[(x >= start) & (x < start + width)], nan=above).min() for start in starts]
    return float(starts[np.minimum(lowest, above).argmax()])


def _base_lines(strips: Sequence[Strip]) -> tuple[list[float], int]:
    """Return each row's base line (mm above the paper's lower edge) and the paper's height, so that neighbouring rows have room.

    Rows lie 20 to 45 mm apart, in steps of 5 mm: what is larger overlaps, as on paper.
    """
    count = strips[-1].row + 1
    above, below = np.zeros((2, count, 101))  # the extremes in every 2.5 mm
    for strip in strips:
        place, height = (strip.x_mm / 2.5).astype(int), np.nan_to_num(strip.y_mm)
        np.maximum.at(above[strip.row], place, height)
        np.maximum.at(below[strip.row], place, -height)
    above, below = maximum_filter1d(above, 3, axis=1), maximum_filter1d(below, 3, axis=1)

    def snap(mm: Any, low: int, high: int) -> int:
        return int(np.clip(5 * np.ceil((mm + 2) / 5), low, high))

    gaps = [snap((below[row] + above[row + 1]).max(), 20, 45) for row in range(count - 1)]
    bottom, top = snap(below[-1].max(), 10, 45), snap(above[0].max(), 15, 45)
    base = [float(bottom + sum(gaps[row:])) for row in range(count)]
    return base, int(base[0]) + top


def _sheet(width_mm: int, paper_mm: int, head: int, foot: int, colours: Mapping[str, str]) -> tuple[Figure, Any]:
    """Return a figure of real size, blank strips of `head` and `foot` mm, and axes in mm over the ruled paper between them."""
    height_mm = paper_mm + head + foot
    figure = Figure(figsize=(width_mm * MM, height_mm * MM), dpi=DPI, facecolor=colours["paper"])
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, foot / height_mm, 1, paper_mm / height_mm), xlim=(0, width_mm), ylim=(0, paper_mm))
    axes.set_axis_off()
    for role, step, lw in (("fine", 1, 0.3), ("bold", 5, 0.5)):
        x, y = np.arange(0, width_mm + 1, step), np.arange(0, paper_mm + 1, step)
        rules = np.concatenate([_rules(x, 0, paper_mm), _rules(y, 0, width_mm)[:, ::-1]])
        axes.plot(rules[:, 0], rules[:, 1], color=colours[role], lw=lw, solid_capstyle="butt", snap=True, zorder=0)
    return figure, axes


def _rules(at: NDArray[Any], start: float, end: float) -> NDArray[Any]:
    """Return the points of one broken line, (3 len(at), 2): a stroke from `start` to `end` at every place of `at`."""
    return np.stack([np.repeat(at.astype(float), 3), np.tile([start, end, np.nan], len(at))], axis=1)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str = "", x_label: str = "step", level: float | None = None
) -> Figure:
    """Draw up to three named curves (x, y) in one small panel; a dashed line marks `level` (what chance gives, say)."""
    figure, axes = _panel(title, x_label)
    _draw_curves(axes, curves, level)
    return figure


def plot_steps(
    curves: Mapping[str, Sequence[float]], steps: Sequence[str], bounds: ArrayLike, *, title: str = "", x_label: str = ""
) -> Figure:
    """Draw up to three named curves over named steps, evenly spaced; `bounds` (steps, 2) are the interval of the first."""
    figure, axes = _panel(title, x_label)
    places = range(len(steps))
    axes.fill_between(places, *np.asarray(bounds, float).T, color=INK["accent"], alpha=0.15, lw=0)
    _draw_curves(axes, {name: (places, y) for name, y in curves.items()}, None, (1.6, 1.6, 1.6))
    axes.set_xticks(places, steps)
    return figure


def plot_curve_grid(
    panels: Mapping[str, tuple[Mapping[str, tuple[Sequence[float], Sequence[float]]], float | None]],
    *, title: str = "", x_label: str = "step", columns: int = 3,
) -> Figure:  # fmt: skip
    """Draw many panels as `plot_curves` draws one, side by side: title → (its named curves, its dashed level)."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.0 * columns, 2.6 * rows + 0.4), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, ha="left", x=0.01, color=INK["faint"], parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (curves, level)) in zip(grid, panels.items(), strict=False):
        _quiet(axes, name, x_label)
        _draw_curves(axes, curves, level)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _draw_curves(
    axes: Any,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    level: float | None,
    widths: Sequence[float] = (1.1, 1.8, 1.4),
) -> None:
    """Draw up to three named curves (x, y), and a dashed line at `level`."""
    for (name, (x, y)), role, lw in zip(curves.items(), ("accent", "accent2", "faint"), widths, strict=False):
        axes.plot(x, y, color=INK[role], lw=lw, label=name, marker="o" if len(x) < 12 else None, ms=3)
    if level is not None:
        axes.axhline(level, color=INK["faint"], lw=0.8, ls=(0, (4, 3)))
    if len(curves) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=INK["ink"], handlelength=1.4)


def plot_histogram(values: ArrayLike, *, title: str = "", x_label: str = "", bins: int = 40) -> Figure:
    """Draw the distribution of `values` in one small panel; the outer 0.5 % on either side are heaped into the end bins."""
    figure, axes = _panel(title, x_label)
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite):
        low, high = np.percentile(finite, [0.5, 99.5])
        axes.hist(np.clip(finite, low, high), bins=bins if high > low else 1, color=INK["bar"])
    axes.grid(False, axis="x")
    return figure


def _panel(title: str, x_label: str) -> tuple[Figure, Any]:
    """Return a figure for one card of a page (about 9 cm wide), and its axes, quiet."""
    figure = Figure(figsize=(4.0, 2.5), dpi=200, layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    _quiet(axes, title, x_label)
    return figure, axes


def _quiet(axes: Any, title: str, x_label: str) -> None:
    """Give axes a title, few ticks, a faint grid and no frame."""
    axes.set_title(title, fontsize=11, loc="left", weight="bold", color=INK["ink"], parse_math=False)
    axes.set_xlabel(x_label, fontsize=9.5, color=INK["faint"], parse_math=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK["line"])
    axes.tick_params(labelsize=9.5, length=0, colors=INK["faint"])
    axes.grid(color=INK["line"], lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))


def plot_retrieved(
    ecg_mv: ArrayLike, fs_hz: float, found: Sequence[Sequence[tuple[float, str, bool]]], *, leads: Sequence[str] = ("II", "V2")
) -> Figure:
    """Draw ECGs, (N, 12, samples) mV, each beside the reports `found` for it, best first: similarity, text, whether it is its own."""
    ecgs = np.asarray(ecg_mv, float)
    figure = Figure(figsize=(11, 1.7 * len(ecgs)), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(
        len(ecgs), 2, squeeze=False, gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.98, "wspace": 0.03}
    )
    for (trace, words), ecg, reports in zip(grid, ecgs, found, strict=True):
        for place, lead in enumerate(leads):
            y = ecg[LEADS.index(lead)]
            trace.plot(np.arange(len(y)) / fs_hz, np.clip(y - np.median(y), -1.5, 1.5) - 3 * place, color=INK["trace"], lw=0.8)
            trace.text(0, 0.7 - 3 * place, lead, fontsize=8, weight="bold", color=INK["faint"])
        for place, (score, text, is_own) in enumerate(reports):
            line = textwrap.shorten(text, 150, placeholder=" …")
            label = f"{'✓' if is_own else '·'} {score:.2f}  " + "\n         ".join(textwrap.wrap(line, 78))
            role = "accent" if is_own else "ink"
            words.text(
                0, 1 - place / len(reports), label, fontsize=8, va="top", color=INK[role], transform=words.transAxes, parse_math=False
            )
        for axes in (trace, words):
            axes.set_axis_off()
    return figure


def plot_reconstruction(
    original: ArrayLike, rebuilt: ArrayLike, removed: ArrayLike, fs_hz: float,
    *, leads: Sequence[str] = ("I", "II", "V2", "V5"), start_s: float = 0.0, duration_s: float = 3.0,
) -> Figure:  # fmt: skip
    """Draw what the model saw, what was removed and what it put there.

    `original` and `rebuilt` are (12, samples) in the units of the masked-ECG target (standard deviations of each lead),
    and so is `removed`, True for the samples that were removed.
    """
    truth, guess, hidden = np.asarray(original, float), np.asarray(rebuilt, float), np.asarray(removed, bool)
    window = slice(round(start_s * fs_hz), min(round((start_s + duration_s) * fs_hz), hidden.shape[1]))
    time = np.arange(hidden.shape[1])[window] / fs_hz
    figure = Figure(figsize=(9.5, 1.25 * len(leads) + 0.5), dpi=200, layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    for row, axes in enumerate(figure.subplots(len(leads), 1, sharex=True, squeeze=False)[:, 0]):
        lead = LEADS.index(leads[row])
        y, z, gone = truth[lead], guess[lead], hidden[lead]
        low, high = y[window].min(), y[window].max()
        room = 0.12 * max(high - low, 1.0)
        axes.set(ylim=(low - room, high + room), xlim=(time[0], time[-1]), facecolor="none")
        axes.fill_between(time, 0, 1, where=gone[window], color=INK["shade"], lw=0, transform=axes.get_xaxis_transform(), step="post")
        axes.plot(time, y[window], color=INK["faint"], lw=0.8, ls=(0, (2, 1.5)), label="original, hidden from the model")
        axes.plot(time, np.where(gone, np.nan, y)[window], color=INK["ink"], lw=1.3, label="seen by the model")
        axes.plot(time, np.where(gone, z, np.nan)[window], color=INK["accent2"], lw=1.3, label="rebuilt by the model")
        axes.set_ylabel(leads[row], fontsize=10, weight="bold", rotation=0, ha="right", va="center", color=INK["ink"])
        axes.set_yticks([])
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        axes.tick_params(labelsize=8.5, length=0, colors=INK["faint"])
    axes.set_xlabel("seconds", fontsize=8.5, color=INK["faint"])
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9, frameon=False, labelcolor=INK["ink"])
    return figure


def picture_kind(path: Path) -> str:
    """Return the kind of picture that a file is to be, by its name: png, svg or pdf; raises OutputError for any other."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise OutputError(f"{path}: pictures are written as .png, .svg or .pdf; name the file so")
    return kind


def save(figure: Figure, file: Path | str) -> Path:
    """Write a figure as `file` (.png, .svg or .pdf), whole or not at all; returns the path. The same picture gives the same bytes."""
    path = Path(file)
    kind = picture_kind(path)
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with _rc_lock, rc_context({"svg.hashsalt": "cmelt"}), open_whole(path) as out:
        figure.savefig(out, format=kind, metadata=undated)
    return path


def svg(figure: Figure, label: str) -> str:
    """Return a figure as an <svg> element for a page: `label` for screen readers, colours as CSS variables, fonts the page's own."""
    out = io.StringIO()
    with _rc_lock, rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmelt"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would style the whole page
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|[A-Za-z]+Collection)[\w.]*"', "", text)
    text = re.sub(r"<[^>]*>", lambda tag: _short(tag[0]), text)  # tags only: a number or a word that is shown stays as it is
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", text)
    for role, colour in INK.items():
        text = text.replace(colour, f"var(--{role})")
    words = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{words}" style="stroke-linejoin: round; stroke-linecap: butt" ', 1).rstrip()


def _short(tag: str) -> str:
    """Return an SVG tag with fewer digits and spaces in its coordinates."""
    tag = re.sub(r"(\.\d{2})\d+", r"\1", tag)
    return re.sub(r" ?\n([A-Zz])", r"\1", re.sub(r"([MLQC]) ", r"\1", tag))
