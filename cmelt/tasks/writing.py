"""`cmelt generate score`: reports written for a fold, beside the true ones: BLEU, ROUGE-L, and the findings that they name.

N recordings, E findings, R bootstrap resamples. Everything measured is made of counts that are added up over recordings, so that a
resample of patients is a product with its weights.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.console import Group

from cmelt import __version__
from cmelt.config import DataSettings
from cmelt.errors import CheckpointError, InputError
from cmelt.files import open_whole, write_json
from cmelt.metrics import Floats, difference, interval, macro, resample_weights
from cmelt.models.store import WEIGHTS
from cmelt.models.writer import FACTS, Writer
from cmelt.record import SPLITS
from cmelt.shards.progress import told
from cmelt.tasks.base import RUNS
from cmelt.tasks.results import cells, columns, number, pair, plain
from cmelt.text.entities import Status, entities, entity_matrix, known_entities
from cmelt.text.overlap import LONGEST, bleu, bleu_counts, rouge_l
from cmelt.training.corpus import Corpus
from cmelt.training.pairs import BLOCK
from cmelt.training.resume import read_facts

WRITER = "writer"
"""Folder of a run in which the model lies: not at the run's top, where tasks look for ECG encoders."""

RESAMPLES = 1000

MEASURES = {
    "entity_micro_f1": "findings, micro F1",
    "entity_macro_f1": "findings, macro F1",
    "entity_micro_precision": "findings, precision",
    "entity_micro_recall": "findings, recall",
    **{f"bleu_{size}": f"BLEU-{size}" for size in range(1, LONGEST + 1)},
    "rouge_l": "ROUGE-L",
}
"""What is measured → how it is told."""


@dataclass(frozen=True)
class Compared:
    """N written reports beside the true ones, as counts."""

    overlap: NDArray[np.float64]
    """(N, …) of `bleu_counts`."""
    rouge: NDArray[np.float64]
    """(N,)."""
    said: NDArray[np.bool_]
    """(N, E): findings that the written report says to be present."""
    true: NDArray[np.bool_]
    """(N, E): those that the true one does."""

    @classmethod
    def of(cls, written: Sequence[str], true: Sequence[str]) -> Compared:
        """Compare reports with the true ones, both cleaned as ingest cleans them."""
        said, meant = (entity_matrix(reports) == Status.PRESENT for reports in (written, true))
        return cls(bleu_counts(written, true), rouge_l(written, true), said, meant)

    def measures(self, weights: NDArray[np.float32]) -> dict[str, Floats]:
        """Return each of MEASURES under each column of `weights` (N, R), (R,); macro F1 is that of findings that any true report has."""
        by = weights.T.astype(float)  # (R, N)
        hits, said, true = (by @ counts.astype(float) for counts in (self.said & self.true, self.said, self.true))  # (R, E)
        every = [counts.sum(1) for counts in (hits, said, true)]
        per_finding = np.where(self.true.any(0), _ratio(2 * hits, said + true), np.nan)
        counts = by @ self.overlap
        return {
            "entity_micro_f1": _ratio(2 * every[0], every[1] + every[2]),
            "entity_macro_f1": np.asarray(macro(per_finding, axis=1)),
            "entity_micro_precision": _ratio(every[0], every[1]),
            "entity_micro_recall": _ratio(every[0], every[2]),
            **{f"bleu_{size}": bleu(counts, size) for size in range(1, LONGEST + 1)},
            "rouge_l": _ratio(by @ self.rouge, by.sum(1)),
        }


def score(
    run: Path | None = None,
    shards: Sequence[Path | str] | None = None,
    fold: str = "test",
    *,
    beams: int = 1,
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write a report for every recording of `fold` and measure how near the true ones they are; leave JSON and Parquet in the run.

    `shards` default to the run's own; `limit` scores so many recordings that `seed` draws. Beside the model stand the training split's
    most frequent report, given to every recording, and a training report drawn by `seed` for each. Raises CheckpointError, ShardError
    or InputError.
    """
    if fold not in SPLITS:
        raise InputError(f"fold {fold!r}: known are {', '.join(SPLITS)}")
    folder, writer = load_writer(run)
    places = list(shards or read_facts(folder)["shards"])
    corpus, learnt = Corpus(places, fold, ""), Corpus(places, "train", "", DataSettings(leaks="keep"))
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(corpus))[:limit])
    true = [corpus.reports[number] for number in corpus.report_id[rows]]
    written: list[str] = []
    first_folder = corpus.folders[0]
    with told("reports", len(rows), quiet) as advance:
        for first in range(0, len(rows), BLOCK):
            some = rows[first : first + BLOCK]
            prompts = writer.prompts(corpus.ecg_mv(some), first_folder.leads, first_folder.fs_hz)
            written += [best for (best,) in writer.write(prompts, beams)]
            advance(len(some))
    frequent = Counter(learnt.report_id.tolist()).most_common(1)[0]
    usual = learnt.reports[frequent[0]]
    drawn = [learnt.reports[number] for number in learnt.report_id[rng.integers(len(learnt), size=len(rows))]]
    people = np.array(corpus.column("patient_id"), object)[rows]
    patients = [f"{corpus.folder_of[row]}/{who or f'recording {row}'}" for row, who in zip(rows, people, strict=True)]
    others = {"most_frequent_report": [usual] * len(rows), "random_report": drawn}
    found = compare_all(written, true, others, patients)
    facts: dict[str, Any] = {
        "task": "generate",
        "run": str(folder),
        "checkpoint_sha256": _sha256(folder),
        "shards": [str(place) for place in places],
    }
    facts |= {"fold": fold, "beams": beams, "recordings": len(rows), "patients": len(set(patients)), "trained_on": len(learnt)}
    facts |= {"most_frequent_report": usual, "most_frequent_share": plain(frequent[1] / len(learnt))}
    same = np.mean([one == other for one, other in zip(written, true, strict=True)])
    facts |= {"distinct_written": len(set(written)), "distinct_true": len(set(true)), "word_for_word": plain(same)}
    result = facts | found
    name = "generate" if fold == "test" else f"generate-{fold}"
    keys = np.array(corpus.column("key"), object)[rows]
    table_of = {"key": keys.tolist(), "patient": np.unique(patients, return_inverse=True)[1], "report": true, "written": written}
    with open_whole(folder / "results" / f"{name}.parquet") as file:
        pq.write_table(pa.table(table_of), file)
    write_json(folder / "results" / f"{name}.json", {"version": __version__} | result)
    return result


def compare_all(
    written: Sequence[str], true: Sequence[str], others: Mapping[str, Sequence[str]], patients: Sequence[str]
) -> dict[str, Any]:
    """Return what a result tells of `written` reports and, in pairs over resamples of `patients`, of `others` for the same recordings."""
    weights = resample_weights(patients, RESAMPLES)
    once = np.ones((len(true), 1), np.float32)
    model = Compared.of(written, true)
    value, samples = model.measures(once), model.measures(weights)
    out: dict[str, Any] = {"measures": {name: _told(value[name], samples[name]) for name in MEASURES}, "baselines": {}}
    beside: dict[str, Compared] = {}
    for other, texts in others.items():
        beside[other] = Compared.of(texts, true)
        theirs, their_samples = beside[other].measures(once), beside[other].measures(weights)
        rows = {}
        for name in MEASURES:
            gap = difference(float(value[name][0] - theirs[name][0]), samples[name] - their_samples[name])
            rows[name] = _told(theirs[name], their_samples[name])
            rows[name] |= {"difference": plain(gap.value), "difference_ci95": pair(gap.ci95), "difference_p": plain(gap.p)}
        out["baselines"][other] = rows
    per_finding = {}
    for place, entity in enumerate(known_entities()):
        meant, said = model.true[:, place], model.said[:, place]
        if meant.any() or said.any():
            per_finding[entity.code] = {"finding": entity.words, "true": int(meant.sum()), "written": int(said.sum())}
            per_finding[entity.code] |= {"f1": plain(_f1(said, meant))}
            per_finding[entity.code] |= {name: plain(_f1(other.said[:, place], meant)) for name, other in beside.items()}
    return out | {"per_finding": per_finding}


def findings(report: str) -> dict[str, str]:
    """Return the findings that a report says to be present, code → words."""
    said = entities(report)
    return {entity.code: entity.words for entity in known_entities() if said.get(entity.code) == Status.PRESENT}


def load_writer(run: Path | None) -> tuple[Path, Writer]:
    """Return run folder `run` (default: the newest that writes reports) and its model, on the best device there is.

    Raises CheckpointError.
    """
    if run is None:
        files = sorted(RUNS.glob(f"*/{WRITER}/{FACTS}"), key=lambda file: (file.stat().st_mtime_ns, file))
        if not files:
            raise CheckpointError(f"no run under {RUNS}/ writes reports; make one with cmelt generate train, or name one with --run")
        run = files[-1].parents[1]
    writer = Writer.from_pretrained(run / WRITER)
    return run, writer.to("cuda" if torch.cuda.is_available() else "cpu")


def table(result: dict[str, Any]) -> Group:
    """Return a result for the terminal: each measure of the model and the baselines, then F1 by finding."""
    names = list(result["baselines"])
    heads = [part for name in names for part in (name.replace("_", "\n"), "minus\nit")]
    first = columns(f"reports · fold {result['fold']} · {result['run']}", "measure", "model", "95 %", *heads)
    for name, said in MEASURES.items():
        one = result["measures"][name]
        rest = [(result["baselines"][other][name]["value"], result["baselines"][other][name]["difference"]) for other in names]
        more = [part for value, gap in rest for part in (number(value), number(gap, "+.3f"))]
        first.add_row(said, *cells(one["value"], one["ci95"]), *more)
    first.caption = (
        f"{result['recordings']} recordings of {result['patients']} patients; intervals: bootstrap over patients; "
        f"{result['distinct_written']} different reports written, {result['distinct_true']} true; "
        f"most frequent in training ({number(result['most_frequent_share'], '.1%')}): {result['most_frequent_report']}"
    )
    second = columns("by finding · F1", "finding", "", "true", "written", "model", *(name.replace("_", "\n") for name in names))
    for code, one in sorted(result["per_finding"].items(), key=lambda item: -item[1]["true"]):
        if one["true"]:
            second.add_row(code, one["finding"], str(one["true"]), str(one["written"]), *(number(one[name]) for name in ("f1", *names)))
    return Group(first, second)


def _told(value: Floats, samples: Floats) -> dict[str, Any]:
    return {"value": plain(float(value[0])), "ci95": pair(interval(samples))}


def _ratio(a: Floats, b: Floats) -> Floats:
    """Return a / b, 0 where nothing was said and nothing was to be said."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(_ratio(np.array([2.0 * (said & true).sum()]), np.array([float(said.sum() + true.sum())]))[0])


def _sha256(folder: Path) -> str:
    with (folder / WRITER / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
