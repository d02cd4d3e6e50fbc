"""The commands that ask a checkpoint something: probe, finetune, identify, compare, zeroshot, embed, search, predict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cmelt.cli_options import (
    Fold,
    Json,
    Leads,
    Runs,
    Sets,
    Shards,
    Split,
    SplitFiles,
    Subgroups,
    Task,
    Tested,
    Trained,
    Where,
    console,
    emit,
)

tasks = typer.Typer()


@tasks.command()
def probe(
    task: Annotated[str, typer.Option("--task", help="superclass, subclass, form, rhythm, …; several with commas between.")] = "superclass",
    run: Runs = None,
    shards: Trained = None,
    test: Tested = None,
    splits: SplitFiles = None,
    protocol: Annotated[str, typer.Option(help="strict, merl-2024, melp-2025; several with commas between.")] = "strict",
    leads: Leads = "12",
    where: Where = "",
    lead_curve: Annotated[bool, typer.Option("--lead-curve", help="Probe with 12, 6, 4, 3, 2 and 1 leads, and draw the curve.")] = False,
    fractions: Annotated[str, typer.Option(help="Percentages of the training labels.")] = "1,10,100",
    seeds: Annotated[int | None, typer.Option(min=1, help="Draws of a fraction; default: the protocol's own number.")] = None,
    baselines: Annotated[str, typer.Option(help="random_init, trivial, random_conv, supervised; or none.")] = "random_init",
    fold: Fold = "test",
    subgroups: Subgroups = False,
    as_json: Json = False,
) -> None:
    """Probe the frozen ECG encoder linearly, beside baselines that learnt nothing."""
    from cmelt.tasks import curve as curves
    from cmelt.tasks import probe as verb
    from cmelt.tasks.split import read_leads, read_shares

    wanted: dict[str, Any] = {"tested": test or (), "splits": splits, "fractions": read_shares(fractions), "seeds": seeds, "fold": fold}
    wanted |= {"where": where, "subgroups": subgroups, "baselines": () if baselines == "none" else baselines.split(",")}
    for one in task.split(","):
        for rules in protocol.split(","):
            if lead_curve:
                curve = curves.lead_curve(run, shards, one, protocol=rules, **wanted)
                emit(curve) if as_json else console().print(curves.table(curve))
                continue
            result = verb.probe(run, shards, one, protocol=rules, leads=read_leads(leads), **wanted)
            emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def finetune(
    task: Task = "superclass",
    run: Runs = None,
    shards: Trained = None,
    test: Tested = None,
    splits: SplitFiles = None,
    recipe: Annotated[str, typer.Option(help="full, partial, or a .toml file.")] = "full",
    changes: Sets = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make; default: runs/finetune-TASK-N.")] = None,
    leads: Leads = "12",
    where: Where = "",
    subgroups: Subgroups = False,
    as_json: Json = False,
) -> None:
    """Train a checkpoint's ECG encoder, whole or in part, on the labels of a task."""
    from cmelt.config import load_recipe
    from cmelt.tasks import finetune as verb
    from cmelt.tasks.split import read_leads

    settings = load_recipe("finetune", recipe, changes or [])
    options: dict[str, Any] = {"tested": test or (), "splits": splits, "leads": read_leads(leads), "subgroups": subgroups}
    options["where"] = where
    result = verb.finetune(settings, run, shards, task, out, **options)
    if os.environ.get("RANK", "0") != "0":
        return  # one rank speaks for all
    emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def identify(
    run: Runs = None,
    shards: Shards = None,
    gallery: Annotated[Path | None, typer.Option(help="CSV of the recordings that are known; default: derived from patients.")] = None,
    probes: Annotated[Path | None, typer.Option(help="CSV of the recordings whose patient is sought.")] = None,
    arcface: Annotated[bool, typer.Option("--arcface", help="Also with the encoder tuned on the training patients.")] = False,
    train: Annotated[Path | None, typer.Option(help="CSV of recordings and labels to tune on; default: the training split.")] = None,
    recipe: Annotated[str, typer.Option(help="How it is tuned: full, partial, or a .toml file.")] = "full",
    changes: Sets = None,
    leads: Leads = "12",
    where: Where = "",
    as_json: Json = False,
) -> None:
    """Find patients again: is the nearest ECG in a gallery of the same person?"""
    from cmelt.config import load_recipe
    from cmelt.tasks import identify as verb
    from cmelt.tasks.split import read_leads

    settings = load_recipe("finetune", recipe, changes or []) if arcface else None
    result = verb.identify(run, shards, gallery, probes, settings, train=train, leads=read_leads(leads), where=where)
    emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A prediction file of a run: results/….parquet.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same task and test recordings.")],
    as_json: Json = False,
) -> None:
    """Test in pairs, over test patients, whether one result is better than another."""
    from cmelt.tasks import compare as verb

    result = verb.compare(first, second)
    emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def zeroshot(
    task: Task = "superclass",
    run: Runs = None,
    shards: Shards = None,
    texts: Annotated[str, typer.Option(help="name, templates, description, reports (default) or all.")] = "",
    similarity: Annotated[str, typer.Option(help="contrast (with a normal ECG), softmax, cosine or dot (published).")] = "contrast",
    classes: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Your own texts: columns class,text.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="A sentence with {} in the place of a class's text; may be repeated.")] = None,
    by: Annotated[str, typer.Option(help="texts; or entities: the checkpoint's entity queries, where it has them.")] = "texts",
    leads: Leads = "12",
    where: Where = "",
    fold: Fold = "test",
    as_json: Json = False,
) -> None:
    """Classify ECGs by their similarity to a text for each class; and find reports by ECGs and ECGs by reports."""
    from cmelt.tasks import zeroshot as verb
    from cmelt.tasks.split import read_leads

    options: dict[str, Any] = {"classes": classes, "templates": template or (), "leads": read_leads(leads), "where": where, "fold": fold}
    result = verb.zeroshot(run, shards, task, texts, similarity, by=by, **options)
    emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def embed(
    shards: Annotated[list[str], typer.Argument(help="Shard folders, or URLs of them.")],
    run: Runs = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file to write.")] = Path("emb.parquet"),
    what: Annotated[str, typer.Option(help="ecg, text (of the reports) or both.")] = "ecg",
    split: Split = "",
    where: Where = "",
    as_json: Json = False,
) -> None:
    """Write the embeddings of ECGs, reports or both as a Parquet table."""
    from cmelt.embed import embed as verb

    summary = verb(shards, out, run, what, split, where)
    emit(summary) if as_json else console().print(
        f"{out}: {summary['rows']} recordings, {' and '.join(summary['columns'][3:])} of {summary['width']}"
    )


@tasks.command()
def search(
    query: Annotated[str, typer.Argument(help="Words, such as 'atrial fibrillation'.")],
    shards: Shards = None,
    run: Runs = None,
    top: Annotated[int, typer.Option(min=1, help="How many ECGs to name.")] = 10,
    split: Split = "",
    where: Where = "",
    similarity: Annotated[str, typer.Option(help="cosine or dot.")] = "cosine",
    plot: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw them on ECG paper in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Find the ECGs nearest to words; patients are never named."""
    from cmelt import search as verb

    result = verb.search(query, shards, run, top, split, where, similarity, plot)
    emit(result) if as_json else console().print(verb.table(result))


@tasks.command()
def predict(
    recording: Annotated[Path, typer.Argument(help="A WFDB header (.hea), or a file that a hospital exported.")],
    run: Runs = None,
    task: Annotated[str, typer.Option("--task", help="Compare with the classes of a task; default: superclass.")] = "",
    text: Annotated[list[str] | None, typer.Option(help="Compare with these words instead; may be repeated.")] = None,
    classes: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Or with your own texts: columns class,text.")] = None,
    texts: Annotated[str, typer.Option(help="Of a task: name, templates, description, reports or all.")] = "reports",
    explain: Annotated[str, typer.Option(metavar="CLASS", help="Whose similarity the leads make up; default: the most similar.")] = "",
    shards: Annotated[list[str] | None, typer.Option("--shards", help="Whose training reports are searched; default: the run's.")] = None,
    top: Annotated[int, typer.Option(min=0, help="How many reports to name.")] = 5,
    mains_hz: Annotated[float, typer.Option(min=0, help="The frequency of the mains where it was recorded.")] = 50.0,
    zero_missing: Annotated[bool, typer.Option("--zero-missing", help="Take a recording that lacks leads, zeros in their place.")] = False,
    plot: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture to draw.")] = Path("predict.png"),
    as_json: Json = False,
) -> None:
    """Say which texts and reports one ECG resembles, and draw what each lead contributes. Not for clinical use."""
    from cmelt import predict as verb

    asked: dict[str, Any] = {"classes": classes, "kind": texts, "explain": explain, "shards": shards, "top": top}
    asked |= {"mains_hz": mains_hz, "zero_missing": zero_missing, "plot": plot}
    result = verb.predict(recording, run, task, text or (), **asked)
    emit(result) if as_json else console().print(verb.table(result))
