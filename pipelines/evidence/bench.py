"""Ablation bench: C-MELT whole, without each of its parts, and beside what learnt nothing; on simulated and on real records.

    python -m pipelines.evidence.bench WORK --sim SHARDS --real SHARDS [--set train.steps=150] [--seeds 0,1,2] [--count N] [--keep]

Every model is trained on the training folds of both folders, a stage a model; then its probe, its zero-shot scores and what each of its
heads can do are kept under WORK. `--keep` tells all in docs/results/evidence.json and docs/pictures/evidence.svg.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from cmelt.config import PretrainRecipe
from cmelt.models.cmelt import CMELT
from cmelt.tasks.results import pair, plain
from cmelt.training.corpus import Corpus
from cmelt.training.loader import Loader
from cmelt.training.negatives import Dealer, report_embeddings
from cmelt.training.validation import skills
from pipelines.evidence import score
from pipelines.evidence.plan import Plan, parser, plan_of
from pipelines.evidence.stages import Work, found, run_stages

OFF = {name: f"objectives.{name}=0" for name in ("ets", "mem", "mlm", "etm")}
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "no-ets": (OFF["ets"],),
    "random-negatives": ("negatives.mode=random",),
    "antipodal-negatives": ("negatives.mode=antipodal",),
    "no-mem": (OFF["mem"],),
    "no-mlm": (OFF["mlm"],),
    "no-etm": (OFF["etm"],),
    "infonce-only": ("objectives.ets_form=infonce", OFF["mem"], OFF["mlm"], OFF["etm"]),
    "reconstruction-only": (OFF["ets"], OFF["etm"]),
}
"""What is trained → its changes of the recipe. Masks stay where a loss goes: the input is the same, only the loss is not there."""

BASELINES = ("random_init", "trivial", "random_conv")
SUPERVISED = "supervised"
FRACTIONS = {"sim": (0.01, 0.1, 1.0), "real": (0.1, 1.0)}

DEAD = {"matching": "no-etm", "retrieval": "reconstruction-only", "tokens": "no-mlm", "reconstruction": "no-mem"}
"""What a head can do → the variant without the part that teaches it: there it must be at chance, or the part is dead."""
SKILL_BATCHES = 12


def grounds(plan: Plan) -> list[score.Ground]:
    """Return the simulated and the real recordings that are probed."""
    return [score.open_ground(name, place, FRACTIONS[name], plan.fold) for name, place in (("sim", plan.sim), ("real", plan.real))]


def train_and_score(plan: Plan, variant: str, seed: int) -> dict[str, Any]:
    """Train `variant` with `seed`; keep its scores, return what its heads can do on the validation folds."""
    name = f"{variant}-{seed}"
    model = plan.train(name, [plan.sim, plan.real], seed, VARIANTS[variant])
    for ground in grounds(plan):
        score.keep(plan.work / "scores", name, ground, score.model_scores(ground, [model]))
    told = skills(model, yardstick(plan, model), SKILL_BATCHES)
    plan.forget(name)
    return {"skills": told}


def yardstick(plan: Plan, model: CMELT) -> Loader:
    """Return validation batches that are the same for every variant: balanced wrong reports, masks as in the recipe."""
    recipe: PretrainRecipe = plan.recipe_of(0, ("negatives.mode=balanced",))
    corpus = Corpus([plan.sim, plan.real], "val", recipe.negatives.within, recipe.data)
    dealer = Dealer(report_embeddings(corpus.reports, recipe.negatives.embeddings), recipe.negatives.mode)
    return Loader(corpus, model, recipe, dealer, augment=False)


def score_baseline(plan: Plan, name: str) -> dict[str, Any]:
    """Keep the scores of a baseline, made with each seed where it is random."""
    for ground in grounds(plan):
        score.keep(plan.work / "scores", name, ground, score.baseline_scores(ground, name, plan.load(f"full-{plan.seeds[0]}"), plan.seeds))
    return {}


def score_supervised(plan: Plan, seed: int, where: str) -> dict[str, Any]:
    """Keep the scores of an encoder that learns from the labels of ground `where` alone."""
    ground = next(one for one in grounds(plan) if one.name == where)
    scored = score.supervised_scores(ground, plan.load(f"full-{plan.seeds[0]}"), seed)
    score.keep(plan.work / "scores", f"{SUPERVISED}-{seed}", ground, scored)
    return {}


def stages_of(plan: Plan) -> dict[str, Work]:
    """Return the stages by name, in their order: the whole table grows seed by seed."""
    out: dict[str, Work] = {
        f"{variant}-{seed}": partial(train_and_score, plan, variant, seed) for seed in plan.seeds for variant in VARIANTS
    }
    out |= {name: partial(score_baseline, plan, name) for name in BASELINES}
    return out | {
        f"{SUPERVISED}-{seed}-{where}": partial(score_supervised, plan, seed, where) for where in FRACTIONS for seed in plan.seeds
    }


def t_interval(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the 95 % interval of the mean of `values`, one a seed, by Student's t; (2,)."""
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return np.array([mean - half, mean + half])


def skill_table(plan: Plan) -> dict[str, Any]:
    """Return what each variant's heads can do, mean and interval over seeds, and whether each part is alive: without it, chance."""
    by_variant: dict[str, Any] = {}
    for variant in VARIANTS:
        of = [found(plan.work, f"{variant}-{seed}")["skills"] for seed in plan.seeds]
        by_variant[variant] = {
            skill: {
                "mean": plain(float(np.mean([one[skill]["value"] for one in of]))),
                "ci95": pair(t_interval([one[skill]["value"] for one in of])),
                "chance": plain(float(np.mean([one[skill]["chance"] for one in of]))),
                "above_chance_ci95": pair(t_interval([one[skill]["value"] - one[skill]["chance"] for one in of])),
            }
            for skill in DEAD
        }
    parts = {}
    for skill, variant in DEAD.items():
        low, high = by_variant[variant][skill]["above_chance_ci95"] or (np.nan, np.nan)
        at_chance = by_variant[variant][skill]["mean"] <= 0 if skill == "reconstruction" else low <= 0 <= high
        parts[skill] = {"without": variant, "at_chance_without": bool(at_chance)}
    return {"by_variant": by_variant, "parts": parts}


def figures(plan: Plan) -> dict[str, Any]:
    """Return the whole table: per ground the entries of `full`, every other variant and baseline compared with it in pairs; and skills."""
    out: dict[str, Any] = {}
    for ground in FRACTIONS:
        kept = {variant: [f"{variant}-{seed}" for seed in plan.seeds] for variant in VARIANTS}
        kept |= {name: [name] for name in BASELINES} | {SUPERVISED: [f"{SUPERVISED}-{seed}" for seed in plan.seeds]}
        of = {name: score.read(plan.work / "scores", names, ground) for name, names in kept.items()}
        out[ground] = score.entries(of["full"], {name: one for name, one in of.items() if name != "full"})
    return out | {"skills": skill_table(plan)}


def main() -> None:
    """Do what is left to do; with --keep, and once all is done, write the table and the figure."""
    options = parser(__doc__)
    options.add_argument("--keep", action="store_true", help="write docs/results/evidence.json and its picture when all is done")
    given = options.parse_args()
    plan = plan_of(given)
    stages = stages_of(plan)
    left = run_stages(plan.work, plan.settings(fold=plan.fold), stages, plan.only, plan.most)
    if given.keep and not left and not plan.only:
        write(plan, stages)


def write(plan: Plan, stages: Sequence[str] | dict[str, Work]) -> None:
    """Write docs/results/evidence.json and docs/pictures/evidence.svg."""
    from cmelt.plots import save
    from pipelines.evidence.draw import forest
    from tests.benchmarks.results import FOLDER, write_result

    table = figures(plan)
    table["minutes"] = round(sum(found(plan.work, name)["seconds"] for name in stages) / 60, 1)
    table["steps"] = plan.recipe_of(0).train.steps
    data = f"{training_counts(plan)} training recordings, {plan.fold} folds scored; seeds {', '.join(map(str, plan.seeds))}"
    write_result("evidence", table, protocol="strict", data=data)
    save(forest(table), FOLDER.parent / "pictures" / "evidence.svg")


def training_counts(plan: Plan) -> str:
    """Return in words how many recordings of either kind are trained on."""
    counts = (f"{len(Corpus([place], 'train'))} {kind}" for place, kind in ((plan.sim, "simulated"), (plan.real, "real")))
    return " and ".join(counts)


if __name__ == "__main__":
    main()
