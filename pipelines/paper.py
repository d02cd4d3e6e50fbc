"""The stages of `pipelines/paper.sh`: which commands make the paper's numbers, from what, into what; run, told or queued on SLURM.

Each step is a command of cmelt that could be typed as it is shown, with the files by which it is known to be done.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from click.exceptions import Abort, ClickException

from cmelt.cli import app
from cmelt.cli_options import console
from cmelt.config import RECIPES, IngestRecipe, PretrainRecipe, load_recipe, validate
from cmelt.datasets import dataset_class
from cmelt.errors import CmeltError, InputError
from cmelt.files import write_whole
from cmelt.record import LEAD_SETS

HERE = Path(__file__).resolve().parent
STAGES = ("ingest", "leaks", "reports", "pretrain", "tables", "report")
FOLDERS = {
    "mimic-iv-ecg": "mimic-iv-ecg",
    "ptbxl": "ptb-xl",
    "cpsc2018": "cpsc2018",
    "csn": "csn",
    "cinc2021": "cinc2021",
    "code-test": "code-test",
}
"""Data set → its folder (or zip) below RAW, and below SHARDS."""

PROBED = {
    "ptbxl": ("superclass", "subclass", "form", "rhythm"),
    "cpsc2018": ("cpsc2018",),
    "csn": ("csn", "csn-merl"),
    "cinc2021": ("cinc2021",),
}
ZEROSHOT = PROBED | {"code-test": ("code",)}
"""Data set → the tasks that are asked of it; CODE-test has test recordings only."""
TUNED, PEOPLE = "cinc2021", "ptbxl"
"""What is fine-tuned on, and whose patients are sought."""

PUBLISHED = (
    "negatives.mode=antipodal",
    "negatives.embeddings=hf:google/flan-t5-small",
    "objectives.mem_target=input",
    "objectives.ets_target=diagonal",
)
"""In what the published pre-training differs from recipe ``base``, whose defaults are what we found better."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command, the data set it reads, and the files that are there once it is done."""

    stage: str
    command: tuple[str, ...]
    done: tuple[Path, ...]
    data: str = ""

    def is_done(self) -> bool:
        """Say whether there is nothing left to do. A page is done where no result is newer."""
        if not all(file.exists() for file in self.done):
            return False
        if self.stage != "report":
            return True
        runs = [Path(part) for part in self.command[2 : self.command.index("--out")]]
        return all(file.stat().st_mtime_ns <= self.done[0].stat().st_mtime_ns for run in runs for file in run.glob("results/**/*.json"))

    def line(self) -> str:
        """Return the command as one types it."""
        return shlex.join(self.command) + (f" > {shlex.quote(str(self.done[0]))}" if self.stage == "leaks" else "")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(prog="paper.sh", description="Rerun the paper from raw data; see docs/guides/paper.md.")
    parser.add_argument("raw", type=Path, metavar="RAW", help="folder of the data sets' folders (or zips): " + ", ".join(FOLDERS.values()))
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="where shard folders are made")
    parser.add_argument("runs", type=Path, metavar="RUNS", help="where runs, tables and the page are made")
    parser.add_argument("--dry-run", action="store_true", help="print every command, with time, disk and memory by what is measured here")
    parser.add_argument("--slurm", action="store_true", help="queue the stages as SLURM jobs, each after the one before")
    parser.add_argument("--recipe", default="base", help="of pre-training; base has the published settings added (default: base)")
    parser.add_argument(
        "--train-on", default="mimic-iv-ecg", metavar="NAMES", help="data sets of pre-training, with commas (default: mimic-iv-ecg)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="VERB.A.B=C", help="change a recipe key, as pretrain.train.steps=100")
    parser.add_argument("--limit", type=int, metavar="N", help="ingest so many recordings of each data set")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of an ingest (default: one a core)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="processes of the pre-training on this machine (default: 1)")
    parser.add_argument("--protocols", default="strict,merl-2024", help="of the probes (default: strict,merl-2024)")
    parser.add_argument("--leads", default="12,6,4,3,2,1", help="lead sets of fine-tuning and identification (default: 12,6,4,3,2,1)")
    parser.add_argument("--stage", choices=STAGES, help="this stage alone; those before it must be done")
    parser.add_argument("--part", type=int, metavar="N", help="of --stage, the N-th command alone")
    parser.add_argument("--cpu-job", default="", metavar="OPTIONS", help="--slurm: options of sbatch for stages without a GPU")
    parser.add_argument("--train-job", default="--gpus-per-node=1", metavar="OPTIONS", help="--slurm: for pre-training, a task a GPU")
    parser.add_argument("--table-job", default="--gpus=1", metavar="OPTIONS", help="--slurm: for each of the tables")
    return parser.parse_args(arguments)


class Paper:
    """What is there, what is to be made of it, and where."""

    def __init__(self, asked: argparse.Namespace) -> None:
        """Look what lies in RAW; raises InputError where what pre-training reads is missing, RecipeError for a wrong ``--set``."""
        self.asked = asked
        places = {name: [asked.raw / folder, asked.raw / f"{folder}.zip"] for name, folder in FOLDERS.items()}
        self.raw = {name: place for name, two in places.items() for place in [p for p in two if p.exists()][:1]}
        self.missing = {name: asked.raw / folder for name, folder in FOLDERS.items() if name not in self.raw}
        self.changes: dict[str, list[str]] = {verb: [] for verb in RECIPES}
        for change in asked.set:
            verb, _, rest = change.partition(".")
            if verb not in self.changes or "=" not in rest:
                raise InputError(f"--set {change}: write it as VERB.section.key=value, VERB one of {', '.join(self.changes)}")
            self.changes[verb].append(rest)
        if asked.recipe == "base":
            self.changes["pretrain"][:0] = PUBLISHED
        self.ingest_recipe = load_recipe("ingest", "paper", self.changes["ingest"])
        self.pretrain_recipe = load_recipe("pretrain", asked.recipe, self.changes["pretrain"])
        self.finetune_recipe = load_recipe("finetune", "full", self.changes["finetune"])
        if wrong := [number for number in asked.leads.split(",") if number not in map(str, LEAD_SETS)]:
            raise InputError(f"--leads {wrong[0]}: name numbers of {', '.join(map(str, LEAD_SETS))}")
        self.trained_on = asked.train_on.split(",")
        for name in self.trained_on:
            about = dataset_class(name)
            if name not in self.raw:
                raise InputError(
                    f"pre-training reads {name}, and there is no {self.missing.get(name, asked.raw / name)} (nor .zip): {about.access}; "
                    "or name others with --train-on"
                )
        self.run = asked.runs / asked.recipe.rpartition("/")[2].removesuffix(".toml")
        self.check()

    def check(self) -> None:
        """Raise InputError where what is done already was done otherwise than is asked for now: it would be taken for the paper's."""
        for name in self.raw:
            if (file := self.shards(name) / "manifest.json").exists():
                made = json.loads(file.read_text(encoding="utf-8"))
                if (validate(IngestRecipe, made["recipe"], str(file)), made.get("limit")) != (self.ingest_recipe, self.asked.limit):
                    raise InputError(f"{file.parent} was made by another recipe or --limit; take another SHARDS, or remove it")
        if (file := self.run / "recipe.json").exists():
            trained = validate(PretrainRecipe, json.loads(file.read_text(encoding="utf-8"))["recipe"], str(file))
            if trained != self.pretrain_recipe and self.pretraining()[-1].is_done():
                raise InputError(f"{self.run} was trained by another recipe; take another RUNS, or remove it")

    def sets(self, verb: str) -> list[str]:
        """Return ``--set`` options for the changes of a verb's recipe."""
        return [part for change in self.changes[verb] for part in ("--set", change)]

    def shards(self, name: str) -> Path:
        """Return the shard folder of a data set."""
        folder: Path = self.asked.shards / FOLDERS[name]
        return folder

    def steps(self) -> list[Step]:
        """Return every step, in order."""
        steps = [*self.ingests(), self.leaks(), *self.pretraining(), *self.probes(), *self.zeroshots(), *self.finetunes(), *self.people()]
        runs = [str(self.run), *(str(step.done[0].parent) for step in steps if "finetune" in step.command)]
        page, *tables = (self.asked.runs / name for name in ("report.html", "tables.md", "tables.csv", "tables.tex"))
        outs = [part for file in (page, *tables) for part in ("--out", str(file))]
        return [*steps, Step("report", ("cmelt", "report", *runs, *outs), (page, *tables))]

    def ingests(self) -> list[Step]:
        """Return a step a data set."""
        small = ["--limit", str(self.asked.limit)] if self.asked.limit else []
        small += ["--workers", str(self.asked.workers)] if self.asked.workers else []
        steps = []
        for name, raw in self.raw.items():
            out = self.shards(name)
            command = ("cmelt", "ingest", name, str(raw), str(out), "--recipe", "paper", *self.sets("ingest"), *small)
            steps.append(Step("ingest", command, (out / "manifest.json",), name))
        return steps

    def leaks(self) -> Step:
        """Return the step that reads all shards again, and tells what stands on both sides of a split."""
        folders = [str(self.shards(name)) for name in self.raw]
        return Step("leaks", ("cmelt", "verify", *folders, "--json"), (self.asked.runs / "leaks.json",))

    def pretraining(self) -> list[Step]:
        """Return the steps that embed the reports for their negatives, and that train."""
        shards = [part for name in self.trained_on for part in ("--shards", str(self.shards(name)))]
        command = ("cmelt", "pretrain", *shards, "--recipe", self.asked.recipe, *self.sets("pretrain"), "--out", str(self.run))
        last = self.run / "state" / f"step-{self.pretrain_recipe.train.steps:09d}" / "state.json"
        return [
            Step("reports", (*command, "--prepare"), (self.run / "reports.safetensors",), self.trained_on[0]),
            Step("pretrain", command, (last, self.run / "model.safetensors"), self.trained_on[0]),
        ]

    def tables(self, verb: str, name: str, *options: str, done: Path) -> Step:
        """Return the step that asks the run something about a data set."""
        command = ("cmelt", verb, "--run", str(self.run), "--shards", str(self.shards(name)), *options)
        return Step("tables", command, (done,), name)

    def probes(self) -> list[Step]:
        """Return linear probes at 1, 10 and 100 % of the labels, by each protocol; on published folds where RAW/splits has them."""
        steps = []
        for name in [name for name in PROBED if name in self.raw]:
            splits = self.asked.raw / "splits" / FOLDERS[name]
            more, tail = (["--splits", str(splits)], f"-splits-{splits.name}") if splits.is_dir() else ([], "")
            for task, protocol in itertools.product(PROBED[name], self.asked.protocols.split(",")):
                middle = "" if protocol == "strict" else f"-{protocol}"
                file = self.run / "results" / f"probe-{task}{middle}{tail}.json"
                steps.append(self.tables("probe", name, "--task", task, "--protocol", protocol, *more, done=file))
        return steps

    def zeroshots(self) -> list[Step]:
        """Return zero-shot classification of every task."""
        asked = [(name, task) for name in ZEROSHOT if name in self.raw for task in ZEROSHOT[name]]
        return [self.tables("zeroshot", name, "--task", t, done=self.run / "results" / f"zeroshot-{t}.json") for name, t in asked]

    def finetunes(self) -> list[Step]:
        """Return fine-tuning on CinC 2021 with all leads and fewer, each a run of its own."""
        steps = []
        for leads in self.asked.leads.split(",") if TUNED in self.raw else ():
            out = self.asked.runs / f"finetune-{TUNED}-{leads}-leads"
            options = ("--task", TUNED, "--leads", leads, *self.sets("finetune"), "--out", str(out))
            steps.append(self.tables("finetune", TUNED, *options, done=out / "model.safetensors"))
        return steps

    def people(self) -> list[Step]:
        """Return patient identification with all leads and fewer: by lists where RAW/splits/identify has them, else all test patients."""
        lists = {option: self.asked.raw / "splits" / "identify" / f"{option}.csv" for option in ("gallery", "probes", "train")}
        named = [part for option, file in lists.items() if file.is_file() for part in (f"--{option}", str(file))]
        steps = []
        for leads in self.asked.leads.split(",") if PEOPLE in self.raw else ():
            seen = LEAD_SETS[int(leads)]
            tail = "" if len(seen) == 12 else f"-leads-{'-'.join(seen)}"
            file = self.run / "results" / "people" / f"identify{tail}.json"
            steps.append(self.tables("identify", PEOPLE, "--arcface", "--leads", leads, *self.sets("finetune"), *named, done=file))
        return steps


def run(paper: Paper, steps: Sequence[Step]) -> int:
    """Do what is not done of `steps`; return how many tables could not be made. A failure elsewhere is raised."""
    refused = []
    paper.asked.runs.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, 1):
        if step.is_done():
            say(f"[{number}/{len(steps)}] done: {step.line()}")
            continue
        say(f"[{number}/{len(steps)}] {step.stage}: {step.line()}")
        try:
            do(paper, step)
        except CmeltError as error:
            if step.stage != "tables":
                raise
            say(f"  not to be had: {error}")
            refused.append(f"{shlex.join(step.command)}\n    {error}")
            continue
        if not step.is_done():
            raise CmeltError("stopped before its end; the same line goes on")
    if refused:
        say(f"{len(refused)} tables could not be made:", *(f"  {what}" for what in refused))
    return len(refused)


def do(paper: Paper, step: Step) -> None:
    """Run one step in this process; with more than one GPU, pre-training in one process each."""
    command = list(step.command)
    if step.command[1] == "pretrain" and (paper.run / "recipe.json").exists():
        command.append("--resume")
    if step.stage == "pretrain" and paper.asked.gpus > 1:
        launch = ["torchrun", "--nproc-per-node", str(paper.asked.gpus), "-m", "--", "cmelt.cli", *command[1:]]
        if code := subprocess.run(launch).returncode:
            raise CmeltError(f"{shlex.join(launch)} ended with code {code}; the same line goes on")
        return
    if command[1] == "report":  # what could be made of it
        command = [
            part for at, part in enumerate(command) if command[at - 1] == "--out" or at < 2 or part == "--out" or Path(part).exists()
        ]
    if command[1] == "finetune" and (out := step.done[0].parent).exists():
        aside = next(place for n in range(1, 1000) if not (place := out.with_name(f"{out.name}.cut-off-{n}")).exists())
        say(f"  {out} was cut off while it was written: put aside as {aside.name}")
        out.rename(aside)
    with contextlib.redirect_stdout(io.StringIO()) if step.stage == "leaks" else contextlib.nullcontext() as told:
        app(command[1:], standalone_mode=False)
    if told is not None:
        write_whole(step.done[0], told.getvalue().encode())
        say("  " + told.getvalue()[told.getvalue().index('"leaks"') :].strip()[:1000])


def queue(paper: Paper, steps: Sequence[Step], arguments: Sequence[str]) -> None:
    """Submit each stage that is not done as a SLURM job after the one before; an array where it has several commands."""
    given = [part for part in arguments if part not in ("--slurm", "--dry-run")]
    before = ""
    for stage in STAGES:
        of = [step for step in steps if step.stage == stage]
        if not of or (all(step.is_done() for step in of) and not before):
            continue
        job = {"pretrain": paper.asked.train_job, "tables": paper.asked.table_job}.get(stage, paper.asked.cpu_job)
        sbatch = ["sbatch", "--parsable", f"--job-name=cmelt-{stage}"]
        sbatch += [f"--dependency={'afterany' if stage == 'report' else 'afterok'}:{before}"] if before else []
        sbatch += [f"--array=1-{len(of)}"] if len(of) > 1 else []
        sbatch += shlex.split(job)
        if stage == "pretrain":
            command = list(of[0].command[2:])
            at = command.index("--out")
            sbatch += [str(HERE / "slurm" / "pretrain.sbatch"), command[at + 1], *command[:at]]
        else:
            sbatch += [str(HERE / "slurm" / "stage.sbatch"), str(HERE / "paper.sh"), *given, "--stage", stage]
        say(shlex.join(sbatch))
        before = f"ID-of-{stage}"
        if not paper.asked.dry_run:
            done = subprocess.run(sbatch, capture_output=True, text=True)
            if done.returncode:
                raise CmeltError(f"sbatch refused: {done.stderr.strip()}")
            before = done.stdout.strip().partition(";")[0]
            say(f"  job {before}")


def chosen(paper: Paper) -> list[Step]:
    """Return the steps that are asked for; raises InputError where ``--stage`` is asked for and what it builds on is not done."""
    steps, stage, part = paper.steps(), paper.asked.stage, paper.asked.part
    if not stage:
        return steps
    for step in steps[: next(n for n, step in enumerate(steps) if step.stage == stage)]:
        if step.stage != "tables" and not step.is_done():
            raise InputError(f"stage {stage} builds on {step.stage}, which is not done: {step.line()}")
    steps = [step for step in steps if step.stage == stage]
    if part and not 1 <= part <= len(steps):
        raise InputError(f"stage {stage} has {len(steps)} parts; there is no part {part}")
    return steps[part - 1 : part] if part else steps


def say(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console().print(line, markup=False)
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; return 0, 1 where tables could not be made, 2 for what is wrong with the input."""
    asked = parse(arguments)
    try:
        paper = Paper(asked)
        for name, place in paper.missing.items():
            say(f"{name}: no {place} (nor .zip); left out with its tables ({dataset_class(name).access})")
        if asked.slurm:
            queue(paper, paper.steps(), arguments)
            return 0
        steps = chosen(paper)
        if asked.dry_run:
            from pipelines.paper_costs import tell

            tell(paper, steps)
            return 0
        return min(run(paper, steps), 1)
    except (CmeltError, ClickException) as error:
        message = error.format_message() if isinstance(error, ClickException) else str(error)
        console(stderr=True).print(f"paper.sh: {message}", markup=False)
        return 2
    except Abort:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
