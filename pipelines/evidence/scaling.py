"""Scaling: how probe and zero-shot on real records grow with simulated records, steps and model size; and where that leads.

    python -m pipelines.evidence.scaling WORK --sim SHARDS --real SHARDS [--set train.steps=300] [--seeds 0] [--count N] [--keep]

Every model learns from simulated records alone; one of the three changes, the others stay at the base point, which all axes share. Through
1 − macro AUROC goes a power law a · x^−b, once for each resample of test patients: what it says beyond the points is told with the interval
that comes of them, which does not know whether the law holds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.config import load_recipe
from cmelt.metrics import Floats, interval
from cmelt.shards.read import ShardFolder
from cmelt.tasks.results import pair, plain
from pipelines.evidence import score
from pipelines.evidence.plan import Plan, parser, plan_of
from pipelines.evidence.stages import Work, found, run_stages

BASE = "base"
SHARES = (1 / 64, 1 / 16, 1 / 4)
"""Shares of the base point's records, and of its steps."""
SIZES = {"size-half": 64, "size-double": 256}
"""Widths of the other sizes; the base has that of the recipe, and heads of the same width."""
MEASURES = {"zero-shot": 0.0, "probe, 10 % of the labels": 0.1, "probe, all labels": 1.0}
REACH = (4, 16, 64)
"""So many times the largest point lie the places that the law is asked about."""


def points(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return the points by name: the changes of the recipe that make each."""
    folder = ShardFolder(plan.sim)
    keys = sorted(str(folder.column("key")[row]) for row in folder.rows("train"))
    steps = load_recipe("pretrain", plan.recipe, plan.changes).train.steps
    out: dict[str, tuple[str, ...]] = {BASE: ()}
    for share in SHARES:
        count = max(1, round(share * len(keys)))
        out[f"records-{count}"] = (f"data.where=\"key <= '{keys[count - 1]}'\"",)
    for share in SHARES[1:]:
        out[f"steps-{max(1, round(share * steps))}"] = (f"train.steps={max(1, round(share * steps))}",)
    return out | {name: sized(width) for name, width in SIZES.items()}


def sized(width: int) -> tuple[str, ...]:
    """Return the changes that make a model of `width`: every width follows, in the shape of tiny."""
    whole = ("ecg_width", "width", "text_config.d_model")
    heads = ("ecg_heads", "fusion_heads", "text_config.num_heads")
    changes = [f"model.{key}={width}" for key in whole] + [f"model.{key}={width // 32}" for key in heads]
    return (*changes, f"model.ecg_ffn={4 * width}", f"model.text_config.d_ff={2 * width}", f"model.decoder_width={width * 3 // 4}")


def train_and_score(plan: Plan, name: str, changes: Sequence[str], seed: int) -> dict[str, Any]:
    """Train point `name` with `seed` on simulated records, and keep its scores on real ones; return where it lies on each axis."""
    run = f"{name}-{seed}"
    model = plan.train(run, [plan.sim], seed, changes)
    ground = score.open_ground("real", plan.real, (0.1, 1.0), plan.fold)
    score.keep(plan.work / "scores", run, ground, score.model_scores(ground, [model]))
    plan.forget(run)
    recipe = plan.recipe_of(seed, changes)
    folder = ShardFolder(plan.sim)
    records = len(folder.rows("train", recipe.data.where))
    parameters = sum(p.numel() for p in model.parameters())
    return {"records": records, "steps": recipe.train.steps, "parameters": parameters}


def law(x: NDArray[np.float64], samples: Floats) -> tuple[Floats, Floats]:
    """Return a and b, each (R,), of the power law a · x^−b through 1 − AUROC, `samples` (P, R), at the P points `x`."""
    slope, offset = np.polyfit(np.log(x), np.log(np.maximum(1 - samples, 1e-6)), 1)
    return np.exp(offset), -slope


def table(plan: Plan) -> dict[str, Any]:
    """Return, for each axis, its points with their intervals, and the law through each measure with what it says further on."""
    names = points(plan)
    told = {name: found(plan.work, f"{name}-{plan.seeds[0]}") for name in names}
    of = {name: score.read(plan.work / "scores", [f"{name}-{seed}" for seed in plan.seeds], "real") for name in names}
    out: dict[str, Any] = {}
    for axis, prefix in (("records", "records-"), ("steps", "steps-"), ("parameters", "size-")):
        along = sorted((told[name][axis], name) for name in names if name == BASE or name.startswith(prefix))
        x = np.array([place for place, _ in along], float)
        rows: list[dict[str, Any]] = [{"x": place, "name": name} for place, name in along]
        laws: dict[str, Any] = {}
        for measure, share in MEASURES.items():
            values = [score.evaluated(of[name][share]) for _, name in along]
            for row, value in zip(rows, values, strict=True):
                row[measure] = {"macro_auc": plain(value.macro), "ci95": pair(interval(value.macro_samples))}
            a, b = law(x, np.array([[value.macro] for value in values]))
            many_a, many_b = law(x, np.array([value.macro_samples for value in values]))
            reach = [{"x": int(x.max()) * times, **reached(a, b, many_a, many_b, x.max() * times)} for times in (1, *REACH)]
            laws[measure] = {"a": float(a[0]), "b": float(b[0]), "b_ci95": pair(interval(many_b)), "reach": reach}
        out[axis] = {"points": rows, "laws": laws}
    return {"axes": out, "base": told[BASE]}


def reached(a: Floats, b: Floats, many_a: Floats, many_b: Floats, x: float) -> dict[str, Any]:
    """Return the macro AUROC that the law says at `x`, with its interval."""
    return {"macro_auc": plain(float(1 - a[0] * x ** -b[0])), "ci95": pair(interval(1 - many_a * x**-many_b))}


def stages_of(plan: Plan) -> dict[str, Work]:
    """Return the stages by name, in their order."""
    return {
        f"{name}-{seed}": partial(train_and_score, plan, name, changes, seed)
        for seed in plan.seeds
        for name, changes in points(plan).items()
    }


def main() -> None:
    """Do what is left to do; with --keep, and once all is done, write the curve."""
    options = parser(__doc__, seeds="0")
    options.add_argument("--keep", action="store_true", help="write docs/results/scaling.json and its picture when all is done")
    given = options.parse_args()
    plan = plan_of(given)
    left = run_stages(plan.work, plan.settings(fold=plan.fold), stages_of(plan), plan.only, plan.most)
    if given.keep and not left and not plan.only:
        from cmelt.plots import save
        from pipelines.evidence.draw import scaling_curves
        from tests.benchmarks.results import FOLDER, write_result

        figures = table(plan)
        data = f"{figures['base']['records']} simulated training recordings at the base point; scored: real, {plan.fold} fold"
        write_result("scaling", figures, protocol="strict", data=data)
        save(scaling_curves(figures), FOLDER.parent / "pictures" / "scaling.svg")


if __name__ == "__main__":
    main()
