"""Pages: what they say, what they never say, and how a browser takes them."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmelt.config import ModelSettings, ObjectiveSettings, PretrainRecipe, load_recipe
from cmelt.errors import CheckpointError, InputError, OutputError
from cmelt.ingest import ingest
from cmelt.inspect import inspect
from cmelt.models.batch import Batch
from cmelt.models.cmelt import CMELT
from cmelt.objectives import total_loss
from cmelt.page import Example, write_page, write_shard_page
from cmelt.record import LEADS
from cmelt.report import report
from cmelt.shards.read import ShardFolder
from cmelt.simulate import simulate
from cmelt.tasks.results import Scored, write_results
from cmelt.training.pictures import cosine, rebuild
from tests import chromium

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
NASTY = "<script>alert(1)</script> & <img src=http://example.org/x.png>"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shard folder of 60 simulated recordings at 100 Hz."""
    folder = tmp_path_factory.mktemp("shards")
    simulate(folder / "raw", records=60, workers=1)
    recipe = load_recipe("ingest", "clinical", ["signal.fs_hz=100", "signal.lowpass_hz=0"])
    ingest("ptbxl", folder / "raw", folder / "shards", recipe, workers=1, records100=True)
    return folder / "shards"


@pytest.fixture(scope="module")
def model(shards: Path) -> CMELT:
    """Return a very small model with random weights, made for `shards`."""
    small = {"ecg_layers": 1, "fusion_pairs": 1, "decoder_blocks": 1, "mem_layer": 0}
    widths = {"ecg_width": 48, "ecg_heads": 4, "ecg_ffn": 64, "width": 48, "fusion_heads": 4, "decoder_width": 48, "decoder_heads": 4}
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    settings = ModelSettings(**small, **widths, position_kernel=16, text_encoder="t5", text_init="random", text_config=text)
    folder = ShardFolder(shards)
    return CMELT.create(settings, folder.fs_hz, folder.samples, reports=list(folder.column("report")))


def entry(fraction: float, auc: float, **baselines: float) -> dict[str, Any]:
    """Return one fraction of a result file, as the tasks write it."""
    per_class = {
        name: {"auc": auc + 0.02 * i, "ci95": [auc + 0.02 * i - 0.05, auc + 0.02 * i + 0.05], "positives": 3 + i}
        for i, name in enumerate(CLASSES)
    }
    per_class["HYP"] = {"auc": None, "ci95": None, "positives": 0}
    per_class["MI"] |= {"ap": 0.321, "f1": 0.432}
    female = {"n": 4, "classes": 2, "macro_auc": auc - 0.02, "ci95": [auc - 0.03, auc + 0.03], "left_out": ["HYP"]}
    ours = {"fraction": fraction, "seeds": [0, 1], "n_train": 48, "n_test": 6, "macro_auc": auc, "ci95": [auc - 0.04, auc + 0.03]}
    return {
        **ours,
        "macro_ap": 0.543,
        "macro_f1": None,
        "subgroups": {"sex": {"female": female, "male": {"n": 2, "classes": 0, "left_out": list(CLASSES)}}},
        "per_class": per_class,
        "left_out": {"HYP": "no positives in the test fold"},
        "baselines": {
            name: {
                "macro_auc": b,
                "ci95": [b - 0.05, b + 0.05],
                "difference": auc - b,
                "difference_ci95": [0.01, 0.17],
                "per_class": dict.fromkeys(CLASSES, b),
            }
            for name, b in baselines.items()
        },
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: Path, model: CMELT) -> Path:
    """Return a run folder with made-up metrics and results, and a checkpoint that knows nothing."""
    run = tmp_path_factory.mktemp("runs") / "tiny-1"
    (run / "results").mkdir(parents=True)
    model.save_pretrained(run)
    facts = {"version": "0", "recipe": PretrainRecipe().model_dump(mode="json"), "shards": [str(shards)], "counts": {"train": 48, "val": 6}}
    (run / "recipe.json").write_text(json.dumps(facts))
    rows = [
        {"step": step, "split": "train", "loss": 9 / step, "mlm": 5 / step, "mem": 1.0, "etm": 0.69, "ets": 0.5} for step in range(1, 9)
    ]
    rows.append(
        {"step": 8, "split": "val", "loss": 1.5, "mem": 1.0, "retrieval_ecg_to_text@10": 0.25, "retrieval_text_to_ecg@10": 0.5},
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "spl')  # a run cut off
    retrieval = {"pairs": 6, **{f"{way}@{k}": k / 20 for way in ("ecg_to_text", "text_to_ecg") for k in (1, 5, 10)}}
    results = {
        "probe-superclass": [
            {"fraction": 0.01, "n_train": 3, "not_computed": f"3 training recordings {NASTY}"},
            entry(0.1, 0.71, random_init=0.62),
            entry(1.0, 0.834, random_init=0.741),
        ],
        "zeroshot-superclass": [entry(0, 0.456)],
    }
    for name, fractions in results.items():
        facts = {"task": "superclass", "protocol": "strict", "checkpoint": "x", "shards": [str(shards)], "fractions": fractions}
        if name.startswith("zeroshot"):
            facts |= {"protocol": "zeroshot", "rule": {"texts": "name", "similarity": "dot"}, "retrieval": retrieval}
        (run / "results" / f"{name}.json").write_text(json.dumps(facts))
    points = [
        {"leads": leads, "fraction": 1.0, "macro_auc": 0.7 + len(leads) / 100, "ci95": [0.6, 0.9], "baselines": {"random_init": 0.6}}
        for leads in (list(LEADS), ["I", "II", "V2"])
    ]
    people = {"pairs": {"from": NASTY, "gallery": 4, "probes": 9}, "leads": ["II"], "scores": {"mean": {"top1": 0.625, "top5": 1.0}}}
    for name, facts in (("curves/leads", {"task": "superclass", "protocol": "strict", "points": points}), ("people/identify", people)):
        (run / "results" / f"{name}.json").parent.mkdir()
        (run / "results" / f"{name}.json").write_text(json.dumps(facts))
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    """Return the page about `run`."""
    return report([run], run / "pages" / "report.html")


@pytest.fixture(scope="module")
def full_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page about a run that also keeps predictions and features."""
    kept = tmp_path_factory.mktemp("runs") / "kept"
    shutil.copytree(run, kept)
    (kept / "results" / "features").mkdir()
    truth = np.repeat(np.eye(5, dtype=np.int8), 2, axis=0)
    scored = [Scored(0.0, 0, np.round(truth + 0.25, 2)), Scored(1.0, 0, truth - 0.5)]
    for name in ("probe-superclass", "zeroshot-superclass"):
        facts = json.loads((kept / "results" / f"{name}.json").read_text()) | {"texts": {"MI": [NASTY]}}
        write_results(kept / "results", name, facts, np.arange(10).astype(str), truth, CLASSES, scored)
    for seed in (0, 1):
        scored[seed] = Scored(1.0, seed, truth * 0.5)
    write_results(kept / "results" / "baselines", "probe-superclass-random_init", {}, np.arange(10).astype(str), truth, CLASSES, scored)
    return report([kept], kept / "kept.html")


@pytest.fixture(scope="module")
def shard_page(shards: Path) -> Path:
    """Return the page about `shards`, whose last example carries text that must be escaped."""
    folder = ShardFolder(shards)
    columns = {name: folder.column(name) for name in ("key", "report", "flags", "age", "sex", "patient_id")}
    examples = [Example(signal_mv=folder.ecg_mv([row])[0], why="flagged", **{k: v[row] for k, v in columns.items()}) for row in range(3)]
    examples.append(Example("x", np.full((12, 1000), np.nan), report=NASTY, flags=["flat_lead"], patient_id="PATIENT-7"))
    words = [len(text.split()) for text in columns["report"]]
    return write_shard_page(
        shards.parent / "inspect.html",
        inspect(shards),
        report_words=words,
        languages={NASTY: 3},
        heart_rate_bpm=[60, 70],
        examples=examples,
    )


class Reader(HTMLParser):
    """Collects a page's words and tags; fails on elements left open."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.words, self.tags, self.links, self.open = "", set[str](), list[str](), list[str]()
        self.feed(page.read_text(encoding="utf-8"))
        assert not self.open, f"left open: {self.open}"
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]
        if tag not in {"meta", "link", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += " " + data


def test_the_report_says_what_was_measured(page: Path) -> None:
    words = Reader(page).words
    for said in (
        "tiny-1",
        "SIMULATED",
        "Not for clinical use",
        "60 rows read, 60 recordings kept, 0 refused",
        "48 ECG–report pairs",
        "8 steps",
        "10 % of labels 0.710 0.670–0.740",
        "random init 0.620 0.570–0.670",
        "100 % of labels 0.834",
        "1 % of labels: not computed 3",
        "zero-shot 0.456",
        "NORM (3) 0.834",
        "Left out: HYP (no positives in the test fold)",
        "minus this, paired: +0.090 [+0.010, +0.170]",
        "0.834 superclass AUC, 100 % of labels, random init 0.741",
        "patches were removed",
        "Its own report",
        "masked text (mlm)",
        "recall@10",
        "tiny-1 pre-trained strict 100 % of labels all macro AUC 0.834 0.794–0.864 6 measured",
        "D-BETA published zero-shot zero-shot all macro AUC 0.762 secondary source",
        "tiny-1 pre-trained strict measured – 0.710 0.834 tiny-1",
        "MERL published linear probe of MELP note on arXiv:2506.21803 (secondary) 0.845 – 0.880",
        "macro AUC by sex, 100 % of labels female (4) 0.814 0.804–0.864 2 classes count; not HYP male (2) no class has",
        "other measures measure 10 % of labels 100 % of labels average precision 0.543 0.543",
        "MI myocardial infarction 4 0.854 0.804–0.904 0.321 0.432 –",
        "ECG to report 0.050 0.250 0.500",
        "macro AUC by number of leads 12 leads 0.820 0.600–0.900 all random init 0.600 3 leads 0.730 0.600–0.900 I, II, V2",
        "mean lead II 4 9 0.250 0.625 1.000 –",
        "measured on simulated ECGs, what was published on real ones",
    ):
        assert said in words, said


def test_every_chart_is_true_to_its_number(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    row = html[html.index("100 % of labels</dt>") :]
    mark = html[html.index("<dt>NORM (3)</dt>") :]
    assert float(re.search(r'class="mark" style="left: ([\d.]+)%', mark)[1]) == pytest.approx(100 * (0.741 - 0.4) / 0.6, abs=0.01)
    bar, chance, whisker = (
        [float(x) for x in re.findall(r"[\d.]+(?=%)", tag)] for tag in re.findall(r"<i[^>]*></i>", row)[:3]
    )  # on a scale from 0.4 to 1
    assert bar == pytest.approx([100 * 0.1 / 0.6, 100 * 0.334 / 0.6], abs=0.01)
    assert chance == pytest.approx([100 * 0.1 / 0.6], abs=0.01)
    assert whisker == pytest.approx([100 * 0.394 / 0.6, 100 * 0.07 / 0.6], abs=0.01)
    below = html[html.index("zero-shot</dt>") :]
    left, width = (float(x) for x in re.findall(r"[\d.]+(?=%)", re.findall(r"<i[^>]*></i>", below)[0]))
    low = 0.4  # the lowest end of an interval, 0.406, rounded down
    assert (left, left + width) == pytest.approx((100 * (0.456 - low) / (1 - low), 100 * (0.5 - low) / (1 - low)), abs=0.02)


def test_pages_ask_for_nothing_and_escape_everything(page: Path, shard_page: Path) -> None:
    for file in (page, shard_page):
        reader = Reader(file)
        assert not reader.tags & {"script", "iframe", "img", "object", "form"}
        assert all(link.startswith(("data:", "#")) for link in reader.links)
        assert NASTY in reader.words
        assert "default-src 'none'" in file.read_text(encoding="utf-8")


def test_patient_ids_stay_out(page: Path, shard_page: Path, shards: Path, tmp_path: Path) -> None:
    patients = set(ShardFolder(shards).column("patient_id"))
    assert patients
    for file in (page, shard_page):
        shown = set(re.findall(r"[\w.-]+", Reader(file).words))
        assert not shown & patients, "a patient id is on the page"
        assert "PATIENT-7" not in file.read_text(encoding="utf-8")
    one = Example("x", np.zeros((12, 1000)), patient_id="PATIENT-7")
    assert "PATIENT-7" in write_shard_page(tmp_path / "x.html", inspect(shards), examples=[one], with_ids=True).read_text(encoding="utf-8")


def test_the_shard_page_says_what_the_shards_hold(shard_page: Path, shards: Path) -> None:
    words = Reader(shard_page).words
    assert "60 rows read, 60 recordings kept" in words
    assert "SIMULATED" in words
    assert "flat lead" in words
    assert "Length of reports" in words
    assert "Heart rate" in words
    assert "Amplitude" not in words, "an empty distribution is drawn"
    for name, count in inspect(shards)["classes"].items():
        assert f"{name} {count}" in words


def test_what_was_kept_is_drawn(full_page: Path) -> None:
    text, words = full_page.read_text(encoding="utf-8"), Reader(full_page).words
    told = ("ROC curves, 100 % of labels", "calibration, 100 % of labels", "MI 1.000", "class texts and true classes", "A map of the")
    for said in (*told, "AUC. random init, 2 fits. Dashed: chance."):
        assert said in words, said
    assert '<td class="n own" style="--warm: 60%">1.25</td>' in text
    assert "not a probability" in words
    assert NASTY not in text


@pytest.mark.parametrize("kind", [".md", ".csv", ".tex"])
def test_the_numbers_alone(run: Path, tmp_path: Path, kind: str) -> None:
    text = report([run, run], tmp_path / f"report{kind}").read_text(encoding="utf-8")
    assert text.count("tiny-1") >= 2 * 28
    assert "0.834" in text
    assert kind == ".csv" or "simulated data" in text
    assert NASTY not in text or kind == ".csv"


def test_a_result_of_another_version_is_named_not_guessed(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "results").mkdir(parents=True)
    (old / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    (old / "results" / "probe-form.json").write_text(json.dumps({"task": "form", "protocol": "strict", "fractions": [{"fraction": 1.0}]}))
    later = {"task": NASTY, "protocol": "strict", "fractions": []}
    (old / "results" / "probe-later.json").write_text(json.dumps(later))
    (old / "results" / "curves").mkdir()
    (old / "results" / "curves" / "leads-form.json").write_text(json.dumps({"task": "form", "protocol": "strict", "points": [{}]}))
    for kind in (".html", ".md"):
        text = report([old], tmp_path / f"old{kind}").read_text(encoding="utf-8").replace("\\", "")
        assert "probe-form.json is left out: it has no baselines, ci95" in text
        assert "leads-form.json is left out: it has no baselines, ci95" in text
        assert "probe-later.json is left out: this version knows no task &lt;script&gt;" in text
    with pytest.raises(InputError, match=r"written as \.html, \.csv"):
        report([old], tmp_path / "old.pdf")


def test_two_runs_stand_side_by_side_and_a_tuned_one_apart(run: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned"
    (tuned / "results").mkdir(parents=True)
    facts = json.loads((run / "recipe.json").read_text()) | {"finetuned_from": str(run), "shards": [str(tmp_path / "gone")]}
    (tuned / "recipe.json").write_text(json.dumps(facts))
    facts = {"task": "form", "protocol": "finetune", "recipe": {"tune": {"layers": 2}}, "fractions": [entry(1.0, 0.777)]}
    (tuned / "results" / "finetune-form.json").write_text(json.dumps(facts))
    words = Reader(report([run, tuned], tmp_path / "two.html")).words
    assert "tiny-1 pre-trained strict measured – 0.710 0.834 – – tiny-1 random init" in words
    assert "tuned fine-tuned finetune, last 2 layers measured – – – – 0.777" in words
    assert words.count("How it was made") == 2
    assert words.count("Linear probe") == 2, "its link and its heading: the tuned run has none"
    assert "Fine-tuning The encoder, or a part of it, was trained on the labels" in words
    assert "48 labelled ECGs trained on" in words
    assert "shards that cannot be read are not told of, and no ECG is drawn" in words


def test_a_run_that_has_only_begun(run: Path, tmp_path: Path) -> None:
    young = tmp_path / "young"
    young.mkdir()
    (young / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    words = Reader(report([young], tmp_path / "young.html")).words
    assert "not probed yet: cmelt probe" in words
    assert "0 steps" in words


def test_what_is_wrong_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a run folder"):
        report([], tmp_path / "x.html")
    with pytest.raises(CheckpointError, match=r"recipe\.json: cannot be read"):
        report([tmp_path / "nowhere"], tmp_path / "x.html")
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        report([tmp_path], tmp_path / "x.html")
    assert not list(tmp_path.glob("x.html*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_page(tmp_path / "file" / "x.html", "report.html", title="", chapters=[], matrices=[], compared=[])


def test_rebuilding_returns_what_the_loss_compares(model: CMELT, shards: Path) -> None:
    folder = ShardFolder(shards)
    ecg_mv = folder.ecg_mv([0])[0]
    true, rebuilt, hidden = rebuild(model, ecg_mv, "sinus rhythm")
    window = ecg_mv[:, : true.shape[1]]
    scaled = (window - window.mean(axis=1, keepdims=True)) / np.sqrt(window.var(axis=1, ddof=1, keepdims=True) + 1e-6)
    assert true == pytest.approx(scaled, abs=1e-4)
    count = model.ecg_token_count()
    assert hidden.mean() == 1 - int(count * (1 - model.config.mem_prob)) / count
    assert (rebuilt[~hidden] == true[~hidden]).all()
    noise = torch.rand((1, count), generator=torch.Generator().manual_seed(0))
    ids = torch.from_numpy(model.require_tokenizer().encode_padded(["sinus rhythm"])[0].astype(np.int64))
    ecg, one = torch.from_numpy(ecg_mv)[None], torch.ones(1, dtype=torch.int64)
    batch = Batch(ecg, ecg, ids, torch.zeros_like(ids, dtype=torch.bool), torch.full_like(ids, -100), noise, one, one, one)
    with torch.no_grad():
        loss = total_loss(model.eval(), model(batch, {"mem"}), batch, ObjectiveSettings(mlm=0, etm=0, ets=0))[0]
    assert ((true - rebuilt)[hidden] ** 2).mean() == pytest.approx(float(loss), rel=1e-4)


def test_cosine() -> None:
    assert cosine(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 3.0], [-1.0, 0.0]]))[0] == pytest.approx([0, 0.5**0.5, -1])


@pytest.fixture(scope="module")
def browser() -> Any:
    """Return a headless Chromium, or skip, saying so."""
    if chromium.FOUND is None:
        pytest.skip("no Chromium installed: pages are not looked at in a browser")
    with chromium.Chromium() as browser:
        yield browser


@pytest.mark.browser
@pytest.mark.parametrize("name", ["full_page", "shard_page"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(browser: chromium.Chromium, name: str, dark: bool, width: int, request: pytest.FixtureRequest) -> None:
    file: Path = request.getfixturevalue(name)
    browser.requests.clear(), browser.console.clear()
    browser.open(file, width, dark)
    assert browser.requests == [file.resolve().as_uri()], "the page asks for more than itself"
    assert browser.console == [], "the browser complains"
    assert browser.evaluate("document.documentElement.scrollWidth") == width, "the page is wider than the window"
    background, ink = browser.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg text')).fill]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, ink)]
    assert (brightness[0] < brightness[1]) == dark, "the pictures do not follow the page's theme"
    assert browser.evaluate("document.querySelectorAll('.picture.paper svg').length") >= 3
    shown = "[...document.querySelectorAll('.card')].every(c => c.getBoundingClientRect().right <= innerWidth)"
    assert browser.evaluate(shown), "a card sticks out"


@pytest.mark.browser
def test_the_browser_test_can_fail(browser: chromium.Chromium, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<title>x</title><div style='width: 900px'>wide</div><img src='missing.png'><script>console.error('no'); f()</script>")
    browser.requests.clear(), browser.console.clear()
    browser.open(bad, 400)
    assert len(browser.requests) > 1
    assert len(browser.console) > 1
    assert browser.evaluate("document.documentElement.scrollWidth") > 400
