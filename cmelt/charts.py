"""Small panels side by side, one a class: ROC curves, reliability, a map of points. SVG for a page, in the colours of plots.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cmelt.plots import INK

COLUMNS = 5
Floats = NDArray[np.float64]


Curves = Sequence[tuple[Floats, Floats]]


def plot_rocs(curves: Mapping[str, Curves], beside: Sequence[Curves] = ()) -> Figure:
    """Draw the ROC curves (share of negatives, share of positives above each threshold) of each class's fits, over those of a baseline in
    `beside`, classes in the same order; dashed: chance.
    """
    figure, grid = _grid(curves, "false positive rate", "true positive rate")
    for axes, of_fits, others in zip(grid, curves.values(), beside or [()] * len(curves), strict=True):
        axes.plot([0, 1], [0, 1], color=INK["faint"], lw=0.8, ls=(0, (4, 3)))
        for role, fits in (("accent2", others), ("accent", of_fits)):
            for x, y in fits:
                axes.plot(x, y, color=INK[role], lw=1.3 if len(fits) == 1 else 0.8)
    return figure


def plot_reliability(bins: Mapping[str, tuple[Floats, Floats, Floats]]) -> Figure:
    """Draw each class's bins: mean probability, share of positives, and recordings, which a dot's area stands for; dashed: calibrated."""
    figure, grid = _grid(bins, "probability", "share of positives")
    for axes, (probability, share, count) in zip(grid, bins.values(), strict=True):
        axes.plot([0, 1], [0, 1], color=INK["faint"], lw=0.8, ls=(0, (4, 3)))
        axes.plot(probability, share, color=INK["accent"], lw=1.0)
        axes.scatter(probability, share, s=6 + 60 * count / count.max(), color=INK["bar"], lw=0)
    return figure


def plot_map(points: ArrayLike, groups: Mapping[str, NDArray[np.bool_]]) -> Figure:
    """Draw `points` (N, 2) once for each class, those of the class in `groups`, (N,) each, over the others."""
    xy = np.asarray(points, float)
    figure, grid = _grid(groups, "", "")
    low, high = np.percentile(xy, [0.5, 99.5], axis=0)
    room = 0.05 * np.maximum(high - low, 1e-9)
    for axes, has in zip(grid, groups.values(), strict=True):
        for rows, role in ((~has, "shade"), (has, "accent")):
            axes.plot(*np.clip(xy[rows], low, high).T, ls="", marker="o", ms=2.4, mew=0, color=INK[role])
        axes.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]), xticks=[], yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _grid(titles: Mapping[str, Any], x_label: str, y_label: str) -> tuple[Figure, list[Any]]:
    """Return a figure of square panels over [0, 1], one a title, and their axes."""
    rows = -(-len(titles) // COLUMNS)
    figure = Figure(figsize=(2.1 * COLUMNS, 2.25 * rows + 0.3), dpi=150, layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, title in zip(grid, titles, strict=False):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), facecolor="none", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), box_aspect=1)
        axes.set_title(title, fontsize=10, loc="left", weight="bold", color=INK["ink"], parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK["line"])
        axes.tick_params(labelsize=8.5, length=0, colors=INK["faint"])
        axes.grid(color=INK["line"], lw=0.6)
        axes.set_axisbelow(True)
    for axes in grid[len(titles) :]:
        axes.set_axis_off()
    if x_label:
        figure.supxlabel(x_label, fontsize=9.5, color=INK["faint"])
        figure.supylabel(y_label, fontsize=9.5, color=INK["faint"])
    return figure, list(grid[: len(titles)])
