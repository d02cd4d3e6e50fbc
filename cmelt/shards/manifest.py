"""The manifest: what a shard folder holds. It is written last, so a folder without one is unfinished."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cmelt.errors import ShardError
from cmelt.shards.format import FORMAT_VERSION, MANIFEST

REQUIRED = ("dataset", "dataset_version", "recipe", "leads", "fs_hz", "samples", "lsb_uv", "counts", "index_sha256", "shards")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a finished shard folder; raises ShardError where there is none, or one that is not understood."""
    if not folder.is_dir():
        raise ShardError(f"{folder} is not a folder; make one with: cmelt ingest DATASET RAW {folder}")
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except FileNotFoundError:
        raise ShardError(f"{folder} has no {MANIFEST}: unfinished, or no shard folder; run its cmelt ingest command (again)") from None


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """Return the manifest that `data` of file `where` is; raises ShardError where it is none that is understood."""
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise ShardError(f"{where} is damaged ({error}); make the folder again with cmelt ingest") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(f"{where} has shard format {version}, this cmelt reads {FORMAT_VERSION}; make the folder again with cmelt ingest")
    absent = [key for key in REQUIRED if key not in manifest]
    if absent:
        raise ShardError(f"{where} lacks {', '.join(absent)}; make the folder again with cmelt ingest")
    found: dict[str, Any] = manifest
    return found


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
