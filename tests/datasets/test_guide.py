"""The guide 'add a data set' is followed to the letter: its file, its line, its command."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from cmelt.datasets import DATASETS, list_datasets
from cmelt.errors import REASONS
from cmelt.record import FLAGS
from tests.datasets import layouts
from tests.datasets.test_families import shards

DOCS = Path(__file__).parents[2] / "docs"


def test_a_family_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, line = re.findall(r"```python\n(.*?)```", (DOCS / "guides/add-a-dataset.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "clinic.py").write_text(file, encoding="utf-8")
    name, where = re.fullmatch(r'"(\S+)": "(\S+)",', line.strip()).groups()  # type: ignore[union-attr]
    monkeypatch.setitem(DATASETS, name, where)
    module = where.partition(":")[0]
    spec = importlib.util.spec_from_file_location(module, tmp_path / "clinic.py")
    assert spec
    assert spec.loader
    monkeypatch.setitem(sys.modules, module, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[module])
    for number in range(3):
        layouts.write_wfdb(tmp_path / f"raw/ecgs/e{number}", np.random.default_rng(number).normal(0, 0.4, (12, 5000)), 500)
    rows = [{"file": f"e{number}", "patient": number // 2, "text": "Sinus Rhythm"} for number in range(4)]
    layouts.write_csv(tmp_path / "raw/list.csv", rows)
    summary, folder, found = shards(name, tmp_path / "raw", tmp_path / "out")
    assert (summary.kept, summary.refused) == (3, {"missing_file": 1})
    assert found["e0"]["report"].startswith("sinus rhythm")
    assert found["e0"]["split"] == found["e1"]["split"]
    assert folder.manifest["dataset"] == "clinic"
    assert list_datasets()[-1]["name"] == "clinic"


def test_the_reference_names_every_family_and_nothing_unknown() -> None:
    text = (DOCS / "reference/datasets.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in DATASETS)
    table = text.partition("| flag | when |")[2].partition("\n\n")[0]
    flags = {flag for row in table.splitlines()[2:] for flag in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert flags <= FLAGS.keys()
    assert "no_split" in REASONS


def test_every_family_was_measured_on_real_recordings() -> None:
    figures = json.loads((DOCS / "results/families.json").read_text(encoding="utf-8"))["figures"]["families"]
    assert {row["family"] for row in figures} == set(DATASETS)
    assert all(row["kept"] + sum(row["refused"].values()) == row["rows"] for row in figures)
