"""What the predictions of a run (``results/NAME.parquet``) show beside AUROC: ROC curves, calibration, similarity of class and text.

S fits (seeds), N test recordings, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmelt.charts import plot_reliability, plot_rocs
from cmelt.errors import CheckpointError
from cmelt.metrics import Floats, auroc, calibration_error, macro
from cmelt.page import picture
from cmelt.tasks.protocol import PROTOCOLS, open_protocol

BINS = 15
"""Equal bins of [0, 1], as in `calibration_error`."""
CORNERS = 150
"""At most so many corners of a ROC curve are drawn."""
SHOWN = 25
"""At most so many classes are drawn, those with the most positives."""
BASELINES = "baselines"
"""The folder of ``results/`` in which probe keeps the baselines' predictions at the largest share of the labels."""
COLUMNS = ["fraction", "seed", "class", "score", "truth"]


@dataclass(frozen=True)
class Predictions:
    """The scores of one share of the labels, (S, N, C), what is true, (N, C), and the classes' names."""

    score: Floats
    truth: NDArray[np.int8]
    classes: list[str]

    @classmethod
    def read(cls, file: Path, fraction: float) -> Predictions | None:
        """Return the predictions at `fraction`; None where the file is not there or has none. Raises CheckpointError."""
        if not file.exists():
            return None
        try:
            table = pq.read_table(file, columns=COLUMNS)
        except (OSError, pa.ArrowInvalid) as error:
            raise CheckpointError(f"{file}: cannot be read as predictions ({error}); make it anew") from None
        table = table.filter(pc.equal(table["fraction"], fraction))
        classes = pc.unique(table["class"].cast(pa.string())).to_pylist()
        seeds = len(pc.unique(table["seed"]))
        if not seeds or len(table) % (seeds * len(classes)):
            return None
        shape = (seeds, -1, len(classes))
        return cls(table["score"].to_numpy().reshape(shape), table["truth"].to_numpy().reshape(shape)[0], classes)

    def rocs(self, c: int) -> list[tuple[Floats, Floats]]:
        """Return the ROC curve of class `c` by each fit."""
        return [roc(self.truth[:, c], score[:, c]) for score in self.score]

    def shown(self) -> list[int]:
        """Return which classes are drawn, (≤ SHOWN,): those with positives and negatives, the commonest of them, in their order."""
        positives = self.truth.sum(0, dtype=int)
        known = np.flatnonzero((positives > 0) & (positives < len(self.truth)))
        return sorted(known[np.argsort(-positives[known], kind="stable")][:SHOWN].tolist())


def drawn(file: Path, result: dict[str, Any], fraction: float, beside: str = "") -> dict[str, Any]:
    """Return the ROC curves, the reliability diagram and the expected calibration error of a result at `fraction`, or why there is none.

    The curves of baseline `beside` are drawn too, where its predictions were kept (``baselines/`` beside `file`).
    """
    found = Predictions.read(file, fraction)
    shown = found.shown() if found else []
    if found is None or not shown:
        return {"roc": None, "reliability": None, "why": f"{file.name} holds no predictions for this: no ROC curves and no calibration"}
    names = {c: found.classes[c] for c in shown}
    auc = np.mean([auroc(found.truth, score) for score in found.score], axis=0)
    curves = {f"{name} {auc[c]:.3f}": found.rocs(c) for c, name in names.items()}
    other = Predictions.read(file.parent / BASELINES / f"{file.stem}-{beside}.parquet", fraction) if beside else None
    others = [other.rocs(other.classes.index(name)) for name in names.values()] if other else []
    what = result["task"]
    out: dict[str, Any] = {
        "roc": picture(plot_rocs(curves, others), f"ROC curves by class, {what}"),
        "fits": len(found.score),
        "beside": beside if other else "",
        "beside_fits": len(other.score) if other else 0,
        "hidden": len(found.classes) - len(shown),
        "reliability": None,
        "why": "",
    }
    protocol = "strict" if result["protocol"] == "finetune" else result["protocol"]  # both score by logits
    if protocol not in PROTOCOLS:
        return out | {"why": "A similarity is not a probability: no calibration is told."}
    probability = open_protocol(protocol).probability(found.score)
    errors = np.mean([calibration_error(found.truth, one, BINS) for one in probability], axis=0)
    bins = {f"{name} {100 * errors[c]:.1f} %": reliability(found.truth[:, c], probability[:, :, c]) for c, name in names.items()}
    return out | {
        "reliability": picture(plot_reliability(bins), f"reliability diagram by class, {what}"),
        "ece": macro(errors[shown]),
    }


def similarity(file: Path, result: dict[str, Any]) -> dict[str, Any] | None:
    """Return a zero-shot result's heat map: class texts down, true classes across, the mean similarity over the recordings of a class.

    A cell is (mean, how warm from 0 to 1). None where there are no predictions.
    """
    found = Predictions.read(file, 0.0)
    shown = found.shown() if found else []
    if found is None or not shown:
        return None
    truth = found.truth[:, shown].astype(float)
    mean = found.score.mean(0)[:, shown].T @ truth / truth.sum(0)  # (texts, true classes)
    warm = (mean - mean.min()) / max(float(np.ptp(mean)), 1e-12)
    texts = result.get("texts", {})
    names = [found.classes[c] for c in shown]
    rows = [(name, "; ".join(texts.get(name, [])), list(zip(*cells, strict=True))) for name, *cells in zip(names, mean, warm, strict=True)]
    return {"classes": names, "rows": rows, "hidden": len(found.classes) - len(shown)}


def plane(vectors: NDArray[np.floating]) -> tuple[Floats, float]:
    """Return the projection (N, 2) of `vectors` (N, D) onto their two principal axes, and the share of the variance that it keeps."""
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]  # SVD leaves the sign open
    return centred @ axes.T, float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-12))


def roc(truth: NDArray[np.int8], score: Floats) -> tuple[Floats, Floats]:
    """Return the corners of a class's ROC curve from (0, 0) to (1, 1): the shares of negatives and of positives at or above a threshold."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # equal scores pass together
    hits = np.append(0, np.cumsum(truth[order], dtype=int)[last])
    alarms = np.append(0, last + 1) - hits
    corner = np.ones(len(hits), bool)
    corner[1:-1] = (np.diff(hits)[:-1] * np.diff(alarms)[1:]) != (np.diff(hits)[1:] * np.diff(alarms)[:-1])
    x, y = alarms[corner] / max(1, alarms[-1]), hits[corner] / max(1, hits[-1])
    few = np.unique(np.linspace(0, len(x) - 1, CORNERS).round().astype(int))
    return x[few], y[few]


def reliability(truth: NDArray[np.int8], probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean probability, share of positives and recordings of each bin that has any; `probability` (S, N), all fits together."""
    which = np.minimum((probability * BINS).astype(int), BINS - 1).ravel()
    count, sums, positives = (
        np.bincount(which, weights, BINS).astype(float) for weights in (None, probability.ravel(), np.tile(truth, len(probability)))
    )
    has = count > 0
    return sums[has] / count[has], positives[has] / count[has], count[has]
