"""`cmelt identify`: is the nearest ECG in a gallery one of the same patient? With the embeddings as they are, or ArcFace-tuned.

N recordings, G in the gallery, P probes, B batch, I patients trained on, W encoder width.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from cmelt import __version__
from cmelt.config_tasks import FinetuneRecipe
from cmelt.datasets.base import key_of
from cmelt.datasets.splits import names_in
from cmelt.errors import InputError, TaskError
from cmelt.files import write_json
from cmelt.metrics import identification, interval
from cmelt.models.cmelt import CMELT
from cmelt.record import LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import fit_each_other, load_for, open_run
from cmelt.tasks.features import features
from cmelt.tasks.protocol import Rows
from cmelt.tasks.results import columns, narrowed, number, pair, plain
from cmelt.tasks.split import ReducedFolder
from cmelt.tasks.tune import Course, Tuned, outputs, tune

SCALE, MARGIN = 30.0, 0.5
"""ArcFace's s and m (arXiv 1801.07698): logits are s · cos(θ + m) for the right patient, s · cos θ for the others."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Pairs:
    """Who is looked for among whom: rows of the gallery and of the probes, and the person each shows."""

    gallery: Rows
    probes: Rows
    gallery_id: NDArray[Any]
    probe_id: NDArray[Any]
    told: dict[str, Any]


class People:
    """The recordings of one or more shard folders, with who they are of; rows count through all folders.

    Those for which the filter `where` is not true are of no split, and lists do not find them.
    """

    def __init__(self, shards: Sequence[Path | str], leads: Sequence[str] = LEADS, cache: Path | None = None, where: str = "") -> None:
        whole = set(leads) == set(LEADS)
        self.folders: list[ShardFolder] = [ShardFolder(path) if whole else ReducedFolder(path, leads) for path in shards]
        fit_each_other(self.folders)
        self.cache = cache if whole or cache is None else cache / f"leads-{'-'.join(leads)}"
        self.first = np.cumsum([0, *map(len, self.folders)])
        datasets = [str(folder.manifest["dataset"]) for folder in self.folders]
        known = [[folder.column(name) for name in ("key", "patient_id", "split")] for folder in self.folders]
        self.keys = np.array([str(key) for keys, _, _ in known for key in keys], object)
        self.patients = np.array(
            [f"{of}/{who}" if who else "" for of, (_, patients, _) in zip(datasets, known, strict=True) for who in patients], object
        )
        self.split = np.array([str(name) for _, _, splits in known for name in splits], object)
        self.wanted = np.zeros(len(self.keys), bool)
        for first, folder in zip(self.first, self.folders, strict=False):
            self.wanted[first + folder.rows(where=where)] = True
        self.split[~self.wanted] = ""

    def ecg_mv(self, rows: Rows) -> NDArray[np.float32]:
        """Return the ECGs (len(rows), 12, S) of `rows` in mV."""
        out = np.empty((len(rows), len(LEADS), self.folders[0].samples), np.float32)
        for which, folder in enumerate(self.folders):
            here = (rows >= self.first[which]) & (rows < self.first[which + 1])
            if here.any():
                out[here] = folder.ecg_mv(rows[here] - self.first[which])
        return out

    def features(self, model: CMELT, rows: Rows, quiet: bool) -> dict[str, NDArray[np.float32]]:
        """Return the frozen encoder's features of `rows`, in their order."""
        out: dict[str, NDArray[np.float32]] = {}
        for which, folder in enumerate(self.folders):
            here = np.flatnonzero((rows >= self.first[which]) & (rows < self.first[which + 1]))
            if len(here):
                found = features(model, folder, rows[here] - self.first[which], "ecg", self.cache, "embeddings", quiet)
                for name, values in found.items():
                    out.setdefault(name, np.empty((len(rows), values.shape[1]), np.float32))[here] = values
        return out


def identify(
    run: Path | None = None,
    shards: Sequence[Path | str] | None = None,
    gallery: Path | None = None,
    probes: Path | None = None,
    arcface: FinetuneRecipe | None = None,
    *,
    train: Path | None = None,
    leads: Sequence[str] = LEADS,
    where: str = "",
    quiet: bool = False,
) -> dict[str, Any]:
    """Look for each probe's patient in the gallery by cosine; write ``RUN/results/people/identify….json``, return it.

    Lists are CSV files that name recordings, with a column ``label`` for the person, else by patient; without them they are derived:
    of each patient of the test split with two or more recordings the first by key is the gallery, the others are probes. With
    `arcface` the encoder is also tuned on the training split's patients (or list `train`) with two or more recordings. `where`
    filters recordings (``age > 60``). Raises InputError for lists that cannot be read, TaskError where there is nobody to find.
    """
    if (gallery is None) != (probes is None):
        raise InputError("a gallery list needs a probe list, and the other way round; name both with --gallery and --probes, or none")
    opened = open_run(run, shards)
    people = People(opened.shards, leads, opened.cache, where)
    model = load_for(opened, people.folders)
    pairs = derived(people, "test") if gallery is None or probes is None else listed(people, gallery, probes)
    found = people.features(model, np.concatenate([pairs.gallery, pairs.probes]), quiet)
    result: dict[str, Any] = {**opened.facts(), "leads": list(leads), **({"where": where} if where else {}), "pairs": pairs.told}
    result["scores"] = {name: scored(values[: len(pairs.gallery)], values[len(pairs.gallery) :], pairs) for name, values in found.items()}
    if arcface is not None:
        tuned, course, told = tune_arcface(model, people, arcface, train, pairs, quiet)
        near, far = (outputs(tuned.tokens, people.ecg_mv, rows, tuned.device) for rows in (pairs.gallery, pairs.probes))
        result["scores"]["arcface"] = scored(near, far, pairs)
        result["arcface"] = told | {"best_epoch": course.best_epoch, "epochs": course.epochs, "recipe": arcface.model_dump(mode="json")}
    name = "-".join(["identify", *narrowed(result)])
    write_json(opened.results / "people" / f"{name}.json", {"version": __version__, **result})
    return result


def derived(people: People, split: str) -> Pairs:
    """Return, of each patient of a split with two or more recordings, the first by key as gallery and the others as probes."""
    of: dict[str, list[int]] = {}
    rows = np.flatnonzero((people.split == split) & (people.patients != ""))
    for row in rows[np.argsort(people.keys[rows], kind="stable")]:
        of.setdefault(people.patients[row], []).append(int(row))
    several = {who: rows for who, rows in of.items() if len(rows) > 1}
    if not several:
        raise TaskError(
            f"no patient of the {split} split has two recordings in {', '.join(map(str, people.folders))}; "
            "add recordings, or name lists with --gallery and --probes"
        )
    first = np.array([rows[0] for rows in several.values()])
    others = np.array([row for rows in several.values() for row in rows[1:]])
    told = {"from": f"patients of the {split} split with two or more recordings", "gallery": len(first), "probes": len(others)}
    return Pairs(first, others, people.patients[first], people.patients[others], told)


def listed(people: People, gallery: Path, probes: Path) -> Pairs:
    """Return the pairs of two list files; recordings that the shards do not have are counted, and probes without their person left out."""
    sides = [read_list(people, file) for file in (gallery, probes)]
    (rows, ids), (sought, sought_ids) = ((np.array(list(found)), np.array(list(found.values()), object)) for found, _ in sides)
    there = np.isin(sought_ids.astype(str), ids.astype(str)) if len(rows) and len(sought) else np.zeros(len(sought), bool)
    told = {"from": f"{gallery.name}, {probes.name}", "gallery": len(rows), "probes": int(there.sum())}
    told |= {"not_in_the_shards": [missing for _, missing in sides], "probes_without_their_person": int((~there).sum())}
    if not there.any():
        raise TaskError(f"of {gallery} and {probes} nobody has recordings on both sides in these shards; ingest what they name")
    return Pairs(rows, sought[there], ids, sought_ids[there], told)


def read_list(people: People, file: Path) -> tuple[dict[int, str], int]:
    """Return what a list file names: row of the shards → person; and how many of its recordings the shards do not have."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); name a CSV file of recordings") from None
    names = names_in(file, data)
    labels = [row.get("label") for row in csv.DictReader(data.decode("utf-8-sig").splitlines())]
    row_of = {people.keys[row]: int(row) for row in np.flatnonzero(people.wanted)}
    found: dict[int, str] = {}
    for name, label in zip(names, labels, strict=False):
        row = row_of.get(key_of(name))
        if row is not None:
            found[row] = label or people.patients[row]
    return found, len(names) - len(found)


def scored(gallery: NDArray[np.floating], probes: NDArray[np.floating], pairs: Pairs) -> dict[str, Any]:
    """Return top-1, top-5 and EER of probes (P, W) in a gallery (G, W), top-1 with a bootstrap interval over people."""
    found, hits = identification(gallery, pairs.gallery_id, probes, pairs.probe_id)
    _, who = np.unique(pairs.probe_id.astype(str), return_inverse=True)
    counts = np.random.default_rng(0).multinomial(who.max() + 1, np.full(who.max() + 1, 1 / (who.max() + 1)), RESAMPLES)[:, who]
    return {name: plain(value) for name, value in found.items()} | {"top1_ci95": pair(interval((counts * hits).sum(1) / counts.sum(1)))}


class Arc(nn.Module):
    """ArcFace's head: the cosine (B, I) of an embedding (B, W) with a learnt direction of each patient."""

    def __init__(self, width: int, patients: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(patients, width, generator=generator) * 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return cosines (B, I)."""
        return normalize(x.float()) @ normalize(self.weight).T


def arcface_loss(cosine: Tensor, patient: Tensor) -> Tensor:
    """Return the additive angular margin loss of cosines (B, I) for the right patients (B,)."""
    right = cosine.gather(1, patient[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    moved = torch.where(right > np.cos(np.pi - MARGIN), torch.cos(torch.acos(right) + MARGIN), right - MARGIN * np.sin(MARGIN))
    return cross_entropy(SCALE * cosine.scatter(1, patient[:, None], moved), patient)


def tune_arcface(
    model: CMELT, people: People, recipe: FinetuneRecipe, train: Path | None, pairs: Pairs, quiet: bool
) -> tuple[Tuned, Course, dict[str, Any]]:
    """Tune the encoder to tell the training patients apart, stopped by top-1 on the validation split's patients (else its own)."""
    labels: Mapping[int, str] = (
        read_list(people, train)[0]
        if train is not None
        else {int(row): people.patients[row] for row in np.flatnonzero((people.split == "train") & (people.patients != ""))}
    )
    judged = set(people.patients[np.concatenate([pairs.gallery, pairs.probes])]) - {""}
    labels = {row: who for row, who in labels.items() if people.patients[row] not in judged}
    names, counts = np.unique(np.array(list(labels.values()), str), return_counts=True)
    several = set(names[counts > 1])
    rows = np.array([row for row, who in labels.items() if str(who) in several], np.intp)
    if len(several) < 2:
        raise TaskError("fewer than two training patients have two recordings each: ArcFace has nobody to tell apart; leave --arcface out")
    number_of = {who: number for number, who in enumerate(sorted(several))}
    tuned = Tuned(model, Arc(model.config.ecg_width, len(several), recipe.tune.seed), recipe.tune.layers)
    person = torch.zeros(len(people.keys), dtype=torch.int64)
    for row in rows:
        person[row] = number_of[str(labels[int(row)])]
    try:
        judge, by = derived(people, "val"), "validation patients"
    except TaskError:
        judge, by = None, "the training loss: no validation patient has two recordings"
    last = [0.0]

    def loss_of(cosine: Tensor, some: Rows) -> Tensor:
        loss = arcface_loss(cosine, person[some].to(cosine.device))
        last[0] = 0.9 * last[0] + 0.1 * float(loss.detach())
        return loss

    def value_of() -> float:
        if judge is None:
            return -last[0]
        near, far = (outputs(tuned.tokens, people.ecg_mv, side, tuned.device) for side in (judge.gallery, judge.probes))
        found, _ = identification(near, judge.gallery_id, far, judge.probe_id)
        return found["top1"] - found["eer"] / 100  # where few are looked for, many epochs find as many

    course = tune(tuned, rows, people.ecg_mv, loss_of, value_of, recipe, quiet=quiet)
    return tuned, course, {"patients": len(several), "recordings": len(rows), "stopped_by": by}


def table(result: dict[str, Any]) -> Table:
    """Return a result for the terminal."""
    told = result["pairs"]
    out = columns(f"identification · {result['checkpoint']}", "features", "probes", "", "top-1", "95 %", "top-5", "EER")
    for name, one in result["scores"].items():
        bounds = "{:.3f} … {:.3f}".format(*one["top1_ci95"]) if one["top1_ci95"] else ""
        out.add_row(name, str(told["probes"]), "", number(one["top1"]), bounds, number(one["top5"]), number(one["eer"]))
    out.caption = f"{told['from']}; {told['gallery']} people in the gallery, chance top-1 {1 / told['gallery']:.3f}"
    return out
