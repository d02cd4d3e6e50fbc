"""Recordings that stand in several places, and what leaks so from training into test; patients on both sides of a split.

A recording is known by its content (``signal_sha1``) and, where its name tells where it was first published, by that: CinC 2021's
HR records are PTB-XL's, A are CPSC2018's, JS Chapman-Shaoxing-Ningbo's. Patient ids are compared within one data set only.
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmelt.origins import TRAVELLING, recording_of
from cmelt.record import DUPLICATE
from cmelt.shards.read import ShardFolder

HELD_OUT = ("val", "test")
EXAMPLES = 5
"""How many of a kind are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a recording stands: which folder, under which key, in which split; windows of one recording are one place."""

    folder: str
    key: str
    split: str

    def __str__(self) -> str:
        return f"{self.folder}:{self.key} ({self.split})"


def flag_duplicates(read: Callable[[list[str] | None], Iterable[pa.Table]]) -> Iterator[pa.Table]:
    """Yield the index rows of `read`, DUPLICATE among the flags of each recording whose content an earlier one has.

    `read` gives the rows in their order, the columns named or all, and is called twice: in between only eight bytes a recording
    are remembered. A recording's windows lie in one table.
    """
    seen = array("Q")
    for rows in read(["source", "signal_sha1"]):
        columns = (rows.column(name).to_pylist() for name in ("source", "signal_sha1"))
        seen.extend(int(digest[:16], 16) for digest in dict(zip(*columns, strict=True)).values())
    values, counts = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    first: dict[str, str] = {}
    for rows in read(None):
        sources, digests, flags = (rows.column(name).to_pylist() for name in ("source", "signal_sha1", "flags"))
        for source, digest, of in zip(sources, digests, flags, strict=True):
            if int(digest[:16], 16) in repeated and first.setdefault(digest, source) != source and DUPLICATE not in of:
                of.append(DUPLICATE)
        at = rows.schema.get_field_index("flags")
        yield rows.set_column(at, rows.schema.field(at), pa.array(flags, rows.schema.field(at).type))


def find_leaks(folders: Sequence[ShardFolder]) -> dict[str, Any]:
    """Return what the folders share, counted and with examples.

    ``recordings``: how many recordings stand in more than one place; ``between``: pairs of folders → recordings in both;
    ``within``: folder → recordings that it holds more than once; ``leaking``: recordings in training and held out as well;
    ``leaking_patients``: patients of one data set in training and held out as well.
    """
    groups = [places for places in recordings(folders) if len(places) > 1]
    within: dict[str, int] = defaultdict(int)
    between: dict[str, int] = defaultdict(int)
    for places in groups:
        held = [place.folder for place in places]
        names = sorted(set(held))
        for name in names:
            within[name] += held.count(name) > 1
        for at, first in enumerate(names):
            for second in names[at + 1 :]:
                between[f"{first} and {second}"] += 1
    leaking = [places for places in groups if crosses(place.split for place in places)]
    patients = leaking_patients(folders)
    return {
        "folders": [str(folder.path) for folder in folders],
        "recordings": len(groups),
        "between": dict(between),
        "within": {name: count for name, count in within.items() if count},
        "leaking": len(leaking),
        "leaking_examples": [" = ".join(map(str, places)) for places in leaking[:EXAMPLES]],
        "leaking_patients": len(patients),
        "leaking_patients_examples": patients[:EXAMPLES],
    }


def told(leaks: dict[str, Any]) -> list[str]:
    """Return what `find_leaks` found as lines; [] where there is nothing to tell."""
    lines = [f"{count} recordings stand in both {pair}" for pair, count in leaks["between"].items()]
    lines += [f"{count} recordings stand more than once in {folder}" for folder, count in leaks["within"].items()]
    for what, words in (("leaking", "recordings"), ("leaking_patients", "patients")):
        if leaks[what]:
            more = "; ..." if leaks[what] > EXAMPLES else ""
            lines.append(f"{leaks[what]} {words} are both in training and held out: {'; '.join(leaks[f'{what}_examples'])}{more}")
    return lines


def overlap(folder: ShardFolder, others: Iterable[ShardFolder]) -> NDArray[np.bool_]:
    """Return, for each row of `folder`, whether its recording is held out (val or test) in any of `others`, itself perhaps among them."""
    digests, names = [], {""}
    for other in others:
        out = pc.is_in(other.table(["split"]).column(0), pa.array(HELD_OUT))
        digests += other.table(["signal_sha1"]).column(0).filter(out).chunks
        names.update(np.asarray(published(other), object)[np.asarray(out)])
    names.remove("")
    found = np.asarray(pc.is_in(folder.table(["signal_sha1"]).column(0), pa.chunked_array(digests, pa.string()).combine_chunks()))
    return found | np.fromiter((name in names for name in published(folder)), bool, len(folder)) if names else found


def published(folder: ShardFolder) -> list[str]:
    """Return the name of each row's recording where it was first published, '' where that is unknown."""
    dataset = folder.manifest["dataset"]
    if dataset not in TRAVELLING:
        return [""] * len(folder)
    return [recording_of(key, dataset) for key in folder.column("key")]


def identities(folder: ShardFolder) -> Iterator[tuple[str, ...]]:
    """Yield the names by which each row's recording is known anywhere: its content's hash and, if told, its first publication's."""
    for digest, name in zip(folder.column("signal_sha1"), published(folder), strict=True):
        yield (digest, name) if name else (digest,)


def recordings(folders: Sequence[ShardFolder]) -> Iterator[list[Place]]:
    """Yield every recording as the places where it stands; rows that share any identity are one recording."""
    group_of: dict[str, int] = {}
    members: dict[int, list[Place]] = {}
    names_of: dict[int, set[str]] = {}
    numbers = itertools.count()
    for folder in folders:
        seen: set[str] = set()
        columns = (folder.column(name) for name in ("source", "key", "split"))
        for source, key, split, names in zip(*columns, identities(folder), strict=True):
            if source in seen:
                continue  # another window of the same recording
            seen.add(source)
            known = sorted({group_of[name] for name in names if name in group_of})
            group = known[0] if known else next(numbers)
            members.setdefault(group, []).append(Place(str(folder.path), key, split))
            names_of.setdefault(group, set()).update(names)
            for other in known[1:]:
                members[group] += members.pop(other)
                names_of[group] |= names_of.pop(other)
            group_of.update(dict.fromkeys(names_of[group], group))
    yield from members.values()


def leaking_patients(folders: Sequence[ShardFolder]) -> list[str]:
    """Return the patients, as ``dataset/id``, who are in training and held out as well."""
    splits: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        dataset = folder.manifest["dataset"]
        for patient, split in zip(folder.column("patient_id"), folder.column("split"), strict=True):
            if patient:
                splits[f"{dataset}/{patient}"].add(split)
    return sorted(patient for patient, of in splits.items() if crosses(of))


def crosses(splits: Iterable[str]) -> bool:
    """Say whether splits lie on both sides: training, and validation or test."""
    of = set(splits)
    return "train" in of and not of.isdisjoint(HELD_OUT)
