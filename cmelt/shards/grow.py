"""A finished shard folder that grows: new recordings, and refused ones tried again, go into new shards behind the old.

While it grows the old manifest and list of refusals lie in ``.cmelt`` too, and no finished shard is touched; a rerun goes on from them.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cmelt.errors import OutputError
from cmelt.record import Refused, Source
from cmelt.shards.format import INDEX, MANIFEST, REJECTS
from cmelt.shards.manifest import parse_manifest
from cmelt.shards.plan import WORK, differences
from cmelt.shards.store import Store

BASE, BASE_REJECTS = f"{WORK}/base.json", f"{WORK}/base-rejects.parquet"

MAY_CHANGE = ("dataset_version", "options.table_sha256", "limit", "extends")
"""Terms in which a folder that grows may differ from before."""

WINDOW = re.compile(r"_w\d{4}$")


@dataclass(slots=True)
class Base:
    """A finished folder before it grows."""

    manifest: dict[str, Any]
    kept: set[str] = field(default_factory=set)
    """Where its recordings lie below RAW."""
    keys: set[str] = field(default_factory=set)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Key and path of what it refused → how often."""
    rejects: list[dict[str, str]] = field(default_factory=list)
    again: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What of it is tried again."""

    @property
    def shards(self) -> int:
        """Return the number of the first shard that is new."""
        return max((int(shard["name"][-10:-4]) + 1 for shard in self.manifest["shards"]), default=0)

    def check(self, terms: dict[str, Any]) -> None:
        """Raise OutputError where the folder was made from other terms than `terms`."""
        old = {name: self.manifest.get(name) for name in terms}
        found = [said for said in differences(old, terms) if said.partition(" is ")[0] not in MAY_CHANGE]
        if found:
            raise OutputError(f"the folder cannot grow by recordings made otherwise ({'; '.join(found)}); choose another OUT")

    def new(self, found: Iterable[Source | Refused], extend: bool, retry: bool) -> Iterator[Source | Refused]:
        """Yield what of `found` is to be done: with `extend` what the folder does not name, with `retry` what it refused."""
        for item in found:
            who = (item.key, item.path)
            if who in self.refused:
                if not retry or item.path in self.kept or self.again[who] == self.refused[who]:
                    continue
                self.again[who] += 1
            elif item.path in self.kept or not extend:
                continue
            yield item

    def standing(self) -> Iterator[Refused]:
        """Yield the refusals of which `new` tried nothing again."""
        left = self.again.copy()
        for row in self.rejects:
            who = (row["key"], row["source"])
            left[who] -= 1
            if left[who] < 0:
                yield Refused(*who, row["reason"], row["detail"])


def read_base(store: Store) -> Base | None:
    """Return the finished folder in `store`, or the one that an unfinished growth began from; None where there is neither."""
    grows = store.exists(BASE)
    if not grows and not store.exists(MANIFEST):
        return None
    base = Base(parse_manifest(store.read(BASE if grows else MANIFEST), f"{store}/{MANIFEST}"))
    base.rejects = pq.ParquetFile(io.BytesIO(store.read(BASE_REJECTS if grows else REJECTS))).read(use_threads=False).to_pylist()
    base.refused = Counter((row["key"], row["source"]) for row in base.rejects)
    for rows in base_rows(store, base.manifest, ["key", "source", "shard"]):
        sources = rows.column("source").to_pylist()
        windows = {source for source, count in Counter(sources).items() if count > 1}
        base.kept.update(sources)
        base.keys.update(
            WINDOW.sub("", key) if source in windows else key for key, source in zip(rows.column("key").to_pylist(), sources, strict=True)
        )
    return base


def base_rows(store: Store, manifest: dict[str, Any], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the index rows of the shards of `manifest`, shard by shard; new ones may follow them in the index already."""
    names = {shard["name"] for shard in manifest["shards"]}
    with store.open(INDEX) as file:
        index = pq.ParquetFile(file)
        for number in range(index.num_row_groups):
            rows = index.read_row_group(number, columns, use_threads=False)
            if len(rows) and rows.column("shard")[0].as_py() in names:
                yield rows
