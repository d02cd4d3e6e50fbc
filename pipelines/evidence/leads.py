"""Fewer leads: an encoder that reads absent leads as zeros beside one that does without them, on simulated and on real records.

    python -m pipelines.evidence.leads WORK --sim SHARDS --real SHARDS [--set train.steps=150] [--seeds 0,1] [--fold val|test] [--keep]

Every kind is trained on the training folds of both folders with the same steps and data, a stage a model; then, a stage a set of leads,
its zero-shot scores and its probe on recordings of which only these leads are seen. `--keep` keeps all in docs/results/leads.json.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cmelt.record import LEAD_SETS
from cmelt.tasks.split import see_only
from cmelt.tasks.zeroshot import RULE
from pipelines.evidence import score
from pipelines.evidence.bench import training_counts
from pipelines.evidence.plan import Plan, parser, plan_of
from pipelines.evidence.stages import Work, found, run_stages
from pipelines.evidence.transfer import QUERIES

DYNAMIC = "masking.leads=dynamic"
KINDS: dict[str, tuple[str, ...]] = {
    "lead-wise": ("model.ecg_encoder=lead-wise", "model.conv_layers=[[16,5,5],[32,4,4],[64,2,2],[64,2,2]]", DYNAMIC),
    "conv": (),
    "conv-dynamic": (DYNAMIC,),
}
"""What is trained → its changes of the recipe. The third tells what the leads' masking alone is worth."""

NUMBERS = (12, 6, 3, 2, 1)
"""How many leads are seen, by LEAD_SETS."""
FRACTIONS = (1.0,)
CLAIMED = 0.16
"""What K-MERL says to gain in zero-shot AUC with some of the leads (arXiv 2502.17900, abstract)."""
GROUNDS = ("sim", "real")


def train(plan: Plan, kind: str, seed: int) -> dict[str, Any]:
    """Train `kind` with `seed`."""
    name = f"{kind}-{seed}"
    plan.train(name, [plan.sim, plan.real], seed, KINDS[kind])
    plan.forget(name)
    return {}


def score_leads(plan: Plan, kind: str, number: int) -> dict[str, Any]:
    """Keep the scores of all trainings of `kind`, on both grounds, with `number` leads."""
    models = [plan.load(f"{kind}-{seed}") for seed in plan.seeds]
    for name, place in zip(GROUNDS, (plan.sim, plan.real), strict=True):
        ground = score.open_ground(name, place, FRACTIONS, plan.fold)
        see_only(ground.cohort, LEAD_SETS[number])
        score.keep(plan.work / "scores", f"{kind}-{number}", ground, score.model_scores(ground, models), leads=LEAD_SETS[number])
        asked = score.query_scores(ground, models)
        if asked:
            score.keep(plan.work / "scores", f"{kind}-{number}{QUERIES}", ground, asked, leads=LEAD_SETS[number])
    return {"queries": bool(asked)}


def stages_of(plan: Plan) -> dict[str, Work]:
    """Return the stages by name, in their order: the trainings of a seed, then every set of leads."""
    out: dict[str, Work] = {f"train-{kind}-{seed}": partial(train, plan, kind, seed) for seed in plan.seeds for kind in KINDS}
    return out | {f"{kind}-{number}": partial(score_leads, plan, kind, number) for number in NUMBERS for kind in KINDS}


def entries(plan: Plan, ground: str, numbers: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Return the scores of `lead-wise` on `ground`, mean over `numbers` of leads, and the other kinds' beside them, in pairs.

    Zero-shot by texts, by entity queries where the models have them, and by probe.
    """
    own, *others = KINDS

    def told(way: str) -> list[dict[str, Any]]:
        of = {kind: score.read(plan.work / "scores", [f"{kind}-{number}{way}" for number in numbers], ground) for kind in KINDS}
        return score.entries(of[own], {kind: of[kind] for kind in others})

    texts, probed = told("")
    out = {"zero-shot": texts, "probe": probed}
    if found(plan.work, f"{own}-{numbers[0]}")["queries"]:
        out["zero-shot by findings"] = told(QUERIES)[0]
    return out


def figures(plan: Plan) -> dict[str, Any]:
    """Return per ground the entries with each number of leads, and those over all that lack leads."""
    table: dict[str, Any] = {
        ground: {
            "by_leads": [{"leads": list(LEAD_SETS[number]), "entries": entries(plan, ground, (number,))} for number in NUMBERS],
            "fewer": entries(plan, ground, NUMBERS[1:]),
        }
        for ground in GROUNDS
    }
    seconds = {kind: sum(found(plan.work, f"train-{kind}-{seed}")["cpu_seconds"] for seed in plan.seeds) for kind in KINDS}
    table["cpu_minutes_a_training"] = {kind: round(spent / 60 / len(plan.seeds), 1) for kind, spent in seconds.items()}
    told = {"task": "superclass", "fold": plan.fold, "seeds": list(plan.seeds), "steps": plan.recipe_of(0).train.steps}
    return told | {"rule": {"texts": RULE[0], "similarity": RULE[1]}, "claimed": CLAIMED} | table


def main() -> None:
    """Do what is left to do, and tell it; with --keep, once all is done, keep it."""
    options = parser(__doc__, seeds="0")
    options.add_argument("--keep", action="store_true", help="write docs/results/leads.json when all is done")
    given = options.parse_args()
    plan = plan_of(given)
    if run_stages(plan.work, plan.settings(fold=plan.fold), stages_of(plan), plan.only, plan.most) or plan.only:
        return
    table = figures(plan)
    for ground in GROUNDS:
        for of in table[ground]["by_leads"]:
            for way, entry in of["entries"].items():
                rows = {next(iter(KINDS)): entry} | entry["baselines"]
                line = ", ".join(f"{name} {one['macro_auc']:.3f}" for name, one in rows.items())
                print(f"{ground}, fold {plan.fold}, {len(of['leads'])} leads, {way}: {line}")
    if given.keep:
        from tests.benchmarks.results import write_result

        data = f"{training_counts(plan)} training recordings, {plan.fold} folds scored; seeds {', '.join(map(str, plan.seeds))}"
        write_result("leads", table, protocol="strict", data=data)


if __name__ == "__main__":
    main()
