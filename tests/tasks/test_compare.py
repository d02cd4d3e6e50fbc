"""Two results are compared in pairs, on what both have, and not where they do not fit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cmelt.errors import InputError, TaskError
from cmelt.tasks.compare import compare, read_predictions, table
from cmelt.tasks.results import Scored, write_results
from tests.paired import paired_bootstrap

CLASSES = ["a", "b", "never"]


def predictions(
    folder: Path, name: str, noise: float, n: int = 120, seeds: int = 2, fraction: float = 1.0, patients: bool = True, order: int = 0
) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """Write a prediction file whose scores are the truth with noise; return it with truth, scores (S, N, C) and patients."""
    rng = np.random.default_rng(3)
    truth = (rng.random((n, 3)) < [0.4, 0.2, 0]).astype(np.int8)
    who = np.arange(n) // 3
    scores = truth + noise * np.random.default_rng(int(noise * 10)).normal(size=(seeds, n, 3))
    shuffled = np.random.default_rng(order).permutation(n)
    keys = np.array([f"{number:04d}" for number in range(n)])
    scored = [Scored(fraction, seed, one[shuffled]) for seed, one in enumerate(scores)]
    write_results(folder, name, {}, keys[shuffled], truth[shuffled], CLASSES, scored, who[shuffled] if patients else None)
    return folder / f"{name}.parquet", truth, scores, who


def test_the_comparison_is_the_paired_bootstrap(tmp_path: Path) -> None:
    good, truth, a, who = predictions(tmp_path, "good", 0.5)
    poor, _, b, _ = predictions(tmp_path, "poor", 2.0, seeds=3, order=1)
    (entry,) = compare(good, poor)["shares"]
    expected = paired_bootstrap(truth, a, b, who)
    assert entry["difference"] == pytest.approx(expected.value, abs=1e-6)
    assert entry["ci95"] == pytest.approx(list(expected.ci95), abs=1e-6)
    assert entry["p"] == pytest.approx(expected.p, abs=1e-6)
    assert entry["p"] < 0.01
    assert entry["seeds"] == [2, 3]
    assert (set(entry["per_class"]), entry["left_out"]) == ({"a", "b"}, ["never"])
    one = paired_bootstrap(truth[:, :1], a[:, :, :1], b[:, :, :1], who)
    assert entry["per_class"]["a"]["ci95"] == pytest.approx(list(one.ci95), abs=1e-6)
    (back,) = compare(poor, good)["shares"]
    assert back["difference"] == pytest.approx(-entry["difference"])
    (same,) = compare(good, good)["shares"]
    assert (same["difference"], same["ci95"], same["p"]) == (0.0, [0.0, 0.0], 1.0)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table(compare(good, poor)))
    assert "never" in console.export_text()


def test_without_patients_each_recording_stands_alone(tmp_path: Path) -> None:
    told, *_ = predictions(tmp_path, "told", 1.0)
    untold, *_ = predictions(tmp_path, "untold", 1.0, patients=False)
    assert len(np.unique(read_predictions(told)[1.0].patients)) == 40
    assert len(np.unique(read_predictions(untold)[1.0].patients)) == 120


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    good, truth, scores, _ = predictions(tmp_path, "good", 0.5)
    keys = np.array([f"{number:04d}" for number in range(120)])
    write_results(tmp_path, "turned", {}, keys, 1 - truth, CLASSES, [Scored(1.0, 0, scores[0])])
    with pytest.raises(TaskError, match="do not agree on which recording has which class"):
        compare(good, tmp_path / "turned.parquet")
    some = np.array([f"{number:04d}" for number in range(50)])
    write_results(tmp_path, "some", {}, some, truth[:50], CLASSES, [Scored(1.0, 0, scores[0, :50])])
    (entry,) = compare(good, tmp_path / "some.parquet")["shares"]
    assert (entry["n_test"], entry["not_in_both"]) == (50, 70)
    other, *_ = predictions(tmp_path, "other", 0.5, fraction=0.1)
    with pytest.raises(TaskError, match=r"with 100% of the labels, .* with 10%: nothing to compare"):
        compare(good, other)
    write_results(tmp_path, "foreign", {}, np.array([f"x{n}" for n in range(120)]), truth, CLASSES, [Scored(1.0, 0, scores[0])])
    with pytest.raises(TaskError, match="no test recordings in common"):
        compare(good, tmp_path / "foreign.parquet")
    write_results(tmp_path, "renamed", {}, keys, truth, ["x", "y", "z"], [Scored(1.0, 0, scores[0])])
    with pytest.raises(TaskError, match="no classes in common"):
        compare(good, tmp_path / "renamed.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        compare(good, tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        compare(good, tmp_path / "good.json")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(InputError, match="no column 'fraction'"):
        compare(good, tmp_path / "index.parquet")
    whole = pq.read_table(good)
    pq.write_table(whole.slice(1), tmp_path / "cut.parquet")
    with pytest.raises(InputError, match="one score for each"):
        compare(good, tmp_path / "cut.parquet")
