"""What a data set is: a raw folder in, Sources out; a class a family, a registry line each."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from cmelt.raw import Raw
from cmelt.record import Refused, Source


class Dataset(ABC):
    """A published data set in its own layout. A subclass says what it is, and yields where its recordings lie."""

    name: str
    """Names the shards; also `dataset` in the manifest."""
    title: str
    licence: str
    access: str
    """Where it is had, and on what terms."""
    citation: str = ""
    """What its authors ask to be cited."""
    size: str = ""
    """Recordings and bytes, in words."""
    mains_hz: float
    """The frequency of the mains where it was recorded, where a Source does not say otherwise."""
    split_rule: str = "as published"
    """How recordings came to their splits, in words, for the manifest."""
    decoder: str = "cmelt.signal.decode:decode"
    """The function that decodes a recording of this family, as module:name; it is called as (raw, path, **layout)."""
    layout: Mapping[str, Any] = MappingProxyType({})
    """What the decoder must be told because the files do not say it."""

    def __init__(self, raw: Raw, **options: Any) -> None:
        self.raw = raw
        self.options = options
        """What was asked of this family, defaults included; part of the plan and the manifest."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Return the published version that this folder holds, or 'unknown'."""

    @abstractmethod
    def sources(self) -> Iterator[Source | Refused]:
        """Yield every recording that the data set's table names, in its order; Refused where that is already certain."""


def key_of(path: str) -> str:
    """Return a record's key: its file name without extension, with '_' for what a key cannot have; room is left for a window's number."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", path.rpartition("/")[2].partition(".")[0])[:74] or "_"
