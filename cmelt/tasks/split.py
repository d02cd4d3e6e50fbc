"""Which recordings of a cohort train, choose and test: as ingested, by split files, or on other data sets; and what the two sides share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmelt.config import did_you_mean
from cmelt.datasets.splits import either_rate, read_splits
from cmelt.errors import TaskError
from cmelt.origins import recording_of
from cmelt.record import LEAD_SETS, LEADS
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import Cohort
from cmelt.tasks.protocol import Folds, Rows

SCORED = ("test", "val")
"""Folds that may be scored; the validation fold for choices among models, since each fit chooses on it too."""

AGE_BOUNDS = (20, 40, 60, 80)
AGES = ("0–19", "20–39", "40–59", "60–79", "80 and over")


class ReducedFolder(ShardFolder):
    """A shard folder of which only some leads are seen: the others are zero, as in pre-training with masked leads."""

    def __init__(self, path: Path | str, leads: Collection[str]) -> None:
        super().__init__(path)
        self.hidden = np.array([lead not in leads for lead in self.leads])

    def ecg(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the samples of `rows` as ShardFolder does, hidden leads zero."""
        out = super().ecg(rows)
        out[:, self.hidden] = 0
        return out

    def ecg_mv(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the samples of `rows` in mV, hidden leads zero."""
        out = super().ecg_mv(rows)
        out[:, self.hidden] = 0
        return out


def read_leads(text: str) -> tuple[str, ...]:
    """Return leads written as ``I,II,V2``, or as a number of LEAD_SETS, in the order of LEADS; raises TaskError for unknown ones."""
    if text.isdigit() and int(text) in LEAD_SETS:
        return LEAD_SETS[int(text)]
    upper = {lead.upper(): lead for lead in LEADS}
    wanted = [part.strip().upper() for part in text.split(",") if part.strip()]
    for lead in wanted:
        if lead not in upper:
            near = did_you_mean(lead, upper)
            raise TaskError(f"no lead {lead!r}{near}; known: {', '.join(LEADS)}, or a number of leads: {', '.join(map(str, LEAD_SETS))}")
    if not wanted:
        raise TaskError(f"no leads named; known: {', '.join(LEADS)}")
    return tuple(lead for lead in LEADS if lead.upper() in wanted)


def read_shares(text: str) -> tuple[float, ...]:
    """Return percentages written as ``1,10,100`` as shares, ascending; raises TaskError for what is none."""
    try:
        shares = tuple(sorted({float(part) / 100 for part in text.split(",")}))
    except ValueError:
        shares = ()
    if not shares or not 0 < shares[0] <= shares[-1] <= 1:
        raise TaskError(f"{text!r} are no percentages of the labels; write them as 1,10,100")
    return shares


def see_only(cohort: Cohort, leads: Collection[str]) -> None:
    """Let `cohort` give only `leads`, the others zero."""
    if set(leads) != set(LEADS):
        cohort.folders = [ReducedFolder(folder.place, leads) for folder in cohort.folders]
        cohort.cache = cohort.cache / f"leads-{'-'.join(leads)}" if cohort.cache else None


def column(cohort: Cohort, name: str) -> NDArray[Any]:
    """Return an index column of the cohort's recordings, (N,) objects."""
    out = np.empty(len(cohort), object)
    for number, folder in enumerate(cohort.folders):
        here = cohort.folder_of == number
        out[here] = np.asarray(folder.column(name), dtype=object)[cohort.row_of[here]]
    return out


def scored(fold: str) -> str:
    """Return `fold`; raises TaskError where it is none of SCORED."""
    if fold not in SCORED:
        raise TaskError(f"no fold {fold!r}{did_you_mean(fold, SCORED)}; scored may be: {', '.join(SCORED)}")
    return fold


def choose_folds(cohort: Cohort, trained: int = 0, splits: Path | None = None, fold: str = "test") -> tuple[Folds, dict[str, Any]]:
    """Return the folds, and what a result tells of them. Raises TaskError where a fold is empty, InputError for split files.

    With `trained`, the first so many folders give the training and validation folds and the others the test fold: of the training
    fold, what is the same recording as one of the test fold is left out. With `splits`, split files say instead what is in which fold.
    With `fold` val the validation fold is scored, and the test fold not looked at.
    """
    told: dict[str, Any] = {"split": "as ingested"}
    if splits is not None:
        files = read_splits(splits)
        names = [key.rpartition("/")[2] for key in cohort.keys]  # with several folders a key carries its data set's name
        cohort.split = np.array([files.of.get(either_rate(name), "") for name in names], str)
        told = {"split": files.rule, "not_in_split_files": int((cohort.split == "").sum())}
        _refuse_parted(cohort)
    train, val, test = (cohort.rows(split) for split in ("train", "val", scored(fold)))
    if trained:
        first = cohort.folder_of < trained
        train, val, test = train[first[train]], val[first[val]], test[~first[test]]
        for name, rows in (("train", train), ("val", val), ("test", test)):
            if not len(rows):
                places = cohort.folders[trained:] if name == "test" else cohort.folders[:trained]
                raise TaskError(
                    f"no recording in the {name} split of {', '.join(map(str, places))} has a label of task {cohort.vocabulary.name!r}; "
                    "take other shards, or another --task"
                )
        same = in_both(cohort, train, test)
        train = train[~same]
        told |= {"trained_on": cohort.datasets[:trained], "tested_on": cohort.datasets[trained:]}
        told |= {"same_recordings_left_out": int(same.sum())}
    if fold != "test":
        return Folds(train, val, test), told | {"fold": fold}
    shared = set(cohort.patients[np.concatenate([train, val])]) & set(cohort.patients[test])
    told["patients_in_training_and_test"] = len(shared)
    told["recordings_in_training_and_test"] = int(in_both(cohort, np.concatenate([train, val]), test).sum())
    return Folds(train, val, test), told


def _refuse_parted(cohort: Cohort) -> None:
    """Raise TaskError where windows of one recording are in different folds: what is learnt on one part would be tested on another."""
    source = column(cohort, "source").astype(str)
    split_of: dict[tuple[int, str], str] = {}
    for number, name, split, key in zip(cohort.folder_of, source, cohort.split, cohort.keys, strict=True):
        if name and split and split_of.setdefault((int(number), name), split) != split:
            raise TaskError(f"split files put windows of one recording into different folds ({key} of {name}); name all of them in one")


def in_both(cohort: Cohort, rows: Rows, test: Rows) -> NDArray[np.bool_]:
    """Return which of `rows` are the same recording as one of `test`, by content or by the name it was first published under."""
    content = column(cohort, "signal_sha1").astype(str)
    names = [key.rpartition("/")[2] for key in cohort.keys]
    origin = np.array([recording_of(key, cohort.datasets[number]) for key, number in zip(names, cohort.folder_of, strict=True)])
    found = np.zeros(len(rows), bool)
    for known in (content, origin):
        found |= np.isin(known[rows], known[test]) & (known[rows] != "")
    return found


def groups(cohort: Cohort, rows: Rows) -> dict[str, NDArray[np.str_]]:
    """Return, for `rows`, the subgroups that a result is told by: kind → the name of each row's group, '' where it is not known."""
    sex = np.array([str(value or "") for value in column(cohort, "sex")[rows]])
    age = column(cohort, "age")[rows].astype(float)
    band = np.array(["" if np.isnan(years) else AGES[int(np.searchsorted(AGE_BOUNDS, years, "right"))] for years in age])
    fold = np.array([str(value) if value else "" for value in column(cohort, "fold")[rows]])
    return {"sex": sex, "age": band, "fold": fold}
