"""What a probe can be asked: other protocols, baselines, folds, leads, subgroups; and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cmelt.errors import TaskError
from cmelt.record import LEAD_SETS, LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tasks import melp, merl
from cmelt.tasks.base import Cohort, encoder_features, load_model, open_run
from cmelt.tasks.curve import lead_curve
from cmelt.tasks.probe import probe, table
from cmelt.tasks.split import choose_folds, groups, in_both, read_leads, read_shares, see_only
from cmelt.tasks.zeroshot import zeroshot
from tests.made import MakeShards


def shown(result: dict[str, object], width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(result))
    return console.export_text()


@pytest.mark.parametrize("protocol", ["merl-2024", "melp-2025"])
def test_published_protocols_end_to_end(run: Path, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merl, "EPOCHS", 3)
    monkeypatch.setattr(melp, "EPOCHS", 3)
    result = probe(run, protocol=protocol, baselines=("trivial",), fractions=(0.001, 0.1, 1.0), quiet=True)
    none, ten, full = result["fractions"]
    assert none == {"fraction": 0.001, "n_train": 0, "not_computed": "0 training recordings are fewer than 1"}
    assert (ten["seeds"], ten["n_train"], full["n_train"]) == ([42], 19, 192)
    assert full["baselines"]["trivial"]["chosen"][0]["features"] == "trivial"
    assert json.loads((run / f"results/probe-superclass-{protocol}.json").read_text())["protocol"] == protocol
    if protocol == "merl-2024":
        assert full["best_minus_last"] == pytest.approx(full["macro_auc"] - full["last_epoch_auc"], abs=2e-6)
        assert "best minus last" in shown(result)


def test_every_baseline_stands_beside_the_model(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cmelt.tasks import baselines

    monkeypatch.setattr(baselines, "SCRATCH", baselines.SCRATCH.model_copy(update={"epochs": 2}))
    names = ("random_init", "trivial", "random_conv", "supervised")
    result = probe(run, baselines=names, init_seeds=(0, 1), fractions=(0.1,), seeds=2, quiet=True)
    (entry,) = result["fractions"]
    assert entry["seeds"] == [0, 1]
    replicates = {name: base["replicates"] for name, base in entry["baselines"].items()}
    assert replicates == {"random_init": 2, "trivial": 1, "random_conv": 2, "supervised": 1}
    assert [len(base["fits"]) for base in entry["baselines"].values()] == [4, 2, 4, 2]
    assert entry["baselines"]["random_conv"]["chosen"][0]["strength"] >= 1, "ridge strengths"
    assert entry["baselines"]["supervised"]["chosen"][0]["epochs"] <= 2
    rows = {line.split()[0]: line.split() for line in shown(result, 80).splitlines() if line.split()}
    told = [f"{entry['baselines'][name]['per_class']['NORM']:.3f}" for name in names]
    assert rows["NORM"][-4:] == told, "a number was cut in 80 columns"
    with pytest.raises(TaskError, match="no baseline 'trival'; did you mean 'trivial'"):
        probe(run, baselines=("trival",), quiet=True)


def test_training_on_one_data_set_and_testing_on_another(run: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    other = make_shards(tmp_path / "other", n=60, seed=9, dataset="other")
    result = probe(run, tested=[other], baselines=(), fractions=(1.0,), quiet=True)
    (entry,) = result["fractions"]
    assert (entry["n_train"], entry["n_val"], entry["n_test"]) == (192, 24, 6)
    assert (result["trained_on"], result["tested_on"]) == (["ptbxl-simulated"], ["other"])
    keys = set(pq.read_table(run / "results/probe-superclass-on-other.parquet")["key"].to_pylist())
    assert keys == {f"other/{number:05d}" for number in range(60) if number % 10 == 9}


def test_the_same_recording_does_not_train_where_it_tests(tmp_path: Path, make_shards: MakeShards) -> None:
    ptbxl, cinc = make_shards(tmp_path / "a", n=60, dataset="ptbxl"), make_shards(tmp_path / "b", n=60, dataset="cinc2021")
    cohort = Cohort([ptbxl, cinc], "superclass")
    cohort.keys = np.array([f"ptbxl/{n:05d}_hr" for n in range(60)] + [f"cinc2021/HR{n:05d}" for n in range(8, 68)])
    folds, told = choose_folds(cohort, trained=1)
    assert told["same_recordings_left_out"] == 5, "HR00017 … HR00067 test; 17 … 57 train here"
    assert told["recordings_in_training_and_test"] == 0
    assert len(folds.train) == 48 - 5
    cohort.keys = np.array([f"ptbxl/{n}" for n in range(60)] + [f"cinc2021/{n}" for n in range(60)])
    content = np.resize([f"hash{n}" for n in range(7)], 120).astype(object)
    content[::2] = ""
    cohort.folders[0].column, cohort.folders[1].column = (lambda name, part=part: part for part in (content[:60], content[60:]))  # type: ignore[method-assign,misc]
    same = in_both(cohort, np.arange(14), np.arange(61, 64))
    assert same.tolist() == [False, *[n % 2 == 1 and content[n] in set(content[61:64]) - {""} for n in range(1, 14)]]


def test_split_files_say_who_is_where(run: Path, tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    for name, numbers in (("train", range(100)), ("val", range(100, 140)), ("test", range(140, 200))):
        (folder / f"x_{name}.csv").write_text("\n".join(["key", *(f"{number:05d}" for number in numbers)]) + "\n")
    result = probe(run, splits=folder, baselines=(), fractions=(1.0,), quiet=True)
    (entry,) = result["fractions"]
    assert (entry["n_train"], entry["n_val"], entry["n_test"]) == (100, 40, 60)
    assert result["not_in_split_files"] == 40
    assert result["patients_in_training_and_test"] == 0
    assert (run / "results/probe-superclass-splits-published.json").exists()
    cohort = Cohort([shards], "superclass")
    sources = [f"{number // 60}.hea" for number in range(240)]
    monkeypatch.setattr(
        ShardFolder, "column", lambda self, name, plain=ShardFolder.column: sources if name == "source" else plain(self, name)
    )
    with pytest.raises(TaskError, match=r"windows of one recording into different folds \(00100 of 1\.hea\)"):
        choose_folds(cohort, splits=folder)
    monkeypatch.undo()
    (folder / "x_test.csv").unlink()
    with pytest.raises(TaskError, match="no recording in the test split"):
        probe(run, splits=folder, quiet=True)


def test_leads_that_are_not_seen_are_zero(run: Path, shards: Path) -> None:
    whole, some = Cohort([shards], "superclass"), Cohort([shards], "superclass")
    see_only(some, ("II", "V2"))
    rows = np.array([3, 11])
    ecg = some.ecg_mv(rows)
    kept = [LEADS.index("II"), LEADS.index("V2")]
    np.testing.assert_array_equal(ecg[:, kept], whole.ecg_mv(rows)[:, kept])
    assert not np.delete(ecg, kept, axis=1).any()
    assert not np.delete(some.folders[0].ecg([3]), kept, axis=1).any()

    opened = open_run(run, None)
    cached = [Cohort([shards], "superclass", opened.cache) for _ in range(2)]
    see_only(cached[1], ("II", "V2"))
    model = load_model(opened, whole)
    full, few = (encoder_features(model, cohort, quiet=True)["mean"] for cohort in cached)
    assert np.abs(full - few).max() > 1e-3, "features of all leads were taken for those of two"
    np.testing.assert_allclose(few[rows], model.ecg_features(ecg)[1], atol=1e-5)


def test_a_probe_sees_only_the_leads_it_is_given(run: Path) -> None:
    """The made-up classes lie in pairs of leads: MI in III and aVR, HYP in V3 and V4."""
    for leads, better in ((("III", "aVR"), "MI"), (("V3", "V4"), "HYP")):
        result = probe(run, leads=leads, baselines=("trivial",), fractions=(1.0,), quiet=True)
        by_class = result["fractions"][0]["baselines"]["trivial"]["per_class"]
        assert by_class[better] > 0.9
        assert by_class[better] > max(value for name, value in by_class.items() if name != better) + 0.1
        assert (run / f"results/probe-superclass-leads-{'-'.join(leads)}.json").exists()


def test_choices_are_made_on_the_validation_fold_with_the_test_fold_left_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Cohort.rows
    monkeypatch.setattr(Cohort, "rows", lambda self, split: {}[split] if split == "test" else rows(self, split))
    result = probe(run, baselines=("trivial",), fractions=(1.0,), fold="val", quiet=True)
    scored = pq.read_table(run / "results" / "probe-superclass-val.parquet")
    texts = zeroshot(run, fold="val", quiet=True)
    (cohort,) = {Cohort(open_run(run, None).shards, "superclass")}
    assert set(scored.column("key").to_pylist()) == set(cohort.keys[cohort.split == "val"])
    assert texts["fractions"][0]["macro_auc"] == texts["validation"]["reports, contrast"]
    assert (run / "results" / "zeroshot-superclass-val.json").is_file()
    assert "scored: fold val" in shown(result)
    with pytest.raises(TaskError, match="no fold 'vall'; did you mean 'val'"):
        probe(run, fold="vall", quiet=True)


def test_leads_and_shares_as_one_writes_them() -> None:
    assert read_leads("v2,i, II") == ("I", "II", "V2") == read_leads("3")
    assert read_leads("12") == LEADS
    assert [len(leads) for leads in LEAD_SETS.values()] == list(LEAD_SETS)
    with pytest.raises(TaskError, match="no lead 'AVX'; did you mean 'AV"):
        read_leads("I,aVX")
    with pytest.raises(TaskError, match="no leads named"):
        read_leads(",")
    assert read_shares("100,1") == (0.01, 1.0)
    for wrong in ("0", "1,200", "ten", ""):
        with pytest.raises(TaskError, match="no percentages"):
            read_shares(wrong)


def test_the_lead_curve_is_told_and_drawn(run: Path) -> None:
    curve = lead_curve(run, baselines=("trivial",), fractions=(1.0,), quiet=True)
    assert [len(point["leads"]) for point in curve["points"]] == [12, 6, 4, 3, 2, 1]
    assert json.loads((run / "results/curves/leads-superclass.json").read_text())["points"] == curve["points"]
    assert Path(curve["picture"]).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TaskError, match="larger --fractions"):
        lead_curve(run, baselines=(), fractions=(0.01,), quiet=True)


def test_subgroups_are_told_with_the_classes_that_count(run: Path, shards: Path) -> None:
    cohort = Cohort([shards], "superclass")
    ages = np.array([np.nan, 19, 20, 39.9, 40, 59, 60, 79, 80, 300])
    cohort.folders[0].column = lambda name: (  # type: ignore[method-assign]
        np.resize(ages, 240) if name == "age" else ["male", "female", ""] * 80 if name == "sex" else ShardFolder(shards).column(name)
    )
    kinds = groups(cohort, np.arange(10))
    assert kinds["age"].tolist() == ["", "0–19", *["20–39"] * 2, *["40–59"] * 2, *["60–79"] * 2, *["80 and over"] * 2]
    assert kinds["sex"].tolist() == ["male", "female", "", "male", "female", "", "male", "female", "", "male"]

    result = probe(run, baselines=(), fractions=(1.0,), subgroups=True, quiet=True)
    (entry,) = result["fractions"]
    assert set(entry["subgroups"]) == {"fold"}, "nobody's sex or age is known here"
    assert entry["subgroups"]["fold"]["10"]["macro_auc"] == entry["macro_auc"]
    assert "by fold" in shown(result)
