"""The SLURM script: hands a signal on, queues the job again once the run has saved, and goes on with it; with made-up SLURM commands."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.conftest import REPOSITORY

COMMANDS = {
    "scontrol": 'case $1 in show) echo node7;; *) echo "$@" >> "$LOG";; esac',
    "srun": 'shift; export SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=1; exec "$@"',
    "cmelt": 'echo "$@ $RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR" >> "$LOG"; trap "echo saved >> $LOG; exit 0" USR1\n'
    '[ -n "$FAIL" ] && exit 2; [ -z "$WAIT" ] && exit 0; echo ready; while :; do read -t 0.1 < /dev/zero; done',
}


def test_the_script_saves_requeues_and_resumes(tmp_path: Path) -> None:
    for name, code in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    run, log = tmp_path / "run", tmp_path / "log"
    run.mkdir()
    command = ["bash", str(REPOSITORY / "pipelines/slurm/pretrain.sbatch"), str(run), "--shards", "S"]
    base = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n", "FAIL": ""}

    child = subprocess.Popen(command, env=base | {"WAIT": "1"}, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGUSR1)
    assert child.wait(60) == 0
    child.stdout.close()
    assert log.read_text().splitlines() == [f"pretrain --out {run} --shards S 1/2 1 node7", "saved", "requeue 12"]

    (run / "recipe.json").touch()
    log.unlink()
    assert subprocess.run(command, env=base | {"WAIT": ""}).returncode == 0
    assert log.read_text().splitlines() == [f"pretrain --out {run} --resume --shards S 1/2 1 node7"]  # done: not queued again
    assert subprocess.run(command, env=base | {"WAIT": "", "FAIL": "1"}).returncode == 2
