"""Pictures of the evidence: what each part is worth, and how the model grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cmelt.plots import INK

GROUNDS = {"sim": "simulated", "real": "real (PTB-XL)"}
SHARES = {0.0: "zero-shot", 0.01: "1 % of the labels", 0.1: "10 % of the labels", 1.0: "all labels"}


def words(name: str) -> str:
    """Return a variant's or baseline's name as the picture says it."""
    return {"full": "C-MELT", "random_init": "random init", "random_conv": "random conv + ridge", "trivial": "amplitudes"}.get(
        name, name.replace("no-", "− ").replace("-", " ").replace("_", " ")
    )


def forest(table: Mapping[str, Any]) -> Figure:
    """Draw macro AUROC with its interval of every row of the ablation table, a panel for each ground and share of the labels."""
    panels = [(ground, entry) for ground in GROUNDS for entry in table[ground] if entry["fraction"] != 0.01]
    names = ["full", *max((entry["baselines"] for _, entry in panels), key=len)]
    figure = Figure(figsize=(2.3 * len(panels) + 1.6, 0.3 * len(names) + 1.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (ground, entry) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        rows = {"full": entry} | entry["baselines"]
        for place, name in enumerate(names):
            if name not in rows:
                continue
            low, high = rows[name]["ci95"]
            colour = INK["accent" if name == "full" else "faint"]
            axes.plot([low, high], [place, place], color=colour, lw=1.4, solid_capstyle="butt")
            axes.plot(rows[name]["macro_auc"], place, marker="o", ms=4.5, color=colour, mew=0)
        axes.axvline(entry["macro_auc"], color=INK["accent"], lw=0.7, ls=(0, (4, 3)))
        axes.set_yticks(range(len(names)), [words(name) for name in names])
        axes.set_title(f"{GROUNDS[ground]}\n{SHARES[entry['fraction']]}", fontsize=9, loc="left", color=INK["ink"])
        quiet(axes)
    axes.invert_yaxis()
    figure.supxlabel("macro AUROC; intervals: bootstrap over test patients", fontsize=8.5, color=INK["faint"])
    return figure


def scaling_curves(table: Mapping[str, Any]) -> Figure:
    """Draw 1 − macro AUROC against each thing that grows, the power law through it, and where the law leads."""
    axes_of = table["axes"]
    figure = Figure(figsize=(3.1 * len(axes_of) + 0.6, 3.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(axes_of), sharey=True, squeeze=False)[0]
    for panel, (axis, of) in zip(panels, axes_of.items(), strict=True):
        for colour, (measure, law) in zip((INK["accent"], INK["accent2"], INK["bar"]), of["laws"].items(), strict=False):
            x = np.array([point["x"] for point in of["points"]], float)
            y = np.array([point[measure]["macro_auc"] for point in of["points"]], float)
            bounds = np.array([point[measure]["ci95"] for point in of["points"]], float)
            panel.errorbar(x, 1 - y, np.abs(1 - bounds.T[::-1] - (1 - y)), fmt="o", ms=4, lw=1, color=colour, label=measure)
            reach = np.geomspace(x.min(), law["reach"][-1]["x"], 50)
            panel.plot(reach, law["a"] * reach ** -law["b"], color=colour, lw=1, ls=(0, (4, 3)))
        panel.set(xscale="log", yscale="log")
        panel.set_title(axis, fontsize=9, loc="left", color=INK["ink"])
        quiet(panel)
    panels[0].set_ylabel("1 − macro AUROC", fontsize=8.5, color=INK["faint"])
    panels[0].legend(fontsize=8, frameon=False)
    return figure


def quiet(axes: Any) -> None:
    """Leave of the frame of `axes` what is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK["line"])
    axes.tick_params(labelsize=8, length=0, colors=INK["faint"])
    axes.grid(axis="x", color=INK["line"], lw=0.6)
    axes.set_axisbelow(True)
