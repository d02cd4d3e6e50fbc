"""Zero-shot: texts stand for classes, and the score is their similarity to an ECG."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from cmelt import __version__, metrics
from cmelt.errors import CheckpointError, InputError, TaskError
from cmelt.labels import TASKS, class_entities, load_vocabulary, read_table
from cmelt.models.cmelt import CMELT
from cmelt.shards.read import ShardFolder
from cmelt.tasks.queries import any_of
from cmelt.tasks.zeroshot import SIMILARITIES, TEXTS, class_vectors, prompts, similarities, table, zeroshot
from cmelt.text.entities import known_entities
from tests.made import SAMPLES
from tests.pairs import small_model


@pytest.mark.parametrize("task", TASKS)
def test_every_class_has_texts_of_every_kind(task: str) -> None:
    for kind in TEXTS:
        texts = prompts(task, kind)
        assert tuple(texts) == load_vocabulary(task).classes
        assert all(words and all(text and "{" not in text for text in words) for words in texts.values())
    assert len(prompts(task, "all")[load_vocabulary(task).classes[0]]) > 4


def test_zeroshot_writes_what_it_returns(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in text encoder that reads the class off the name gives the ECG's own direction, so the right class is nearest."""
    names = [texts[0] for texts in prompts("superclass", "name").values()]

    def ecg_features(self: CMELT, ecg: np.ndarray, batch: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        power = torch.from_numpy(ecg[:, :10].reshape(len(ecg), 5, -1).std(-1))  # the made-up classes lie in pairs of leads
        return power - power.mean(1, keepdim=True), power

    def encode_text(self: CMELT, texts: list[str], batch: int = 64) -> torch.Tensor:
        return torch.stack([torch.eye(5)[names.index(text)] if text in names else torch.full((5,), 0.2) for text in texts])

    monkeypatch.setattr(CMELT, "ecg_features", ecg_features)
    monkeypatch.setattr(CMELT, "encode_text", encode_text)
    result = zeroshot(run, texts="name", similarity="cosine", quiet=True)
    (entry,) = result["fractions"]
    assert (entry["fraction"], entry["n_train"], entry["n_test"], entry["baselines"]) == (0, 0, 24, {})
    assert entry["macro_auc"] > 0.9
    assert entry["ci95"][0] > 0.8
    assert result["rule"] == {"texts": "name", "similarity": "cosine"}
    assert len(result["validation"]) == len(TEXTS) * len(SIMILARITIES)
    assert result["validation"]["name, cosine"] > 0.9
    assert {"version": __version__} | result == json.loads((run / "results/zeroshot-superclass-name-cosine.json").read_text())
    predictions = pq.read_table(run / "results/zeroshot-superclass-name-cosine.parquet")
    assert (predictions.num_rows, set(predictions["fraction"].to_pylist())) == (24 * 5, {0.0})
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(result))
    assert "normal ecg" in console.export_text()


def test_zeroshot_with_the_models_own_texts(run: Path) -> None:
    result = zeroshot(run, quiet=True)
    assert 0 <= result["fractions"][0]["macro_auc"] <= 1
    assert result["texts"]["NORM"][0] == "sinus rhythm. normal axis. normal ecg."
    assert result["rule"] == {"texts": "reports", "similarity": "contrast"}
    with pytest.raises(TaskError, match="no similarity 'cosin'; did you mean 'cosine'"):
        zeroshot(run, similarity="cosin", quiet=True)


def test_own_texts_and_templates(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text('class,text\nMI,heart attack\nNORM,all is well\nMI,"infarct, old"\n')
    result = zeroshot(run, classes=file, templates=["it is {}.", "{}"], similarity="dot", quiet=True)
    expected = {"NORM": ["it is all is well.", "all is well"]}
    expected["MI"] = ["it is heart attack.", "it is infarct, old.", "heart attack", "infarct, old"]
    assert result["texts"] == expected
    (entry,) = result["fractions"]
    assert list(entry["per_class"]) == ["NORM", "MI"]
    assert entry["left_out"] == dict.fromkeys(("STTC", "CD", "HYP"), f"not in {file}")
    assert len(result["validation"]) == (len(TEXTS) + 1) * len(SIMILARITIES)
    assert (run / "results/zeroshot-superclass-file-dot.json").is_file()
    wrapped = zeroshot(run, templates=["this is {}"], quiet=True)
    assert wrapped["rule"]["texts"] == "templates"
    assert wrapped["texts"]["CD"] == ["this is conduction disturbance"]


def test_hidden_leads_change_what_is_found(run: Path) -> None:
    whole, one = zeroshot(run, quiet=True), zeroshot(run, leads=("II",), quiet=True)
    assert whole["validation"] != one["validation"]
    assert (run / "results/zeroshot-superclass-leads-II.json").is_file()


def test_retrieval_is_over_all_reports_of_the_test_fold(run: Path, shards: Path) -> None:
    model, folder = CMELT.from_pretrained(run), ShardFolder(shards)
    rows = folder.rows("test")
    told = np.array(folder.column("report"))[rows]
    expected = metrics.retrieval(model.encode_ecg(folder.ecg_mv(rows)), model.encode_text(list(told)), told)
    found = zeroshot(run, quiet=True)["retrieval"]
    assert (found["pairs"], found["reports"]) == (24, len(set(told)))
    assert {f"retrieval_{name}": value for name, value in found.items() if "@" in name} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,text\nMIX,x\n", "line 2: no class 'MIX'; did you mean 'MI'"),
        ("class,text\nMI,x\nNORM,\n", "line 3: wanted are a class and its text"),
        ("name,words\nMI,x\n", "line 2: wanted are"),
        ("class,text\n", "holds no class"),
        ("class,text\nMI,x\n", "softmax over one class"),
    ],
)
def test_texts_that_cannot_be(text: str, message: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text(text)
    with pytest.raises((InputError, TaskError), match=message):
        zeroshot(run, classes=file, similarity="softmax", quiet=True)


def test_rules_that_cannot_be(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a CSV"):
        zeroshot(run, classes=tmp_path / "nowhere.csv", quiet=True)
    with pytest.raises(InputError, match=r"the template 'it is' has no \{\}"):
        zeroshot(run, templates=["it is"], quiet=True)
    with pytest.raises(TaskError, match="no texts 'report'; did you mean 'reports'"):
        zeroshot(run, texts="report", quiet=True)
    with pytest.raises(TaskError, match="no texts 'file'"):
        zeroshot(run, texts="file", quiet=True)


def test_similarities_are_what_they_say(run: Path) -> None:
    model = CMELT.from_pretrained(run)
    words = {"two": {"a": ["sinus rhythm", "normal ecg"], "b": ["left axis deviation"], "c": ["pacemaker"]}}
    vectors = class_vectors(model, words)["two"]
    text = model.encode_text(["sinus rhythm", "normal ecg", "left axis deviation", "pacemaker"]).numpy().astype(float)
    ecg = np.random.default_rng(0).normal(size=(6, text.shape[1]))
    np.testing.assert_allclose(similarities(ecg, vectors, "dot")[:, 0], ecg @ (text[0] + text[1]) / 2, atol=1e-5)
    length = np.linalg.norm
    cosine = [[ecg[i] @ t / length(ecg[i]) / length(t) for t in text] for i in range(6)]
    cosine = np.array(cosine)
    expected = np.column_stack([cosine[:, :2].mean(1), cosine[:, 2], cosine[:, 3]])
    np.testing.assert_allclose(similarities(ecg, vectors, "cosine"), expected, atol=1e-5)
    share = similarities(ecg, vectors, "softmax")
    np.testing.assert_allclose(share.sum(1), 1)
    np.testing.assert_allclose(share[:, 1] / share[:, 2], np.exp((expected[:, 1] - expected[:, 2]) / 0.1), rtol=1e-4)


def test_contrast_is_with_a_normal_ecg() -> None:
    ecg, unit = np.random.default_rng(0).normal(size=(6, 4)), np.eye(4)[:3]
    cosine = similarities(ecg, (unit, unit), "cosine")
    apart = similarities(ecg, (unit, unit), "contrast", (unit[:1], unit[:1]))
    np.testing.assert_allclose(apart[:, 1:], cosine[:, 1:] - cosine[:, :1])
    np.testing.assert_allclose(apart[:, 0], cosine[:, 0] - cosine[:, 1:].max(1))
    foreign = np.eye(4)[3:]  # no class is the normal one
    np.testing.assert_allclose(
        similarities(ecg, (unit, unit), "contrast", (foreign, foreign)), cosine - ecg[:, 3:] / np.linalg.norm(ecg, axis=1)[:, None]
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_finding_of_a_class_is_one_that_is_read(task: str) -> None:
    meant = class_entities(task)
    assert len(meant) > 0.5 * len(load_vocabulary(task).classes)
    assert {code for codes in meant.values() for code in codes} <= {entity.code for entity in known_entities()}


def test_the_table_of_findings_names_only_classes_that_there_are() -> None:
    classes = {task: set(load_vocabulary(task).classes) for task in TASKS}
    rows = [(row["task"], row["class"]) for row in read_table("findings")]
    assert all(name in classes[task] for task, name in rows)
    assert len(set(rows)) == len(rows)


def test_by_entities(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in queries that read the finding off the made-up signal find the class that it stands for."""
    run = tmp_path / "asking"
    small_model(samples=SAMPLES, entity_heads=2).save_pretrained(run)
    (run / "recipe.json").write_text(json.dumps({"shards": [str(shards)]}))
    codes = [entity.code for entity in known_entities()]
    stands = [codes.index(code) for code in ("NORM", "IMI", "LOWT", "1AVB", "LVH")]

    def entity_probabilities(self: CMELT, ecg: np.ndarray, batch: int = 64) -> torch.Tensor:
        probable = torch.full((len(ecg), len(codes)), 0.01)
        probable[:, stands] = torch.from_numpy(ecg[:, :10].reshape(len(ecg), 5, -1).std(-1)).clamp(0, 0.9)
        return probable

    monkeypatch.setattr(CMELT, "entity_probabilities", entity_probabilities)
    result = zeroshot(run, by="entities", quiet=True)
    assert result["fractions"][0]["macro_auc"] > 0.9
    assert result["validation"]["entities"] > 0.9
    assert result["rule"]["texts"] == "entity queries"
    assert "inferior infarction" in result["texts"]["MI"]
    assert (run / "results/zeroshot-superclass-entities.parquet").is_file()
    form = zeroshot(run, by="entities", task="diagnostic", quiet=True)
    assert form["fractions"][0]["left_out"]["SEHYP"] == "no finding stands for it"
    with pytest.raises(TaskError, match="read no texts"):
        zeroshot(run, by="entities", templates=["{}"], quiet=True)
    with pytest.raises(TaskError, match="no way 'entity'; did you mean 'entities'"):
        zeroshot(run, by="entity", quiet=True)


def test_a_model_without_queries_says_so(run: Path) -> None:
    with pytest.raises(CheckpointError, match="no entity queries"):
        zeroshot(run, by="entities", quiet=True)
    assert any_of(np.array([[0.5, 0.5, 1.0]]), ["A", "B", "C"], [["A"], ["A", "B"], ["C"]]).round(3).tolist() == [[0.5, 0.75, 1.0]]
