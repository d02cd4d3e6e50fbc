"""A recording coloured by token: what the tokenizer keeps of it, over what there was."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cmelt.plots import INK
from cmelt.tokens.ecg import ECGTokenizer

COLOURS = ("#0b6e8a", "#c4553b", "#6a9a2d", "#8a4fa3", "#d1952b", "#2f5fb3", "#b23a6f", "#3a8f78")
"""A token's colour is told by its id, so that the same token looks the same everywhere."""

COLUMNS = 2


def plot_tokens(tokenizer: ECGTokenizer, ecg_mv: ArrayLike, *, title: str = "", seconds: float = 3.0) -> Figure:
    """Draw the first `seconds` of every lead of an ECG, (L, S) mV, as its tokens give it back, each token in a colour of its own.

    Behind it, in grey, the ECG; a dot where a token begins.
    """
    ecg = np.asarray(ecg_mv, np.float32)
    scale, size = tokenizer.scale, ecg.shape[1]
    (ids,) = tokenizer.encode(ecg)
    kept, ends = tokenizer.decode(ids), tokenizer.ends(ids)
    starts = np.concatenate([[0], ends[:-1]])
    shown = min(round(seconds * scale.fs_hz), size)
    rows = -(-len(scale.leads) // COLUMNS)
    figure = Figure(figsize=(12, 1.35 * rows + 0.7), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    said = f"{title}\n{len(ids)} tokens for {ecg.size} values; {shown / scale.fs_hz:g} s of each lead; grey: before; a dot: a token begins"
    figure.suptitle(said, fontsize=10, ha="left", x=0.01, color=INK["faint"], parse_math=False)
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.T.ravel()):
        if place >= len(scale.leads):
            axes.set_axis_off()
            continue
        mine = np.flatnonzero((starts >= place * size) & (starts < place * size + shown))
        _draw_lead(axes, ecg[place, :shown], kept[place, :shown], starts[mine] - place * size, ids[mine], scale.fs_hz)
        axes.set_title(scale.leads[place], fontsize=9, weight="bold", loc="left", color=INK["ink"], pad=2)
    grid[0, 0].set_ylim(min(scale.low_mv, ecg[:, :shown].min()) - 0.1, max(scale.high_mv, ecg[:, :shown].max()) + 0.1)
    for axes in grid[-1]:
        axes.set_xlabel("seconds", fontsize=8.5, color=INK["faint"])
    grid[0, 0].set_ylabel("mV", fontsize=8.5, color=INK["faint"])
    return figure


def _draw_lead(
    axes: Any, before: NDArray[np.float32], kept: NDArray[np.float32], starts: NDArray[np.int64], ids: NDArray[np.int32], fs_hz: float
) -> None:
    """Draw one lead, (S,) mV before and after, whose tokens `ids` (T,) begin at the samples `starts` (T,)."""
    time = np.arange(len(kept)) / fs_hz
    axes.plot(time, before, color=INK["line"], lw=2.2, zorder=0)
    points = np.stack([time, kept], axis=1)
    strokes = [points[start : end + 1] for start, end in zip(starts, [*starts[1:], len(kept)], strict=True)]  # up to where the next begins
    axes.add_collection(LineCollection(strokes, colors=[COLOURS[number % len(COLOURS)] for number in ids], lw=1.1))
    axes.plot(time[starts], kept[starts], ".", ms=2.2, color=INK["ink"], lw=0)
    axes.set_xlim(0, time[-1])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK["line"])
    axes.tick_params(labelsize=8, length=0, colors=INK["faint"])
