"""Shards for a training loop of one's own: a map-style data set for ``torch.utils.data.DataLoader``, and a WebDataset pipeline.

Both give a sample as a dict: ``ecg`` (12, S) float32 mV, ``report``, ``codes`` (list), ``key``, ``patient_id``, ``age``, ``sex``,
``device``, ``split``, ``fold``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import webdataset as wds
from torch.utils.data import Dataset

from cmelt.errors import InputError, ShardError
from cmelt.record import SPLITS
from cmelt.shards.read import ShardFolder

COLUMNS = ("key", "report", "codes", "patient_id", "age", "sex", "device", "split", "fold")

Shards = Path | str | Sequence[Path | str]


class ShardDataset(Dataset[dict[str, Any]]):
    """Samples of shard folders by number, in the order of their index; each is one positioned read.

    Works with every sampler, with threads, and with worker processes of either start method: a worker gets the index, opens the
    tars itself and hands back what the collate function makes.
    """

    def __init__(self, shards: Shards, split: str = "train", where: str = "") -> None:
        """Take folders or URLs, a split ('' = all) and a filter such as ``fold <= 8 and 'AFIB' in codes``."""
        self.folders = [ShardFolder(place) for place in many(shards)]
        rows = [folder.rows(checked(split), where) for folder in self.folders]
        self.row_of = np.concatenate(rows)
        self.folder_of = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
        bases = np.cumsum([0, *(len(folder.names) for folder in self.folders)])
        self.shard_of = np.concatenate([f.shard_of(some) + base for f, some, base in zip(self.folders, rows, bases[:-1], strict=True)])
        """(N,) a number for the shard of each sample, as `cmelt.shards.order.Order` takes it."""
        self.facts: pa.Table = pa.concat_tables([f.table(COLUMNS).take(some) for f, some in zip(self.folders, rows, strict=True)])

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.row_of)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return sample `number`; a negative one counts from the end."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        folder = self.folders[self.folder_of[number]]
        ecg = torch.from_numpy(folder.ecg_mv([int(self.row_of[number])])[0])
        return {"ecg": ecg} | self.facts.slice(number % len(self), 1).to_pylist()[0]


def webdataset(shards: Shards, split: str = "train", shuffle: int = 1000, seed: int = 0, **options: Any) -> wds.WebDataset:
    """Return a stock WebDataset pipeline over local shard folders: shards and then `shuffle` samples shuffled (0 = neither).

    Compose on: ``.map(…).batched(64)``, and a DataLoader with worker processes. `options` go to ``webdataset.WebDataset``.
    """
    folders = [ShardFolder(place) for place in many(shards)]
    for folder in folders:
        if folder.is_remote:
            raise InputError(f"{folder}: WebDataset reads shards here from local folders; take cmelt.ShardDataset, or copy the folder")
    tars = [str(folder.path / shard["name"]) for folder in folders for shard in folder.manifest["shards"]]
    if not tars:
        raise ShardError(f"{', '.join(map(str, folders))}: no shard holds a sample")
    data = wds.WebDataset(tars, shardshuffle=len(tars) if shuffle else False, seed=seed, **options).decode()
    data = data.select(partial(belongs, checked(split))).map(plain)
    return data.shuffle(shuffle, seed=seed) if shuffle else data


def belongs(split: str, sample: dict[str, Any]) -> bool:
    """Say whether a decoded sample of a tar belongs to `split`; '' is all of them."""
    return not split or sample["json"]["split"] == split


def plain(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded sample of a tar as this module gives it."""
    rest = sample["json"]
    ecg = torch.from_numpy(sample["ecg.npy"]).float().mul_(rest["lsb_uv"] * 1e-3)
    return {"ecg": ecg, "report": sample["txt"]} | {name: rest[name] for name in COLUMNS if name != "report"}


def many(shards: Shards) -> list[Path | str]:
    """Return one folder or several as a list."""
    return [shards] if isinstance(shards, str | Path) else list(shards)


def checked(split: str) -> str:
    """Return `split`; raises InputError for one that there is not."""
    if split and split not in SPLITS:
        raise InputError(f"split {split!r}: known are {', '.join(SPLITS)}, and '' for all")
    return split
