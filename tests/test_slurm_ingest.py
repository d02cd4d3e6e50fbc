"""The SLURM script of an ingest, with a made-up srun: a real Dask scheduler and worker, the same bytes, nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from cmelt.ingest import ingest
from tests.conftest import REPOSITORY
from tests.test_ingest import files_of, recipe


def test_a_job_ingests_and_cleans_up(make_raw: Callable[..., Path], tmp_path: Path) -> None:
    raw, place = make_raw(12), tmp_path / "place"
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    place.mkdir()
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin/srun"
    srun.write_text('#!/bin/sh\nexec "$@" --local-directory scratch\n')
    srun.chmod(0o755)
    settings = ["--set", "signal.duration_s=4", "--set", "shards.samples_per_shard=5"]
    command = ["bash", str(REPOSITORY / "pipelines/slurm/ingest.sbatch"), "ptbxl", str(raw), "out", *settings]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{REPOSITORY / '.venv/bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    log = tmp_path / "log"
    with log.open("w") as told:  # no pipe: a worker that is still closing would hold it open
        done = subprocess.run(command, cwd=place, env=environment, stdout=told, stderr=told, timeout=240)
    assert not done.returncode, log.read_text()
    assert files_of(place / "out") == files_of(tmp_path / "whole")
    assert {path.name for path in place.iterdir()} <= {"out", "scratch"}
    with log.open("w") as told:
        wrong = subprocess.run([*command, "--limit", "0"], cwd=place, env=environment, stdout=told, stderr=told, timeout=240)
    assert wrong.returncode == 2
    assert not list(place.glob("*.json"))
