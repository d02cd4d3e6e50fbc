"""The commands hand over what they were given; what they cannot do they say in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmelt.cli import app
from cmelt.errors import CmeltError

WRONG = {
    "probe --protocol strickt": "no protocol 'strickt'; did you mean 'strict'",
    "probe --leads IX": "no lead 'IX'",
    "probe --fractions 0,10": "'0,10' are no percentages",
    "probe --task rythm": "did you mean 'rhythm'",
    "probe --task rhythm": "has a label of task 'rhythm'",
    "probe --task form": "no class has positive and negative recordings",
    "probe --baselines nothing": "no baseline 'nothing'",
    "probe --splits .": "has no split files",
    "finetune --recipe ful": "no recipe 'ful' for finetune; did you mean 'full'",
    "finetune --set tune.layer=1": "unknown recipe key 'tune.layer'; did you mean 'tune.layers'",
    "identify --gallery x.csv": "a gallery list needs a probe list",
    "compare a.parquet b.parquet": "a.parquet cannot be read",
}


@pytest.mark.parametrize("line", WRONG)
def test_one_line_says_what_is_wrong(line: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command, *rest) = line.split()
    where = [] if command == "compare" else ["--run", str(run)]
    found = CliRunner().invoke(app, [command, *where, *rest])
    assert isinstance(found.exception, CmeltError), found.output
    assert WRONG[line] in str(found.exception)
    assert "\n" not in str(found.exception)


def test_several_tasks_and_protocols_are_one_command(run: Path) -> None:
    asked = [
        "probe",
        "--task=superclass,subclass",
        "--protocol=strict,melp-2025",
        "--fractions=100",
        "--baselines=none",
        "--leads=3",
        "--json",
    ]
    found = CliRunner().invoke(app, [*asked, "--run", str(run)], catch_exceptions=False)
    results = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(one["task"], one["protocol"]) for one in results] == [
        (task, protocol) for task in ("superclass", "subclass") for protocol in ("strict", "melp-2025")
    ]
    assert all(one["leads"] == ["I", "II", "V2"] and len(one["fractions"]) == 1 for one in results)
    files = [str(run / f"results/probe-superclass{name}-leads-I-II-V2.parquet") for name in ("", "-melp-2025")]
    found = CliRunner().invoke(app, ["compare", *files], catch_exceptions=False)
    assert "difference" in found.stdout
