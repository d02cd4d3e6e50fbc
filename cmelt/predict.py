"""Look at one ECG through a checkpoint: which texts and which reports it resembles, and what each lead contributes.

C classes, D embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmelt.config import SignalSettings, did_you_mean
from cmelt.datasets.cpsc2018 import CPSC2018
from cmelt.errors import CmeltError, InputError, RecordError
from cmelt.exports import kind_of
from cmelt.inspect import Hide
from cmelt.models.cmelt import CMELT
from cmelt.raw import Raw
from cmelt.record import FLAGS, LEADS
from cmelt.search import excerpt, nearest
from cmelt.shards.read import ShardFolder
from cmelt.signal.checks import check
from cmelt.signal.condition import repair, windows
from cmelt.signal.decode import Decoded, decode
from cmelt.signal.exports import decode_export
from cmelt.signal.mat import decode_struct
from cmelt.tasks.base import Run, load_for, open_run
from cmelt.tasks.features import features, reports
from cmelt.tasks.zeroshot import RULE, TEXTS, class_vectors, prompts, read_texts, similarities
from cmelt.text.entities import known_entities

if TYPE_CHECKING:
    from rich.console import Group

WARNING = "not for clinical use"
SHOWN = 10
"""Findings told on a terminal, the most probable."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """A recording as the model sees it: ``signal_mv`` (12, samples) at ``fs_hz``, and what was found or done on the way, of FLAGS."""

    signal_mv: NDArray[np.float32]
    fs_hz: float
    flags: tuple[str, ...]


def predict(
    recording: Path,
    run: Path | None = None,
    task: str = "",
    texts: Sequence[str] = (),
    *,
    classes: Path | None = None,
    kind: str = RULE[0],
    explain: str = "",
    shards: Sequence[Path | str] | None = None,
    top: int = 5,
    mains_hz: float = 50.0,
    zero_missing: bool = False,
    plot: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Return what checkpoint `run` (default: the newest) makes of one `recording`, conditioned as the checkpoint says.

    Compared with it are the classes of `task` (by texts of `kind`), or the `texts` given, or those of a CSV, `classes`; by default task
    superclass. ``contributions`` are what the similarity to class `explain` (default: the most similar) loses when a lead is zeroed;
    ``entities`` how probable each finding is by the checkpoint's entity queries, where it has them; ``reports`` the `top` reports nearest
    to the ECG among the training split of `shards` (default: the run's own, where they are still there). `plot` is a file for a picture.
    Raises InputError, TaskError, ShardError or CheckpointError.
    """
    if plot:
        from cmelt.plots import picture_kind  # brings matplotlib, which only pictures want

        picture_kind(plot)
    opened = open_run(run, shards, needed=False)
    words = class_words(task, texts, classes, kind)
    if explain and explain not in words:
        raise InputError(f"--explain {explain!r}{did_you_mean(explain, words)}; the classes are: {', '.join(words)}")
    folders, without = open_training(opened, asked=bool(shards)) if top else ([], "not asked for")
    model = load_for(opened, folders)
    seen = see(recording, model.config.conditioning, mains_hz, zero_missing or model.ecg_encoder.any_leads)
    leads = np.array(seen.signal_mv)[None].repeat(1 + len(LEADS), axis=0)  # whole, then without each lead
    leads[1 + np.arange(len(LEADS)), np.arange(len(LEADS))] = 0
    ecg = model.encode_ecg(leads).float().cpu().numpy()  # (13, D)
    vectors = class_vectors(model, {"": words})[""]
    cosine = similarities(ecg, vectors, "cosine")  # (13, C)
    share = similarities(ecg[:1], vectors, "softmax")[0]
    names = list(words)
    order = np.argsort(-cosine[0], kind="stable")
    about = names.index(explain) if explain else int(order[0])
    contributions = cosine[0, about] - cosine[1:, about]
    result: dict[str, Any] = {
        "recording": str(recording),
        "run": str(opened),
        "use": WARNING,
        "classes": [{"class": names[c], "texts": words[names[c]], "cosine": six(cosine[0, c]), "share": six(share[c])} for c in order],
        "explained": names[about],
        "contributions": {lead: six(value) for lead, value in zip(LEADS, contributions, strict=True)},
        "entities": asked(model, leads[:1]),
        "reports": nearest_reports(model, folders, opened, ecg[:1], top, quiet) if folders else [],
        "without_reports": without,
        "flags": {flag: FLAGS[flag] for flag in seen.flags},
    }
    if plot:
        result["picture"] = str(draw(result, seen, contributions, plot))
    return result


def asked(model: CMELT, ecg: Vectors) -> list[dict[str, Any]]:
    """Return how probable each finding is that the entity queries of `model` ask an ECG (1, 12, samples) for, most probable first."""
    if model.entity_head is None:
        return []
    known = {entity.code: entity.words for entity in known_entities()}
    probable = zip(model.config.entities, model.entity_probabilities(ecg)[0].tolist(), strict=True)
    return [
        {"entity": code, "words": known.get(code, code), "probability": six(value)} for code, value in sorted(probable, key=lambda x: -x[1])
    ]


def six(value: float) -> float:
    """Return a number with six digits after the point."""
    return round(float(value), 6)


def class_words(task: str, texts: Sequence[str], classes: Path | None, kind: str) -> dict[str, list[str]]:
    """Return the texts of each class that is compared: one class a text of `texts`, those of a CSV, or those of a task."""
    if sum(map(bool, (task, texts, classes))) > 1:
        raise InputError("give one of --task, --text and --classes")
    if any(not text.strip() for text in texts):
        raise InputError("a --text is empty; give words, such as --text 'atrial fibrillation'")
    if texts:
        return {text: [text] for text in texts}
    if classes:
        return read_texts(classes, ())
    if kind not in TEXTS:
        raise InputError(f"no texts {kind!r}{did_you_mean(kind, TEXTS)}; known: {', '.join(TEXTS)}")
    return prompts(task or "superclass", kind)


def open_training(run: Run, asked: bool) -> tuple[list[ShardFolder], str]:
    """Return the shard folders whose reports are searched; or none, and why: only folders that were `asked` for must be there."""
    try:
        return [ShardFolder(path) for path in run.shards], "" if run.shards else "the run does not say what it was trained on"
    except CmeltError as error:
        if asked:
            raise
        return [], str(error)


def see(file: Path, settings: SignalSettings, mains_hz: float = 50.0, zero_missing: bool = False) -> Seen:
    """Return the recording in `file` conditioned by `settings`; raises InputError where it cannot be read or used.

    WFDB records are named by their header, with or without its ending; of CPSC2018's .mat and the formats that hospitals export, the
    file itself is. `mains_hz` is the frequency of the mains where it was recorded; `zero_missing` fills absent leads with zeros.
    """
    if not file.is_file() and not file.with_name(file.name + ".hea").is_file():
        raise InputError(f"{file}: no such recording; name a WFDB header (.hea), or a file that a hospital exported")
    if zero_missing:
        settings = settings.model_copy(update={"missing_leads": "zero"})
    try:
        decoded = read(Raw(file.parent), file.name)
        flags = [*decoded.flags, *repair(decoded, settings)]
        flags += check(decoded.signal, decoded.fs_hz, decoded.present)
        window = windows(decoded, settings, mains_hz)[0]
    except RecordError as error:
        more = "; --zero-missing fills them with zeros" if error.reason == "missing_leads" and decoded_some(error) else ""
        raise InputError(f"{file}: {error}{more}") from None
    return Seen(window.signal, settings.fs_hz, tuple(dict.fromkeys([*flags, *window.flags])))


def decoded_some(error: RecordError) -> bool:
    """Say whether some of the leads are there, where others are missing."""
    return any(lead in error.detail.split() for lead in LEADS)


def read(raw: Raw, name: str) -> Decoded:
    """Return the recording in file `name` of `raw`, by its format; raises RecordError."""
    stem = name.rpartition(".")[0] or name
    for header in (name if name.lower().endswith(".hea") else "", f"{name}.hea", f"{stem}.hea"):
        if header and raw.exists(header):
            return decode(raw, header)
    if name.lower().endswith(".mat"):
        return decode_struct(raw, name, **CPSC2018.layout)
    if kind_of(raw, name):
        return decode_export(raw, name)
    raise RecordError("unreadable", "neither a WFDB header nor a format that hospitals export")


def nearest_reports(model: CMELT, folders: Sequence[ShardFolder], run: Run, ecg: Vectors, top: int, quiet: bool) -> list[dict[str, Any]]:
    """Return the `top` distinct reports of the training split nearest to an ECG (1, D): score, report, how many recordings have it."""
    count: Counter[str] = Counter()
    vectors: list[Vectors] = []
    for folder in folders:
        rows, hide = folder.rows("train"), Hide(folder)
        told = reports(folder, rows)
        rows, told = rows[told != ""], told[told != ""]
        distinct, first, times = np.unique(told, return_index=True, return_counts=True)
        sources = folder.table(["source"]).column("source").take(rows[first]).to_pylist()
        shown = [hide.report(text, source) for text, source in zip(distinct, sources, strict=True)]
        new = np.array([text not in count for text in shown], bool)
        for text, number in zip(shown, times, strict=True):
            count[text] += int(number)
        if new.any():
            vectors.append(features(model, folder, rows[first], "text", run.cache, "reports", quiet)["embedding"][new])
    if not vectors:
        return []
    texts = list(count)
    scores, places = nearest(np.concatenate(vectors), ecg, top)
    return [
        {"score": six(score), "report": texts[place], "recordings": count[texts[place]]}
        for score, place in zip(scores[0], places[0], strict=True)
    ]


def draw(result: dict[str, Any], seen: Seen, contributions: NDArray[Any], file: Path) -> Path:
    """Draw the ECG as the model saw it, each lead shaded by its contribution; returns `file`."""
    from cmelt.plots import plot_ecg

    found = next(row for row in result["classes"] if row["class"] == result["explained"])
    title = f"{Path(result['recording']).name} · similarity to “{result['explained'][:60]}” {found['cosine']:.3f}"
    note = "shaded: what the similarity loses without the lead (blue) or gains (red); the number says how much"
    plot_ecg(seen.signal_mv, seen.fs_hz, file, title=title, note=note, weights=contributions)
    return file


def table(result: dict[str, Any]) -> Group:
    """Return what was found for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def grid(title: str, *columns: str) -> Table:
        out = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            out.add_column(column, justify="left" if number in (0, 3) else "right")
        return out

    classes = grid(f"{result['recording']} · {result['run']}", "class", "cosine", "share", "text")
    for row in result["classes"]:
        more = f" (and {len(row['texts']) - 1} more)" if len(row["texts"]) > 1 else ""
        classes.add_row(Text(row["class"]), f"{row['cosine']:z.3f}", f"{row['share']:.3f}", Text(excerpt(row["texts"][0], 60) + more))
    most = sorted(result["contributions"].items(), key=lambda item: -item[1])
    leads = ", ".join(f"{lead} {value:+z.3f}" for lead, value in most)
    parts: list[Any] = [classes, Text(f"what each lead contributes to “{result['explained']}”: {leads}")]
    if result["entities"]:
        found = grid("findings, by entity queries", "finding", "probability")
        for row in result["entities"][:SHOWN]:
            found.add_row(row["words"], f"{row['probability']:.2f}")
        parts.append(found)
    if result["reports"]:
        near = grid("nearest reports of the training split", "report", "score", "recordings")
        for row in result["reports"]:
            near.add_row(Text(excerpt(row["report"])), f"{row['score']:.3f}", str(row["recordings"]))
        parts.append(near)
    elif result["without_reports"]:
        parts.append(Text(f"no nearest reports: {result['without_reports']}"))
    parts += [Text(f"{flag}: {what}") for flag, what in result["flags"].items()]
    return Group(*parts, WARNING)
