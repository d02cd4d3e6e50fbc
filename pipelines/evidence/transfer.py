"""Real transfer: pre-trained on simulated records and real training folds, probed on real ones, beside all that must be beaten.

    python -m pipelines.evidence.transfer WORK --sim SHARDS --real SHARDS [--recipe R] [--set A.B=C …] [--seeds 0,1,2] [--fold val|test]

Stages: a training for each seed, and one with shuffled reports (the control); then, on the same draws of labels, the scores of either
and of random initialisation, amplitudes, random convolutions and a supervised encoder. Choose on fold val: the test fold is not scored.
`--fold test`, the last command, scores it once and writes docs/results/real-transfer.json, which counts how often that was.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from cmelt.tasks.zeroshot import RULE
from pipelines.evidence import score
from pipelines.evidence.bench import BASELINES, SUPERVISED, training_counts
from pipelines.evidence.plan import Plan, parser, plan_of
from pipelines.evidence.stages import Work, found, run_stages

FRACTIONS = (0.1, 1.0)
KINDS: dict[str, tuple[str, ...]] = {"model": (), "shuffled": ("data.shuffle_reports=1",)}
"""What is trained → its changes of the recipe."""
QUERIES = "-by-entities"
"""Added to the name of a kind whose scores are those of its entity queries."""
RESULT = "real-transfer"


def train(plan: Plan, kind: str, seed: int) -> dict[str, Any]:
    """Train `kind` with `seed`."""
    name = f"{kind}-{seed}"
    plan.train(name, [plan.sim, plan.real], seed, KINDS[kind])
    plan.forget(name)
    return {}


def ground_of(plan: Plan) -> score.Ground:
    """Return the real recordings, of which the plan's fold is scored."""
    return score.open_ground(f"real-{plan.fold}", plan.real, FRACTIONS, plan.fold)


def score_kind(plan: Plan, kind: str) -> dict[str, Any]:
    """Keep the scores of all trainings of `kind`."""
    ground = ground_of(plan)
    models = [plan.load(f"{kind}-{seed}") for seed in plan.seeds]
    score.keep(plan.work / "scores", kind, ground, score.model_scores(ground, models))
    asked = score.query_scores(ground, models)
    if asked:
        score.keep(plan.work / "scores", f"{kind}{QUERIES}", ground, asked)
    return {"queries": bool(asked)}


def score_baseline(plan: Plan, name: str) -> dict[str, Any]:
    """Keep the scores of a baseline of the same shape, made with three seeds where it is random."""
    ground, shape = ground_of(plan), plan.load(f"model-{plan.seeds[0]}")
    seeds = plan.seeds if len(plan.seeds) >= 3 else (0, 1, 2)
    scored = [one for seed in seeds for one in score.supervised_scores(ground, shape, seed)] if name == SUPERVISED else None
    score.keep(plan.work / "scores", name, ground, scored or score.baseline_scores(ground, name, shape, seeds))
    return {}


def training_stages(plan: Plan) -> dict[str, Work]:
    """Return the stages that read no scored fold."""
    return {f"{kind}-{seed}": partial(train, plan, kind, seed) for kind in KINDS for seed in plan.seeds}


def stages_of(plan: Plan) -> dict[str, Work]:
    """Return all stages for the plan's fold, by name, in their order."""
    out = training_stages(plan)
    out |= {f"{kind}-on-{plan.fold}": partial(score_kind, plan, kind) for kind in KINDS}
    return out | {f"{name}-on-{plan.fold}": partial(score_baseline, plan, name) for name in (*BASELINES, SUPERVISED)}


def result(plan: Plan) -> dict[str, Any]:
    """Return what was found, in the form of the probe's results, zero-shot as fraction 0."""
    ground = f"real-{plan.fold}"
    others = {name: score.read(plan.work / "scores", [name], ground) for name in ("shuffled", *BASELINES, SUPERVISED)}
    own = score.read(plan.work / "scores", ["model"], ground)
    entries = score.entries(own, others)
    recipe = plan.recipe_of(plan.seeds[0])
    told: dict[str, Any] = {"task": "superclass", "protocol": "strict", "fold": plan.fold, "seeds": list(plan.seeds)}
    if found(plan.work, f"model-on-{plan.fold}")["queries"]:
        asked = {kind: score.read(plan.work / "scores", [f"{kind}{QUERIES}"], ground) for kind in KINDS}
        told["by_entities"] = score.entries(asked["model"], {"shuffled": asked["shuffled"]})[0]
    if len(plan.seeds) > 1:
        told["together"] = score.entries({share: score.together(one, len(plan.seeds)) for share, one in own.items()}, {})
    told |= {"steps": recipe.train.steps, "rule": {"texts": RULE[0], "similarity": RULE[1]}, "fractions": entries}
    return told


def main() -> None:
    """Do what is left to do, and tell it; after the test fold's last stage, write it."""
    given = parser(__doc__, seeds="0").parse_args()
    plan = plan_of(given)
    if run_stages(plan.work, plan.settings(), stages_of(plan), plan.only, plan.most) or plan.only:
        return
    told = result(plan)
    for entry in told["fractions"]:
        rows = {"model": entry} | entry["baselines"]
        line = ", ".join(f"{name} {of['macro_auc']:.3f}" for name, of in rows.items())
        print(f"fold {plan.fold}, {entry['fraction']:.0%} of the labels: {line}")
    if "by_entities" in told:
        one = told["by_entities"]
        by_chance = one["baselines"]["shuffled"]
        print(f"fold {plan.fold}, by entity queries: model {one['macro_auc']:.3f}, shuffled {by_chance['macro_auc']:.3f}")
    if plan.fold == "test":
        from tests.benchmarks.results import FOLDER, write_result

        before = FOLDER / f"{RESULT}.json"
        times = json.loads(before.read_text(encoding="utf-8"))["figures"]["times_test_fold_was_scored"] if before.is_file() else 0
        data = f"{training_counts(plan)} training recordings"
        write_result(RESULT, told | {"times_test_fold_was_scored": times + 1}, protocol="strict", data=data)


if __name__ == "__main__":
    main()
