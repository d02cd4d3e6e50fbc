"""The guides 'add an objective' and 'add a task' are followed to the letter: their files, their lines."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from pydantic import Field, create_model

from cmelt import labels
from cmelt.config import ObjectiveSettings
from cmelt.labels import TASKS, class_texts, load_vocabulary, read_table
from cmelt.objectives import OBJECTIVES, total_loss, wanted
from tests.conftest import REPOSITORY
from tests.pairs import small_batch, small_model, some_reports


def blocks(page: str) -> list[str]:
    """Return the texts of the blocks of a guide that this file runs."""
    text = (REPOSITORY / "docs/guides" / page).read_text(encoding="utf-8")
    return re.findall(r"<!-- run by tests/house/test_guides.py -->\n```\w+\n(.*?)```", text, re.DOTALL)


def registry_line(text: str) -> tuple[str, str]:
    """Return the name of a registry line, and what follows it."""
    found = re.fullmatch(r'"(\S+)": (.*),', text.strip())
    assert found
    return found[1], found[2]


def test_an_objective_is_one_file_one_line_and_its_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, line, weight = blocks("add-an-objective.md")
    name, where = registry_line(line)
    monkeypatch.setitem(OBJECTIVES, name, where.strip('"'))
    module = where.strip('"').partition(":")[0]
    (tmp_path / "spread.py").write_text(file, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(module, tmp_path / "spread.py")
    assert spec
    assert spec.loader
    monkeypatch.setitem(sys.modules, module, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules[module])
    assert weight.strip().startswith(f"{name}: float = Field(0.0, ge=0)")
    kind = create_model("More", __base__=ObjectiveSettings, **{name: (float, Field(0.0, ge=0))})  # type: ignore[call-overload]

    model = small_model(reports=some_reports()).eval()
    batch = small_batch(model, some_reports(), 6)
    totals = []
    for settings in (kind(), kind(**{name: 10.0})):
        total, parts = total_loss(model, model(batch, wanted(settings)), batch, settings)
        totals.append(total.item())
        assert (name in parts) == bool(getattr(settings, name))
    assert totals[1] == pytest.approx(totals[0] + 10 * parts[name].item(), rel=1e-5)
    assert parts[name] > 0


def test_a_task_is_one_table_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    table, line, words = blocks("add-a-task.md")
    name, rest = registry_line(line)
    assert rest == '("site", lambda row: row["class"])'
    monkeypatch.setitem(TASKS, name, ("site", lambda row: row["class"]))
    rows = list(csv.DictReader(one for one in table.splitlines() if not one.startswith("#")))
    known = read_table("texts")
    more = [dict(zip(known[0], row, strict=True)) for row in csv.reader(words.splitlines())]
    tables = {"site": rows, "texts": [*known, *more]}
    monkeypatch.setattr(labels, "read_table", lambda which: tables.get(which) or read_table(which))
    assert load_vocabulary(name).classes == ("inferior", "anterior")
    assert load_vocabulary(name).targets([["IMI", "AFIB"], ["ASMI"], ["NORM"]]).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert class_texts(name)["anterior"]["reports"].count(" | ") == 1
