"""Find the ECGs nearest to words: exact search (FAISS) over the embeddings of shard folders. Patients are never named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cmelt.config import did_you_mean
from cmelt.embed import rows_of
from cmelt.errors import InputError
from cmelt.inspect import Hide
from cmelt.shards.read import ShardFolder
from cmelt.tasks.base import load_for, open_run
from cmelt.tasks.features import features

if TYPE_CHECKING:
    from rich.table import Table

SIMILARITIES = ("cosine", "dot")


def search(
    query: str,
    shards: Sequence[Path | str] | None = None,
    run: Path | None = None,
    top: int = 10,
    split: str = "",
    where: str = "",
    similarity: str = "cosine",
    plot: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return the `top` ECGs of `shards` (default: the run's own) nearest to the words of `query`, the nearest first; of one
    `split` where it is named, and those for which the filter `where` is true.

    Each is a row of ``found``: rank, key, dataset, split, score, report, age, sex. `plot`, a folder, gets a picture of each on ECG paper.
    Keys that may name a patient are digests, and ids are blotted out of reports. Raises InputError, ShardError or CheckpointError.
    """
    if not query.strip():
        raise InputError("nothing to search for; give a few words, such as: cmelt search 'atrial fibrillation'")
    if similarity not in SIMILARITIES:
        raise InputError(f"--similarity {similarity!r}{did_you_mean(similarity, SIMILARITIES)}; known: {', '.join(SIMILARITIES)}")
    opened = open_run(run, shards)
    folders = [ShardFolder(path) for path in opened.shards]
    rows = rows_of(folders, split, where)
    model = load_for(opened, folders)
    sought = [(folder, some) for folder, some in zip(folders, rows, strict=True) if len(some)]
    ecg = [features(model, folder, some, "ecg", opened.cache, "embeddings", quiet)["embedding"] for folder, some in sought]
    words = model.encode_text(query).float().cpu().numpy()
    scores, at = nearest(np.concatenate(ecg), words, top, similarity == "cosine")
    folder_of = np.repeat(np.arange(len(folders)), list(map(len, rows)))
    row_of = np.concatenate(rows)
    hides = [Hide(folder) for folder in folders]
    found = []
    for rank, (score, place) in enumerate(zip(scores[0], at[0], strict=True), 1):
        folder, hide = folders[folder_of[place]], hides[folder_of[place]]
        hit = tell(folder, int(row_of[place]), hide)
        found.append({"rank": rank, "score": round(float(score), 6)} | hit)
        if plot:
            draw(folder, int(row_of[place]), found[-1], plot, query)
    return {"query": query, "run": str(opened), "searched": len(row_of), "similarity": similarity, "found": found}


def nearest(
    candidates: NDArray[np.float32], queries: NDArray[np.float32], top: int, cosine: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the scores and places (Q, top) of the candidates (N, D) nearest to each query (Q, D), by cosine or by dot product."""
    candidates, queries = (np.array(x, np.float32, order="C") for x in (candidates, queries))
    if cosine:
        faiss.normalize_L2(candidates)
        faiss.normalize_L2(queries)
    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates)
    scores, places = index.search(queries, min(top, len(candidates)))
    return scores, places


def tell(folder: ShardFolder, row: int, hide: Hide) -> dict[str, Any]:
    """Return what may be told of `row` to whom patients are unknown."""
    of = folder.index.slice(row, 1).to_pylist()[0]
    about = {"key": hide.key(of["key"]), "dataset": str(folder.manifest["dataset"]), "split": of["split"]}
    return about | {"age": of["age"], "sex": of["sex"], "report": hide.report(of["report"] or "", of["source"])}


def draw(folder: ShardFolder, row: int, hit: dict[str, Any], out: Path, query: str) -> None:
    """Draw one ECG that was found as ``RANK-KEY.png`` in folder `out`, its file name beside the others of `hit`."""
    from cmelt.plots import plot_ecg

    name = f"{hit['rank']:02d}-{re.sub(r'[^A-Za-z0-9_-]', '-', hit['key'])}.png"
    known = [hit["key"], "" if hit["age"] is None else f"{hit['age']:.0f} years", hit["sex"], f"{hit['score']:.3f} to “{query[:60]}”"]
    plot_ecg(folder.ecg_mv([row])[0], folder.fs_hz, out / name, title=" · ".join(filter(None, known)), note=hit["report"])
    hit["picture"] = str(out / name)


def table(result: dict[str, Any]) -> Table:
    """Return what was found for the terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"“{result['query']}” · nearest of {result['searched']} ECGs by {result['similarity']} · {result['run']}"
    out = Table("rank", "key", "score", "report", title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    out.columns[0].justify = out.columns[2].justify = "right"
    for hit in result["found"]:
        out.add_row(str(hit["rank"]), hit["key"], f"{hit['score']:.3f}", Text(excerpt(hit["report"]) or "(none)"))
    return out


def excerpt(text: str, most: int = 100) -> str:
    """Return the beginning of `text`, at most so many characters, cut between words."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " …"
