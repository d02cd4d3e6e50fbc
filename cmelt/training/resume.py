"""Where a run lies, what it says of itself, and with what changes it may be gone on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cmelt import __version__
from cmelt.config import PretrainRecipe, Settings, validate
from cmelt.config_tasks import GenerateRecipe
from cmelt.errors import CheckpointError, OutputError, RecipeError
from cmelt.files import whole
from cmelt.models.store import save_tensors
from cmelt.remote import absolute
from cmelt.shards.read import ShardFolder
from cmelt.training.checkpoint import EMBEDDINGS, RECIPE
from cmelt.training.negatives import report_embeddings
from cmelt.training.optim import learning_rate

FREE = {
    *("train.log_every", "train.validate_every", "train.save_every", "train.pictures_every", "train.keep", "train.trackers"),
    *("train.on_nan", "train.on_save_error", "data.threads", "data.cache_gb", "data.verify"),
}
"""Recipe keys that change nothing a run computes: it may be resumed with others. (train.steps: where no rate depends on it.)"""


def run_folder(out: Path | None, name: str, resume: bool) -> Path:
    """Return the run folder: `out`, else the first free runs/NAME-N (to resume: the newest run there is)."""
    if out is None and resume:
        runs = sorted(Path("runs").glob(f"*/{RECIPE}"), key=lambda f: f.stat().st_mtime)
        if not runs:
            raise CheckpointError("no run under runs/ to resume; name one with --out")
        return runs[-1].parent
    if out is None:
        number = 1
        while (Path("runs") / f"{name}-{number}").exists():
            number += 1
        out = Path("runs") / f"{name}-{number}"
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: the folder is not empty; take another --out, or --resume to go on")
    return out


def facts_of(recipe: Settings, folders: Sequence[ShardFolder], counts: dict[str, int], parameters: int) -> dict[str, Any]:
    """Return what recipe.json says of a run."""
    return {
        "version": __version__,
        "recipe": recipe.model_dump(mode="json"),
        "shards": [absolute(folder.place) for folder in folders],
        "index_sha256": [folder.manifest["index_sha256"] for folder in folders],
        "counts": counts,
        "parameters": parameters,
    }


def read_facts(out: Path) -> dict[str, Any]:
    """Return recipe.json of the run `out`; raises CheckpointError."""
    try:
        facts: dict[str, Any] = json.loads((out / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{out}: no recipe.json; this is not a run folder") from None
    return facts


def differences(
    out: Path, before: dict[str, Any], now: dict[str, Any], kind: type[PretrainRecipe] | type[GenerateRecipe] = PretrainRecipe
) -> list[str]:
    """Return how a run `now`, of a recipe of `kind`, differs from what it was `before`.

    Raises CheckpointError, naming them, for differences that change its numbers.
    """
    try:
        recipes: list[PretrainRecipe | GenerateRecipe] = [validate(kind, facts["recipe"], str(out / RECIPE)) for facts in (before, now)]
    except RecipeError as error:
        raise CheckpointError(f"{error}; the run was made by cmelt {before['version']}, go on with that") from None
    old, new = (flat(recipe.model_dump(mode="json")) for recipe in recipes)
    said = {key: f"{key}: {old[key]!r} → {new[key]!r}" for key in old if old[key] != new[key]}
    free = FREE | ({"train.steps"} if same_rates(*recipes) else set())
    refused = [line for key, line in said.items() if key not in free]
    if before["index_sha256"] != now["index_sha256"]:
        refused.append(f"shards: {', '.join(before['shards'])} → {', '.join(now['shards'])}, which hold other samples")
    elif before["counts"] != now["counts"]:
        refused.append(f"samples: {before['counts']} → {now['counts']}")
    if refused:
        raise CheckpointError(f"{out}: cannot resume, for this would change its numbers: {'; '.join(refused)}; use another --out")
    return [*said.values(), *(f"{key}: {before[key]} → {now[key]}" for key in ("version", "shards") if before[key] != now[key])]


def same_rates(old: PretrainRecipe | GenerateRecipe, new: PretrainRecipe | GenerateRecipe) -> bool:
    """Return whether the learning rate is the same at every step that both recipes have."""
    steps = range(min(old.train.steps, new.train.steps))
    return all(learning_rate(s, old.train.steps, old.optim) == learning_rate(s, new.train.steps, new.optim) for s in steps)


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested table as dotted keys."""
    items: dict[str, Any] = {}
    for key, value in table.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return items


def kept_embeddings(out: Path, reports: dict[str, list[str]], how: str) -> dict[str, NDArray[np.float32]]:
    """Return the embeddings of each split's `reports`; made once a run and kept in it, so that every rank and every
    resumption deals the same wrong reports, whatever its number of threads."""
    file = out / EMBEDDINGS
    if file.exists():
        try:
            kept: dict[str, NDArray[np.float32]] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged ({error}); remove it and --resume") from None
        if {split: len(rows) for split, rows in kept.items()} == {split: len(texts) for split, texts in reports.items()}:
            return kept
        raise CheckpointError(f"{file}: made for other reports; take another --out")
    made = {split: report_embeddings(texts, how) for split, texts in reports.items()}
    with whole(file) as part:
        save_tensors({split: torch.from_numpy(rows) for split, rows in made.items()}, part)
    return made
