"""The evidence pipelines run from end to end on made-up recordings, go on where they were cut off, and tell what is so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.config import PretrainRecipe
from cmelt.errors import OutputError
from cmelt.files import write_json
from cmelt.metrics import auroc, macro
from cmelt.models.cmelt import CMELT
from cmelt.record import LEADS
from cmelt.tasks import baselines
from cmelt.tasks.compare import Predictions
from cmelt.training.corpus import Corpus
from docs.generate.results import Results, results_page
from pipelines.evidence import bench, draw, leads, scaling, score, transfer
from pipelines.evidence.plan import Plan
from pipelines.evidence.stages import done_file, found, run_stages
from tests.made import FS_HZ, SAMPLES, make
from tests.pairs import SMALL

RECIPE = """
[model]
{model}
[masking]
lead_prob = 0.1
[objectives]
ets_form = "infonce"
[optim]
lr = 3e-3
[train]
steps = 3
batch = 16
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Return a plan of three steps of a minimal model, with one seed, on made-up recordings."""
    folder = tmp_path_factory.mktemp("evidence")
    lines = [f"{key} = {json.dumps(value)}" for key, value in SMALL.items() if key != "text_config"]
    lines += ["[model.text_config]", *(f"{key} = {json.dumps(value)}" for key, value in SMALL["text_config"].items())]  # type: ignore[attr-defined]
    (folder / "recipe.toml").write_text(RECIPE.format(model="\n".join(lines)))
    made = {"recipe": {"signal": {"fs_hz": FS_HZ, "duration_s": SAMPLES / FS_HZ}}}
    sim, real = make(folder / "sim", **made), make(folder / "real", 160, 1, "ptbxl", **made)
    return Plan(folder / "work", sim, real, str(folder / "recipe.toml"), ("data.leaks=keep",), (0,))  # they have no hash


def shown(name: str, figures: dict[str, object]) -> str:
    """Return the page of results with these figures, as a pipeline would have written them."""
    results = Results()
    results[name] = {"name": name, "command": "c", "commit": "abc", "machine": "m", "date": "2026-01-01", "data": "d", "figures": figures}
    return results_page(results)


def test_stages_are_done_once_and_settings_hold(tmp_path: Path) -> None:
    calls: list[str] = []

    def stage(name: str) -> dict[str, str]:
        calls.append(name)
        return {"said": name}

    stages = {name: (lambda name=name: stage(name)) for name in ("a", "b", "c")}
    assert run_stages(tmp_path, {"steps": 1}, stages, most=1) == 2
    assert run_stages(tmp_path, {"steps": 1}, stages) == 0
    assert calls == ["a", "b", "c"]
    assert found(tmp_path, "b")["said"] == "b"
    begun = {"recipe": PretrainRecipe().model_dump(mode="json")}
    older = {"recipe": {**begun["recipe"], "masking": {"lead_prob": 0.5, "text_prob": 0.15}}}  # before there was masking.leads
    write_json(tmp_path / "older" / "settings.json", older)
    assert run_stages(tmp_path / "older", begun, {}) == 0
    with pytest.raises(OutputError, match="other settings"):
        run_stages(tmp_path, {"steps": 2}, stages)
    done_file(tmp_path, "b").unlink()
    run_stages(tmp_path, {"steps": 1}, stages)
    assert calls[3:] == ["b"]
    with pytest.raises(OutputError, match="stage d"):
        found(tmp_path, "d")


def test_each_variant_trains_without_what_it_is_named_for(plan: Plan) -> None:
    losses = {
        name: {loss for loss in bench.OFF if getattr(plan.recipe_of(0, changes).objectives, loss)}
        for name, changes in bench.VARIANTS.items()
    }
    for loss in bench.OFF:
        assert losses[f"no-{loss}"] == set(bench.OFF) - {loss}
    assert losses["infonce-only"] == {"ets"}
    assert losses["reconstruction-only"] == {"mem", "mlm"}
    modes = {name: plan.recipe_of(0, changes).negatives.mode for name, changes in bench.VARIANTS.items()}
    assert (modes["random-negatives"], modes["antipodal-negatives"]) == ("random", "antipodal")


def test_bench_from_end_to_end(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "VARIANTS", {name: bench.VARIANTS[name] for name in ("full", *bench.DEAD.values())})
    monkeypatch.setattr(baselines, "SCRATCH", baselines.SCRATCH.model_copy(update={"epochs": 1}))
    stages = bench.stages_of(plan)
    assert run_stages(plan.work, plan.settings(), stages, most=1) == len(stages) - 1
    assert run_stages(plan.work, plan.settings(), stages) == 0
    table = bench.figures(plan)
    first = json.loads(done_file(plan.work, "no-etm-0").read_text())["skills"]
    done_file(plan.work, "no-etm-0").unlink()
    shutil.rmtree(plan.work / "runs" / "no-etm-0")
    assert run_stages(plan.work, plan.settings(), stages) == 0
    assert found(plan.work, "no-etm-0")["skills"] == first, "the same seed, the same numbers"
    assert bench.figures(plan) == table

    corpus = Corpus([plan.sim, plan.real], "train", data=plan.recipe_of(0).data)
    untrained = CMELT.create(plan.recipe_of(0).model, FS_HZ, SAMPLES, corpus.reports, 0)
    heads = {"no-etm": "etm_head", "no-mlm": "mlm_head", "no-mem": "mem_decoder", "reconstruction-only": "ecg_pooler"}
    for variant, head in heads.items():  # nothing teaches the head of a part that is not there
        for name, learns in ((variant, False), ("full", True)):
            of = plan.load(f"{name}-0").get_submodule(head).state_dict()
            changed = any(not torch.equal(value, of[key]) for key, value in untrained.get_submodule(head).state_dict().items())
            assert changed == learns, (name, head)
    entry = next(entry for entry in table["real"] if entry["fraction"] == 1.0)
    assert set(entry["baselines"]) == {*bench.DEAD.values(), *bench.BASELINES, bench.SUPERVISED}
    assert entry["baselines"]["trivial"]["difference"] == pytest.approx(
        entry["macro_auc"] - entry["baselines"]["trivial"]["macro_auc"], abs=2e-6
    )
    assert [entry["fraction"] for entry in table["sim"]] == [0.0, 0.1, 1.0]  # 1 % of 192 is too few
    assert set(table["skills"]["parts"]) == set(bench.DEAD)
    assert len(draw.forest(table).axes) == 6
    assert "| − ETM |" in shown("evidence", table | {"minutes": 1.0, "steps": 3})


def test_transfer_trains_without_the_scored_fold_and_tells_what_the_probe_tells(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "SCRATCH", baselines.SCRATCH.model_copy(update={"epochs": 1}))
    asked = (*plan.changes, "model.entity_heads=2", "objectives.entities=0.2")
    plan = replace(plan, work=plan.work.with_name("transfer"), fold="val", changes=asked)
    assert run_stages(plan.work, plan.settings(), transfer.stages_of(plan)) == 0
    test = replace(plan, fold="test")
    assert set(transfer.training_stages(plan)) == set(transfer.training_stages(test))  # trained once for both
    assert not set(transfer.stages_of(test)) - set(transfer.training_stages(plan)) & set(transfer.stages_of(plan))
    told = transfer.result(plan)
    zero, ten, full = told["fractions"]
    assert "| amplitudes |  | 0." in shown("real-transfer", told | {"times_test_fold_was_scored": 1})
    assert (zero["fraction"], ten["fraction"], full["fraction"]) == (0.0, 0.1, 1.0)
    assert set(zero["baselines"]) == {"shuffled"}
    assert set(ten["baselines"]) == {"shuffled", *transfer.BASELINES, "supervised"}
    assert full["n_test"] == 16
    assert set(told["by_entities"]["baselines"]) == {"shuffled"}
    assert told["by_entities"]["fraction"] == 0
    true, shuffled = (
        json.loads((plan.work / "runs" / f"{kind}-0" / "recipe.json").read_text())["recipe"]["data"] for kind in transfer.KINDS
    )
    assert (true["shuffle_reports"], shuffled["shuffle_reports"]) == (0, 1)


def test_models_together_are_the_mean_of_what_each_ranks() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 2, 30, 3))  # two models, two draws
    scores = np.stack([one[0], 1e6 * other[0] + 7, one[1], other[1]])  # in the order of their seeds: draw by draw
    of = Predictions(np.arange(30).astype(str), np.arange(30), ("a", "b", "c"), np.ones((30, 3), np.int8), scores)
    found = score.together(of, 2).scores
    assert found.shape == (2, 30, 3)
    for at in range(2):
        each = [(x - x.mean(0)) / x.std(0) for x in (one[at], other[at])]
        np.testing.assert_allclose(found[at], np.mean(each, axis=0), atol=1e-6)
    still = replace(of, scores=np.zeros((2, 30, 3)))
    assert np.array_equal(score.together(still, 2).scores, np.zeros((1, 30, 3)))


def test_fewer_leads_are_scored_as_they_are_seen(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leads, "NUMBERS", (12, 2, 1))
    asked = (*plan.changes, "model.entity_heads=2", "objectives.entities=0.2")
    plan = replace(plan, work=plan.work.with_name("leads"), fold="val", changes=asked)
    assert run_stages(plan.work, plan.settings(), leads.stages_of(plan)) == 0
    table = leads.figures(plan)
    assert [of["leads"] for of in table["sim"]["by_leads"]] == [list(LEADS), ["I", "II"], ["I"]]
    zero = {len(of["leads"]): of["entries"]["zero-shot"] for of in table["real"]["by_leads"]}
    ground = score.open_ground("real", plan.real, (1.0,), fold="val")
    ecg_mv = ground.cohort.ecg_mv(ground.problem.folds.test)
    ecg_mv[:, 1:] = 0
    for kind, told in (("lead-wise", zero[1]), ("conv-dynamic", zero[1]["baselines"]["conv-dynamic"])):
        model = plan.load(f"{kind}-0")
        assert model.config.ecg_encoder == kind.removesuffix("-dynamic")
        scores = score.text_scores(model, "superclass", model.encode_ecg(ecg_mv).numpy())
        assert told["macro_auc"] == pytest.approx(macro(auroc(ground.truth, scores)), abs=2e-3)
    fewer = table["real"]["fewer"]["zero-shot"]
    assert fewer["macro_auc"] == pytest.approx((zero[1]["macro_auc"] + zero[2]["macro_auc"]) / 2, abs=1e-6)
    assert fewer["baselines"]["conv"]["difference"] == pytest.approx(fewer["macro_auc"] - fewer["baselines"]["conv"]["macro_auc"], abs=2e-6)
    page = shown("leads", table)
    assert "| ahead of `conv`, as `sim-small` has it |" in page
    assert "Real records, zero-shot by findings:" in page


def test_scaling_laws_are_those_of_the_points(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([10.0, 100.0, 1000.0])
    a, b = scaling.law(x, 1 - 0.8 * x[:, None] ** -np.array([[0.1, 0.3]]))
    np.testing.assert_allclose(a, 0.8)
    np.testing.assert_allclose(b, [0.1, 0.3])
    monkeypatch.setattr(scaling, "SHARES", (1 / 4, 1 / 2))
    monkeypatch.setattr(scaling, "SIZES", {"size-double": 32})
    monkeypatch.setattr(scaling, "sized", lambda width: ("model.width=32",))
    plan = replace(plan, work=plan.work.with_name("scaling"))
    assert run_stages(plan.work, plan.settings(), scaling.stages_of(plan)) == 0
    table = scaling.table(plan)
    assert [point["x"] for point in table["axes"]["records"]["points"]] == [48, 96, 192]
    assert [point["x"] for point in table["axes"]["steps"]["points"]] == [2, 3]
    law = table["axes"]["records"]["laws"]["zero-shot"]
    assert law["reach"][0]["macro_auc"] == pytest.approx(1 - law["a"] * 192 ** -law["b"], abs=1e-5)
    assert len(draw.scaling_curves(table).axes) == 3
    assert "| records | zero-shot | 48: " in shown("scaling", table)


def test_validation_fold_is_scored_without_the_test_fold(plan: Plan) -> None:
    ground = score.open_ground("real", plan.real, (1.0,), fold="val")
    folds = ground.problem.folds
    assert set(ground.cohort.split[folds.test]) == {"val"}
    model = plan.train("full-0", [plan.sim, plan.real], 0)
    values = score.features_of(model, ground)["embedding"]
    assert np.isnan(values[ground.cohort.split == "test"]).all()
    assert np.isfinite(values[ground.cohort.split == "train"]).all()
