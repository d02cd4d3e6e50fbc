"""Kill a pre-training at random steps and compare with one that nothing disturbed: python -m tests.benchmarks.kill_pretrain [--kills N].

Every time the run is killed with SIGKILL, at a random moment after it has taken a step, and resumed, until that was done N times; then
it is let go on. Held equal bit for bit: every line of metrics (losses of every step), every batch that was trained on (a digest of its
samples, reports and masks), the chosen model, and the last training state with the optimiser's moments.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file
from torch import equal

from cmelt.config import IngestRecipe
from cmelt.ingest import ingest
from tests.benchmarks.results import options, tell
from tests.conftest import write_raw

CODE = """
import json, sys, zlib
from pathlib import Path
import cmelt.pretrain as verb
from cmelt.config import load_recipe
from cmelt.training.distributed import TrainingPass
shards, run, sets = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
order = run.with_name(run.name + "-order.txt").open("a")
forward, backward, steps = TrainingPass.forward, verb.backward, []

def noted(self, batch):
    digest = 0
    for name in ("ecg", "text_ids", "mlm_labels", "mask_noise", "is_aligned", "report_id", "text_report_id"):
        digest = zlib.crc32(getattr(batch, name).numpy().tobytes(), digest)
    print(steps[-1], digest, file=order, flush=True)
    return forward(self, batch)

def stepped(accelerator, trained, batches, recipe, step):
    steps.append(step)
    told = backward(accelerator, trained, batches, recipe, step)
    print(step, flush=True)
    return told

TrainingPass.forward, verb.backward = noted, stepped
verb.pretrain([shards], load_recipe("pretrain", "tiny", sets), run, resume=(run / "recipe.json").exists(), quiet=True)
"""

SETTINGS = [
    *("model.ecg_width=16", "model.ecg_layers=1", "model.ecg_heads=2", "model.ecg_ffn=32", "model.position_groups=2"),
    *("model.conv_layers=[[8,4,4],[8,4,4]]", "model.position_kernel=8", "model.width=16", "model.fusion_heads=2"),
    *("model.decoder_width=16", "model.decoder_blocks=1", "model.decoder_heads=2", "model.tokenizer_vocab=60"),
    "model.text_config={d_model=16,d_kv=8,d_ff=16,num_layers=1,num_heads=2,feed_forward_proj='gated-gelu'}",
    *("model.ecg_dropout=0.1", "model.fusion_dropout=0.1", "train.ema=0.99", "train.trackers=[]"),
    *("train.batch=16", "train.log_every=1", "train.save_every=7", "train.validate_every=5", "optim.lr=1e-3"),
]


def start(script: Path, shards: Path, run: Path, steps: int) -> subprocess.Popen[str]:
    """Start, or resume, the run in a process of its own."""
    command = [sys.executable, str(script), str(shards), str(run), json.dumps([*SETTINGS, f"train.steps={steps}"])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str]) -> None:
    """Wait until a run has ended well."""
    _, said = child.communicate()
    assert child.returncode == 0, said


def disturb(script: Path, shards: Path, run: Path, steps: int, kills: int, rng: random.Random) -> list[int]:
    """Train in spite of `kills`; returns the last step that each life of the run had begun when it was killed."""
    last: list[int] = []
    while len(last) < kills:
        child = start(script, shards, run, steps)
        assert child.stdout
        wanted = rng.randint(1, max(2, 3 * steps // (2 * kills)))  # so many steps in this life, on average steps / kills
        begun = [line for line, _ in zip(child.stdout, range(wanted), strict=False)]
        if len(begun) < wanted:  # done before its time
            finish(child)
            return last
        time.sleep(rng.uniform(0, 0.05))  # anywhere in the next one, or in a save
        child.kill()
        child.communicate()
        last.append(int(begun[-1]))
    finish(start(script, shards, run, steps))
    return last


def lines(run: Path) -> list[dict[str, float]]:
    """Return metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in {"samples_per_s", "data_wait", "memory_mb"}} for row in rows]


def batches(run: Path) -> dict[int, int]:
    """Return the digest of the batch of each step; what was trained on twice must have been the same twice."""
    found: dict[int, int] = {}
    for line in run.with_name(run.name + "-order.txt").read_text().splitlines():
        step, digest = map(int, line.split())
        assert found.setdefault(step, digest) == digest, f"step {step} had other samples when it came again"
    return found


def compare(calm: Path, run: Path) -> dict[str, int]:
    """Hold two runs equal bit for bit; returns how much was compared."""
    assert lines(calm) == lines(run)
    assert batches(calm) == batches(run)
    assert (calm / "chosen.json").read_text() == (run / "chosen.json").read_text()
    tensors = 0
    for file in sorted(calm.rglob("*.safetensors")):
        one, other = load_file(file), load_file(run / file.relative_to(calm))
        assert one.keys() == other.keys(), file
        assert all(equal(one[name], other[name]) for name in one), file
        tensors += len(one)
    return {"lines": len(lines(calm)), "batches": len(batches(calm)), "tensors": tensors}


def measure(folder: Path, steps: int, kills: int, seed: int) -> dict[str, object]:
    """Return how often a run was killed, at which steps, and what was compared; raises AssertionError for a difference."""
    write_raw(folder / "raw", 60)
    recipe = IngestRecipe.model_validate({"signal": {"fs_hz": 100, "duration_s": 4}, "shards": {"samples_per_shard": 25}})
    ingest("ptbxl", folder / "raw", folder / "shards", recipe, workers=1)
    script = folder / "run.py"
    script.write_text(CODE)
    finish(start(script, folder / "shards", folder / "calm", steps))
    last = disturb(script, folder / "shards", folder / "run", steps, kills, random.Random(seed))
    return {"steps": steps, "kills": len(last), "killed_after_step": last, **compare(folder / "calm", folder / "run")}


def main() -> None:
    """Kill, compare, and print what befell."""
    parser = options(__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.steps, given.kills, given.seed)
    tell("kill-pretrain", found, given)


if __name__ == "__main__":
    main()
