"""`pipelines/paper.sh`, the very script, in miniature: killed in the middle, gone on with, to its page; a dry run; SLURM by stand-ins."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from cmelt.config import load_recipe
from cmelt.shards.read import ShardFolder
from pipelines.paper import main, parse
from tests.conftest import REPOSITORY
from tests.papers import real_raw, simulated_raw

SETS = ["ingest.signal.fs_hz=100", "pretrain.train.steps=6", "pretrain.train.batch=16", "pretrain.train.validate_every=2"]
SETS += ["pretrain.train.save_every=2", "pretrain.train.trackers=[]", "finetune.tune.epochs=1"]
OPTIONS = ["--recipe", "tiny", "--workers", "1", "--protocols", "strict", "--leads", "12,1"]
OPTIONS += [part for change in SETS for part in ("--set", change)]
RESULTS = ("probe-superclass", "probe-rhythm", "probe-cinc2021", "zeroshot-superclass", "zeroshot-csn", "zeroshot-code", "people/identify")


@pytest.fixture(scope="module")
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the paper's raw folder in miniature: of real recordings where they are at hand, else of simulated ones."""
    place = tmp_path_factory.mktemp("paper") / "raw"
    try:
        return real_raw(request.getfixturevalue("realdata"), place)
    except pytest.skip.Exception:
        return simulated_raw(place)


def paper(raw: Path, *more: str) -> subprocess.Popen[str]:
    """Start the script beside `raw`."""
    command = ["sh", str(REPOSITORY / "pipelines/paper.sh"), "raw", "shards", "runs", *OPTIONS, *more]
    environment = os.environ | {"PATH": f"{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=raw.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_in_the_middle_it_goes_on_to_its_page(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = raw.parent / "runs"
    with paper(raw) as child:
        assert child.stdout
        for line in child.stdout:
            if line.startswith("val   step 4/"):
                child.kill()
    assert child.returncode == -9
    assert (runs / "tiny/state/step-000000002").is_dir()
    assert not (runs / "report.html").exists()
    (runs / "finetune-cinc2021-12-leads").mkdir()  # as if cut off while it was written
    (runs / "finetune-cinc2021-12-leads/head.safetensors").touch()

    with paper(raw) as child:
        assert child.stdout
        said = child.stdout.read()
    refused = [line for line in said.splitlines() if line.startswith("  not to be had")]
    assert child.returncode == (1 if refused else 0), said
    assert all("add recordings" in line or "no recording in the" in line for line in refused), refused
    assert said.count("] done: cmelt ingest") == 6
    assert "] done: cmelt verify" in said
    history = [entry["step"] for entry in json.loads((runs / "tiny/recipe.json").read_text())["history"]]
    assert history in ([0, 0, 2], [0, 0, 4])
    assert (runs / "finetune-cinc2021-12-leads.cut-off-1").is_dir()
    assert (runs / "finetune-cinc2021-1-leads/results/finetune-cinc2021.json").is_file()
    for name in RESULTS:
        assert json.loads((runs / f"tiny/results/{name}.json").read_text())["checkpoint"] == "runs/tiny"
    assert len(list((runs / "tiny/results").glob("*-*.json"))) + len(refused) >= 8 + 9
    leaks = json.loads((runs / "leaks.json").read_text())
    assert len(leaks["folders"]) == 6
    assert all(word in (runs / "report.html").read_text() for word in ("superclass", "finetune-cinc2021-1-leads"))
    assert all((runs / f"tables.{kind}").stat().st_size > 500 for kind in ("md", "csv", "tex"))
    # What is done is what each stage would be refused without, and what is not done again.
    assert main([*places(raw), *OPTIONS, "--stage", "report"]) == 0
    assert main([*places(raw), *OPTIONS, "--stage", "pretrain", "--part", "2"]) == 2
    for change, what in (
        ("--set=ingest.signal.fs_hz=250", "was made by another recipe"),
        ("--set=pretrain.optim.lr=1", "was trained by another"),
    ):
        assert main([*places(raw), *OPTIONS, change]) == 2
        assert what in capsys.readouterr().err


def places(raw: Path) -> list[str]:
    """Return RAW, SHARDS and RUNS."""
    return [str(raw.parent / name) for name in ("raw", "shards", "runs")]


def test_a_dry_run_tells_every_command_and_its_cost(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(raw), str(tmp_path / "shards"), str(tmp_path / "runs"), *OPTIONS, "--dry-run"]) == 0
    said = capsys.readouterr().out
    commands = [line for line in said.splitlines() if line.startswith("[")]
    costs = [line for line in said.splitlines() if line.startswith("    ") and ": about " in line]
    assert len(commands) == len(costs) + 1 == 6 + 1 + 2 + 8 + 9 + 2 + 2 + 1  # of the page nothing is measured
    assert all(f"cmelt {verb} " in said for verb in ("ingest", "verify", "pretrain", "probe", "zeroshot", "finetune", "identify", "report"))
    assert "Measured just now on this machine" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/ptb-xl").symlink_to(raw / "ptb-xl")
    some = [str(tmp_path / name) for name in ("raw", "shards", "runs")]
    assert main(some) == 2
    assert "pre-training reads mimic-iv-ecg, and there is no" in capsys.readouterr().err
    assert main([*some, "--train-on", "ptbxl", "--set", "train.steps=3"]) == 2
    assert "VERB.section.key=value" in capsys.readouterr().err
    assert main([*some, "--train-on", "ptbxl", "--stage", "tables"]) == 2
    told = capsys.readouterr()
    assert "csn: no " in told.out
    assert "stage tables builds on ingest, which is not done: cmelt ingest ptbxl" in told.err
    assert list(tmp_path.iterdir()) == [tmp_path / "raw"]


def test_the_guide_asks_for_what_there_is() -> None:
    page = (REPOSITORY / "docs/guides/paper.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("sh pipelines/paper.sh")]
    assert len(lines) == 5
    for asked in map(parse, lines):
        for verb, recipe in (("ingest", "paper"), ("pretrain", asked.recipe), ("finetune", "full")):
            load_recipe(verb, recipe, [change.partition(".")[2] for change in asked.set if change.startswith(f"{verb}.")])


def test_slurm_queues_each_stage_after_the_one_before(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A made-up sbatch writes down what it is asked and gives numbers; one part of the array is then run as SLURM would."""
    (log := tmp_path / "log").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text('#!/bin/sh\nn=$(($(ls "$LOG" | wc -l) + 1))\nprintf "%s\\n" "$@" > "$LOG/$n"\necho $n\n')
    (tmp_path / "bin/sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(log))
    some = [str(raw), str(tmp_path / "shards"), str(tmp_path / "runs")]
    more = ["--train-job=--nodes=2 --gpus-per-node=8 --ntasks-per-node=8", "--cpu-job=--partition=cpu"]
    assert main([*some, *OPTIONS, "--slurm", "--dry-run"]) == 0
    assert not list(log.iterdir())
    assert main([*some, *OPTIONS, "--slurm", *more]) == 0
    jobs = [(log / str(number)).read_text().splitlines() for number in range(1, 7)]
    ingest, leaks, reports, train, tables, report = jobs
    assert {"--array=1-6", "--partition=cpu", "--job-name=cmelt-ingest"} <= set(ingest)
    assert [next((part for part in job if "dependency" in part), "") for job in jobs] == [
        "",
        *(f"--dependency=afterok:{number}" for number in (1, 2, 3, 4)),
        "--dependency=afterany:5",
    ]
    assert {"--partition=cpu", "--stage", "leaks"} <= set(leaks)
    assert reports[-2:] == ["--stage", "reports"]
    assert train[train.index("--nodes=2") + 3] == str(REPOSITORY / "pipelines/slurm/pretrain.sbatch")
    assert train[train.index("--nodes=2") + 4 :][:3] == [str(tmp_path / "runs/tiny"), "--shards", str(tmp_path / "shards/mimic-iv-ecg")]
    assert {"--array=1-21", "--gpus=1"} <= set(tables)
    assert report[-2:] == ["--stage", "report"]

    script = ingest.index(str(REPOSITORY / "pipelines/slurm/stage.sbatch"))
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "4"}
    done = subprocess.run(["bash", *ingest[script:], "--limit", "5"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["csn"]
    assert len(ShardFolder(tmp_path / "shards/csn")) == 5
