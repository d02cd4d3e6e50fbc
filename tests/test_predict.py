"""One ECG through a checkpoint: what it resembles, what its leads contribute, and what is said where that cannot be told."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cmelt.config import SignalSettings
from cmelt.errors import CheckpointError, InputError, OutputError, ShardError, TaskError
from cmelt.models.cmelt import CMELT
from cmelt.plots import plot_ecg
from cmelt.predict import WARNING, predict, see, table
from cmelt.record import LEADS
from cmelt.shards.read import ShardFolder
from tests.conftest import MakeShards, beats, write_record
from tests.made import SAMPLES
from tests.pairs import small_model

TEXTS = ("normal ecg", "atrial fibrillation", "left axis deviation")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the header of a WFDB record of 4 s at 500 Hz."""
    stem = tmp_path_factory.mktemp("raw") / "one"
    write_record(stem, beats(np.random.default_rng(0), 4.0, 500), 500)
    return stem.with_name("one.hea")


def test_similarities_contributions_and_reports(recording: Path, run: Path, shards: Path, tmp_path: Path) -> None:
    result = predict(recording, run, texts=TEXTS, explain="atrial fibrillation", plot=tmp_path / "one.png", quiet=True)
    model, folder = CMELT.from_pretrained(run), ShardFolder(shards)
    seen = see(recording, model.config.conditioning)
    assert seen.signal_mv.shape == (12, 320)
    ecg, text = model.encode_ecg(seen.signal_mv), model.encode_text(TEXTS)
    cosine = torch.cosine_similarity(ecg, text)
    found = {row["class"]: row for row in result["classes"]}
    assert [found[name]["cosine"] for name in TEXTS] == pytest.approx(cosine.tolist(), abs=1e-5)
    assert [row["cosine"] for row in result["classes"]] == sorted((row["cosine"] for row in result["classes"]), reverse=True)
    assert sum(row["share"] for row in result["classes"]) == pytest.approx(1, abs=1e-5)

    without = seen.signal_mv.copy()
    without[LEADS.index("V2")] = 0
    lost = cosine[1] - torch.cosine_similarity(model.encode_ecg(without), text)[1]
    assert result["contributions"]["V2"] == pytest.approx(float(lost), abs=1e-5)
    assert list(result["contributions"]) == list(LEADS)

    told = np.array(folder.column("report"))[folder.rows("train")]
    distinct, count = np.unique(told, return_counts=True)
    score = torch.cosine_similarity(ecg, model.encode_text(list(distinct))).numpy()
    order = np.argsort(-score)[:5]
    assert [row["report"] for row in result["reports"]] == list(distinct[order])
    assert [row["score"] for row in result["reports"]] == pytest.approx(list(score[order]), abs=1e-5)
    assert [row["recordings"] for row in result["reports"]] == list(count[order])
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(result))
    text_shown = console.export_text()
    assert WARNING in text_shown
    assert "atrial fibrillation" in text_shown
    json.dumps(result)


def test_entity_queries_are_told_where_there_are_any(recording: Path, run: Path, tmp_path: Path) -> None:
    assert predict(recording, run, texts=TEXTS, top=0, quiet=True)["entities"] == []
    model = small_model(samples=320, entity_heads=2)
    model.save_pretrained(tmp_path / "asking")
    result = predict(recording, tmp_path / "asking", texts=TEXTS, top=0, quiet=True)
    found = {row["entity"]: row["probability"] for row in result["entities"]}
    probable = model.entity_probabilities(see(recording, model.config.conditioning).signal_mv)[0]
    assert [found[code] for code in model.config.entities] == pytest.approx(probable.tolist(), abs=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(result))
    assert result["entities"][0]["words"] in console.export_text()


def test_a_report_that_two_folders_have_is_named_once(
    recording: Path, run: Path, shards: Path, make_shards: MakeShards, tmp_path: Path
) -> None:
    folders = [ShardFolder(make_shards(tmp_path / "few", n=30, seed=3, dataset="few")), ShardFolder(shards)]
    told = np.concatenate([np.array(folder.column("report"))[folder.rows("train")] for folder in folders])
    distinct, count = np.unique(told, return_counts=True)
    found = predict(recording, run, texts=TEXTS, shards=[folder.path for folder in folders], top=99, quiet=True)["reports"]
    assert {row["report"]: row["recordings"] for row in found} == dict(zip(distinct.tolist(), count.tolist(), strict=True))
    model = CMELT.from_pretrained(run)
    ecg = model.encode_ecg(see(recording, model.config.conditioning).signal_mv)
    score = torch.cosine_similarity(ecg, model.encode_text([row["report"] for row in found]))
    assert [row["score"] for row in found] == pytest.approx(score.tolist(), abs=1e-5)


def test_classes_come_from_a_task_or_a_file(recording: Path, run: Path, tmp_path: Path) -> None:
    by_task = predict(recording, run, "rhythm", top=0, quiet=True)
    assert {row["class"] for row in by_task["classes"]} >= {"AFIB", "SR"}
    assert by_task["explained"] == by_task["classes"][0]["class"]
    assert by_task["reports"] == []
    file = tmp_path / "mine.csv"
    file.write_text("class,text\nbroad,wide qrs\nbroad,qrs 160 ms\nfine,normal [ecg]\n")
    mine = predict(recording, run, classes=file, top=0, quiet=True)
    assert {row["class"]: row["texts"] for row in mine["classes"]} == {"broad": ["wide qrs", "qrs 160 ms"], "fine": ["normal [ecg]"]}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(mine))
    assert "normal [ecg]" in console.export_text(), "brackets are words, no markup"


def test_a_run_whose_shards_are_gone_says_so(recording: Path, run: Path, make_shards: MakeShards, tmp_path: Path) -> None:
    (run / "recipe.json").write_text(json.dumps({"shards": [str(tmp_path / "gone")]}))
    result = predict(recording, run, texts=TEXTS, quiet=True)
    assert result["reports"] == []
    assert "is not a folder" in result["without_reports"]
    (run / "recipe.json").unlink()
    assert "does not say what it was trained on" in predict(recording, run, texts=TEXTS, quiet=True)["without_reports"]
    other = make_shards(tmp_path / "other", n=30, dataset="files")
    assert len(predict(recording, run, texts=TEXTS, shards=[other], quiet=True)["reports"]) == 5
    with pytest.raises(ShardError, match="is not a folder"):
        predict(recording, run, texts=TEXTS, shards=[tmp_path / "gone"])
    with pytest.raises(CheckpointError, match="320 samples at 100 Hz, but"):
        predict(recording, run, texts=TEXTS, shards=[make_shards(tmp_path / "slow", n=10, fs_hz=50.0)])


def test_recordings_are_named_as_users_name_them(recording: Path, tmp_path: Path) -> None:
    settings = SignalSettings(fs_hz=100, duration_s=3.2)
    by_header = see(recording, settings)
    for name in ("one", "one.dat"):
        assert np.array_equal(see(recording.with_name(name), settings).signal_mv, by_header.signal_mv)
    mv = np.random.default_rng(1).normal(size=(12, 1000))
    np.save(tmp_path / "two.npy", mv)
    (tmp_path / "two.json").write_text('{"fs_hz": 250, "unit": "mV"}')
    seen = see(tmp_path / "two.npy", settings)
    assert (seen.signal_mv.shape, seen.fs_hz) == ((12, 320), 100)
    assert "cropped" in seen.flags
    header = recording.read_text().splitlines()
    (tmp_path / "few.hea").write_text("\n".join(["few 1 500 2000", header[2]]) + "\n")
    (tmp_path / "one.dat").write_bytes((recording.parent / "one.dat").read_bytes())
    few = see(tmp_path / "few.hea", settings, zero_missing=True)
    assert "leads_zeroed" in few.flags
    assert np.flatnonzero(few.signal_mv.any(1)).tolist() == [1]


def test_a_model_of_any_leads_takes_those_there_are(recording: Path, run: Path, tmp_path: Path) -> None:
    made = small_model(SAMPLES, ecg_encoder="lead-wise").eval()
    made.save_pretrained(tmp_path / "any")
    header = recording.read_text().splitlines()
    (tmp_path / "few.hea").write_text("\n".join(["few 2 500 2000", header[2], header[8]]) + "\n")  # II and V2
    shutil.copy(recording.with_suffix(".dat"), tmp_path / "one.dat")
    with pytest.raises(InputError, match="--zero-missing"):
        predict(tmp_path / "few.hea", run, texts=TEXTS, quiet=True)
    result = predict(tmp_path / "few.hea", tmp_path / "any", texts=TEXTS, top=0, quiet=True)
    assert [lead for lead, value in result["contributions"].items() if value] == ["II", "V2"]
    seen = see(tmp_path / "few.hea", made.config.conditioning, zero_missing=True).signal_mv
    cosine = torch.cosine_similarity(made.encode_ecg(seen), made.encode_text(TEXTS)).tolist()
    assert {row["class"]: row["cosine"] for row in result["classes"]} == pytest.approx(dict(zip(TEXTS, cosine, strict=True)), abs=1e-5)


def test_recordings_that_cannot_be_looked_at(recording: Path, run: Path, tmp_path: Path) -> None:
    settings = SignalSettings()
    with pytest.raises(InputError, match="no such recording"):
        see(tmp_path / "nowhere.hea", settings)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt: unreadable: neither a WFDB header"):
        see(tmp_path / "notes.txt", settings)
    (tmp_path / "alone.hea").write_text(recording.read_text())
    with pytest.raises(InputError, match=r"alone\.hea: missing_file"):
        see(tmp_path / "alone.hea", settings)
    (tmp_path / "few.hea").write_text("\n".join(["few 1 500 2000", recording.read_text().splitlines()[2]]) + "\n")
    (tmp_path / "one.dat").write_bytes((recording.parent / "one.dat").read_bytes())
    with pytest.raises(InputError, match=r"missing_leads: I III .*--zero-missing"):
        see(tmp_path / "few.hea", settings)
    for wrong, message in (
        ({"texts": TEXTS, "task": "rhythm"}, "give one of --task, --text and --classes"),
        ({"texts": ["x", " "]}, "a --text is empty"),
        ({"texts": TEXTS, "explain": "normal"}, "--explain 'normal'; did you mean 'normal ecg'"),
        ({"kind": "reprots"}, "no texts 'reprots'; did you mean 'reports'"),
    ):
        with pytest.raises(InputError, match=message):
            predict(recording, run, **wrong)
    with pytest.raises(TaskError, match="no task 'rythm'; did you mean 'rhythm'"):
        predict(recording, run, "rythm")


def test_a_lead_is_shaded_by_its_weight() -> None:
    weights = np.linspace(-0.2, 0.2, 12)
    figure = plot_ecg(np.random.default_rng(0).normal(0, 0.2, (12, 1000)), 100, weights=weights)
    shades = [shape.get_alpha() for shape in figure.axes[0].collections]
    assert shades == pytest.approx(0.35 * np.abs(weights).reshape(4, 3).T.ravel() / 0.2)
    assert {text.get_text() for text in figure.axes[0].texts} >= {"-0.200", "+0.200"}


def test_a_weight_stands_where_the_trace_leaves_room() -> None:
    beat = np.zeros((12, 1000))
    places = []
    for first in (900, 20):  # ms / 10: at the end, or where the number would begin; all leads as deep
        beat[:] = 0
        beat[:, first::250] = -1.2
        figure = plot_ecg(beat, 100, weights=np.ones(12))
        places.append([text.get_position()[0] for text in figure.axes[0].texts if text.get_text() == "+1.000"])
    assert len(places[0]) == 12
    assert all(second > first + 2 for first, second in zip(*places, strict=True))


def test_real_recordings_are_read_singly(realdata: Path) -> None:
    patterns = ("ptbxl/records500/*/*.hea", "cinc2021/training/*/*.hea", "cpsc2018/*/*.mat", "ptbdb/*.hea")
    found = [file for pattern in patterns for file in sorted(realdata.glob(pattern))[:1]]
    if not found:
        pytest.skip("no single recordings there")
    for file in found:
        assert np.abs(see(file, SignalSettings(fs_hz=100)).signal_mv).max() < 10, file


def test_a_picture_that_cannot_be_is_refused_before_anything_is_computed(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"one\.jpg: pictures are written as \.png, \.svg or \.pdf"):
        predict(recording, tmp_path / "no run", plot=tmp_path / "one.jpg", quiet=True)
