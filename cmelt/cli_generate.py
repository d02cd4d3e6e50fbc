"""The commands of a model that writes reports: generate train, report, score."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cmelt.cli_options import Fold, Json, Sets, Shards, Where, console, emit

generate = typer.Typer(
    help="Reports written from ECG tokens by a language model, the way of ECG-Byte: train, report, score.", no_args_is_help=True
)

Run = Annotated[Path | None, typer.Option("--run", help="A run that cmelt generate train made; default: the newest under runs/.")]


@generate.command()
def train(
    shards: Annotated[list[str], typer.Option("--shards", help="A shard folder, or a URL of one; may be repeated.")],
    trained: Annotated[Path, typer.Option("--tokenizer", help="A folder that cmelt tokenizer train made.")],
    recipe: Annotated[str, typer.Option(help="tiny (from scratch), gpt2, or a .toml file.")] = "tiny",
    model: Annotated[str, typer.Option(help="Begin with this pre-trained model: a hub name or a local path.")] = "",
    changes: Sets = None,
    where: Where = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run folder; default: runs/generate-RECIPE-N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last training state of --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train a language model that reads ECG tokens and writes reports, on the training split."""
    from cmelt.config import load_recipe
    from cmelt.generate import train as verb

    begun = [f"model.name={json.dumps(model)}", "model.init=pretrained"] if model else []
    only = [f"data.where={json.dumps(where)}"] if where else []
    summary = verb(
        shards, trained, load_recipe("generate", recipe, [*begun, *only, *(changes or [])]), out, f"generate-{Path(recipe).stem}", resume
    )
    if os.environ.get("RANK", "0") != "0":
        return  # one rank speaks for all
    emit(summary) if as_json else console().print(f"run: {summary['run']}  steps: {summary['steps']}  {summary['minutes']:.1f} min")


@generate.command()
def report(
    recording: Annotated[Path | None, typer.Argument(help="A WFDB header (.hea), or a file that a hospital exported.")] = None,
    run: Run = None,
    shards: Annotated[str | None, typer.Option("--shards", help="Take a record of this shard folder instead: --key.")] = None,
    key: Annotated[str, typer.Option(help="Which record of --shards.")] = "",
    beams: Annotated[int, typer.Option(min=1, help="Reports that are followed at once, the likeliest wins; 1 = greedily.")] = 4,
    mains_hz: Annotated[float, typer.Option(min=0, help="The frequency of the mains where it was recorded.")] = 50.0,
    as_json: Json = False,
) -> None:
    """Write a report about one ECG. Not for clinical use."""
    from cmelt.generate import report as verb

    result = verb(recording, run, shards=shards, key=key, beams=beams, mains_hz=mains_hz)
    if as_json:
        emit(result)
        return
    lines = [result["report"], *([f"its report: {result['true']}"] if result["true"] else [])]
    lines += [f"findings: {', '.join(result['findings'].values()) or 'none'}", result["use"]]
    console().print("\n".join(lines), markup=False)


@generate.command()
def score(
    run: Run = None,
    shards: Shards = None,
    fold: Fold = "test",
    beams: Annotated[int, typer.Option(min=1, help="As in report; 1 = greedily, the quickest.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Score so many recordings, drawn at random.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the reports of a fold beside the true ones: findings (F1), BLEU, ROUGE-L; and the training split's most frequent report."""
    from cmelt.tasks import writing as verb

    asked: dict[str, Any] = {"beams": beams, "limit": limit}
    result = verb.score(run, shards, fold, **asked)
    emit(result) if as_json else console().print(verb.table(result))
