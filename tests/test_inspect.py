"""Inspect: what it counts is what the folder holds; the picture is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cmelt.config import load_recipe
from cmelt.errors import ShardError
from cmelt.ingest import ingest
from cmelt.inspect import inspect, plot, table
from cmelt.shards.read import ShardFolder


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
    assert found["refused_first"]["missing_file"].startswith("00002_hr: records500/")
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
