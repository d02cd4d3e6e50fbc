"""What the stages are made with: shard folders, a recipe and its changes, seeds; and how a model of them is trained."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmelt.config import PretrainRecipe, load_recipe
from cmelt.models.cmelt import CMELT
from cmelt.pretrain import pretrain
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import on_device
from cmelt.training.checkpoint import RECIPE, STATES

ALWAYS = ("train.select=last", "train.trackers=[]", "train.keep=1", "train.log_every=10")
"""Every model is the last of its steps: nothing but what is compared differs."""


@dataclass(frozen=True)
class Plan:
    """What a bench is made with; ``sim`` and ``real`` are shard folders, ``changes`` of the recipe are written ``a.b=c``."""

    work: Path
    sim: Path
    real: Path
    recipe: str
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    fold: str = "test"
    only: tuple[str, ...] = ()
    most: int = 0

    def recipe_of(self, seed: int, more: Sequence[str] = ()) -> PretrainRecipe:
        """Return the recipe of a training with `seed` and `more` changes."""
        steps = load_recipe("pretrain", self.recipe, self.changes).train.steps
        saved = [f"train.{key}={max(1, steps // 2)}" for key in ("validate_every", "save_every")]
        recipe: PretrainRecipe = load_recipe("pretrain", self.recipe, [*saved, *self.changes, *ALWAYS, *more, f"train.seed={seed}"])
        return recipe

    def train(self, name: str, shards: Sequence[Path], seed: int, more: Sequence[str] = ()) -> CMELT:
        """Return model `name`, trained on `shards`; a training that was cut off is gone on with."""
        out = self.work / "runs" / name
        pretrain(shards, self.recipe_of(seed, more), out, resume=(out / RECIPE).is_file(), quiet=True)
        return on_device(CMELT.from_pretrained(out))

    def load(self, name: str) -> CMELT:
        """Return model `name`, which is trained."""
        return on_device(CMELT.from_pretrained(self.work / "runs" / name))

    def forget(self, name: str) -> None:
        """Remove what only resuming would need of model `name`."""
        shutil.rmtree(self.work / "runs" / name / STATES, ignore_errors=True)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return what tells one bench from another: the recipe, the samples of the folders, the seeds."""
        samples = {name: str(ShardFolder(place).manifest["index_sha256"]) for name, place in (("sim", self.sim), ("real", self.real))}
        return {"recipe": self.recipe_of(0).model_dump(mode="json"), "samples": samples, "seeds": list(self.seeds), **more}


def parser(description: str | None, seeds: str = "0,1,2") -> argparse.ArgumentParser:
    """Return a parser of what every bench takes; `plan_of` reads what it gives."""
    out = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("work", type=Path, help="folder in which the stages keep what they make")
    out.add_argument("--sim", type=Path, required=True, help="shards of simulated recordings")
    out.add_argument("--real", type=Path, required=True, help="shards of real recordings, ingested by the same recipe")
    out.add_argument("--recipe", default="sim-small", help="pre-training recipe")
    out.add_argument("--set", dest="changes", action="append", default=[], metavar="A.B=C", help="change one recipe key")
    out.add_argument("--seeds", default=seeds, help="of the trainings, with commas between")
    out.add_argument("--fold", choices=("val", "test"), default="test", help="which fold is scored; val: for choices")
    out.add_argument("--only", default="", help="these stages, with commas between")
    out.add_argument("--count", type=int, default=0, help="at most so many stages now")
    return out


def plan_of(given: argparse.Namespace) -> Plan:
    """Return the plan that the command line asks for."""
    seeds = tuple(int(seed) for seed in given.seeds.split(","))
    only = tuple(name for name in given.only.split(",") if name)
    return Plan(given.work, given.sim, given.real, given.recipe, tuple(given.changes), seeds, given.fold, only, given.count)
