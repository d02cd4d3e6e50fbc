"""Inspect: what it counts is what the folder holds; the picture is drawn."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cmelt.config import load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.inspect import EXAMPLES, WORST, inspect, page, plot, table, worst_flagged
from cmelt.shards.read import ShardFolder
from tests.conftest import beats


@pytest.fixture
def folder(make_raw: Callable[..., Path], tmp_path: Path) -> Path:
    raw = make_raw(8)
    (raw / "records500/00000/00002_hr.hea").unlink()
    ingest("ptbxl", raw, tmp_path / "out", load_recipe("ingest", "clinical", ["signal.duration_s=5"]), workers=1)
    return tmp_path / "out"


def test_counts_and_signal_statistics(folder: Path) -> None:
    found = inspect(folder)
    assert found["counts"]["kept"] == 7
    assert found["counts"]["refused"] == {"missing_file": 1}
    assert found["counts"]["flags"]["padded"] == 7
    assert found["classes"] == {"NORM": 4, "MI": 3, "STTC": 0, "CD": 0, "HYP": 0}
    assert found["refused_first"]["missing_file"].startswith("00002_hr: …/00002_hr")
    assert inspect(folder, with_ids=True)["refused_first"]["missing_file"].startswith("00002_hr: records500/")
    assert (found["patients"], found["sex"], found["devices"]) == (5, {"female": 4, "male": 3}, {"CS-12 E": 7})
    ecg = ShardFolder(folder).ecg_mv(range(7))
    for row, of in enumerate(found["signal"]["leads"].values()):
        assert of["sd"] == pytest.approx(ecg[:, row].std(), abs=1e-4)
        assert of["p99"] == pytest.approx(np.percentile(ecg[:, row], 99), abs=2e-3)


def test_the_table_shows_every_count(folder: Path) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(inspect(folder)))
    text = console.export_text()
    for words in ("7 of 8 recordings", "class NORM", "flag padded", "missing_file", "split train", "aVR"):
        assert words in text


def test_a_record_is_drawn(folder: Path, tmp_path: Path) -> None:
    assert plot(folder, "00001_hr", tmp_path / "ecg.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ShardError, match="no record '00011_hr'; did you mean '00001_hr'"):
        plot(folder, "00011_hr", tmp_path / "other.png")


def test_the_page_holds_distributions_and_twelve_examples(
    make_raw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_raw(20, seconds=10)
    for number, flat in ((3, 1), (5, 3)):  # leads that do not change
        file = raw / f"records500/00000/{number:05d}_hr.dat"
        samples = np.fromfile(file, "<i2").reshape(-1, 12)
        samples[:, 6 : 6 + flat] = 0
        samples.tofile(file)
    ingest("ptbxl", raw, tmp_path / "out", load_recipe("ingest", "clinical", []), workers=1)
    text = page(tmp_path / "out", tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("12-lead ECG of record") == EXAMPLES
    assert text.index("worst flagged") < text.index("largest: ") < text.index("drawn at random")
    assert "75 a minute" in text  # a beat every 0.8 s
    for words in ("Length of reports", "Heart rate", "<dt>German</dt>", "flat lead"):
        assert words in text
    assert "patient 10" not in text
    monkeypatch.setattr("cmelt.inspect.EXAMPLES", 2)
    assert "patient 10" in page(tmp_path / "out", tmp_path / "ids.html", with_ids=True).read_text(encoding="utf-8")
    flags = ShardFolder(tmp_path / "out").column("flags")
    worst = worst_flagged(ShardFolder(tmp_path / "out"))
    assert 0 < len(worst) <= WORST
    assert "flat_lead" in flags[next(iter(worst))]


def test_own_files_named_after_patients_are_not_told(tmp_path: Path) -> None:
    raw = tmp_path / "raw/Doe_Jane_4711"
    raw.mkdir(parents=True)
    for name in ("Doe_Jane_1", "Doe_Jane_2"):
        ecg = beats(np.random.default_rng(1), 4, 500).T.astype("<i2")
        np.save(raw / f"{name}.npy", ecg)
    (raw / "Doe_Jane_3.npy").write_bytes((raw / "Doe_Jane_1.npy").read_bytes()[:999])
    about = {"fs_hz": 500, "unit": "uV", "patient": "4711", "report": "Jane, 4711: sinus rhythm"}
    (raw / "layout.json").write_text(json.dumps(about))
    ingest("files", tmp_path / "raw", tmp_path / "out", load_recipe("ingest", "paper", ["signal.duration_s=4"]), workers=1)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(inspect(tmp_path / "out")))
    texts = [page(tmp_path / "out", tmp_path / "page.html").read_text(encoding="utf-8"), console.export_text()]
    for text in texts:
        assert "Doe" not in text
        assert "4711" not in text
    assert "truncated: recording" in texts[1]
    shown = page(tmp_path / "out", tmp_path / "ids.html", with_ids=True).read_text(encoding="utf-8")
    assert "Doe_Jane_1" in shown
    assert "patient 4711" in shown
