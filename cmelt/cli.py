"""The command line: parse, call one verb, print one summary. Each verb is imported inside its command, so ``--help`` is quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cmelt import __version__
from cmelt.cli_generate import generate
from cmelt.cli_options import Folder, Json, Sets, Workers, console, emit
from cmelt.cli_tasks import tasks
from cmelt.cli_tokens import tokenizer
from cmelt.errors import CmeltError

app = typer.Typer(
    name="cmelt",
    help="C-MELT, the whole way: raw clinical ECGs and reports in; a pre-trained model and numbers one can trust out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        sys.stdout.write(f"cmelt {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Hold the options that stand before every command (``--debug`` is read by ``main``)."""


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="The raw folder to make.")],
    records: Annotated[int, typer.Option(min=1, help="How many recordings.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make a raw folder of simulated ECGs in PTB-XL's own layout."""
    from cmelt.simulate import simulate as verb

    summary = verb(out, records=records, seed=seed, workers=workers)
    line = f"{out}: {records} simulated recordings of {summary['patients']} made-up patients ({summary['seconds']} s)"
    emit(summary) if as_json else console().print(line)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the data sets that can be ingested: size, licence, access, command."""
    from cmelt.datasets import list_datasets

    rows = list_datasets()
    if as_json:
        emit({"datasets": rows})
        return
    for row in rows:
        about = "".join(f"\n  {line}" for line in (f"{row['size']}; {row['licence']}", row["access"], row["command"]))
        console().print(f"[bold]{row['name']}[/bold]  {row['title']}{about}")


@app.command()
def ingest(
    dataset: Annotated[str, typer.Argument(help="The data set: a name that cmelt datasets lists.")],
    raw: Annotated[str, typer.Argument(help="The folder (or zip) as downloaded; or a URL of it, such as s3://bucket/folder.")],
    out: Annotated[str, typer.Argument(help="The shard folder to make; or a URL.")],
    recipe: Annotated[str, typer.Option(help="clinical, paper, or a .toml file.")] = "clinical",
    changes: Sets = None,
    workers: Workers = None,
    records100: Annotated[bool, typer.Option("--records100/--records500", help="PTB-XL's copy; 100 sets signal.fs_hz=100.")] = False,
    databases: Annotated[str, typer.Option(help="cinc2021: these databases only, with commas between.")] = "",
    table: Annotated[Path | None, typer.Option(help="wfdb, files: CSV or Parquet of key, report, labels, patient, fold.")] = None,
    splits: Annotated[Path | None, typer.Option(help="A folder of published split files to follow.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop at so many recordings.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, how large and how long; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove what cmelt made in OUT otherwise, and begin anew.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Add the recordings that a finished OUT does not name yet.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what a finished OUT refused.")] = False,
    dask: Annotated[
        str, typer.Option(metavar="tcp://HOST:PORT", help="Make shards on this Dask cluster (or scheduler file); local: one made here.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Turn raw records and reports into filtered, resampled WebDataset shards."""
    from cmelt.config import load_recipe
    from cmelt.ingest import ingest as verb

    rate = ["signal.fs_hz=100"] if records100 else []
    settings = load_recipe("ingest", recipe, [*rate, *(changes or [])])
    asked = {"records100": records100, "databases": databases, "table": table}
    options: dict[str, Any] = {name: value for name, value in asked.items() if value}
    options |= {"workers": workers, "splits": splits, "limit": limit}
    options |= {"overwrite": overwrite, "extend": extend, "retry_failed": retry_failed}
    if dry_run:
        from cmelt.estimate import estimate

        guess = estimate(dataset, raw, out, settings, **options)
        emit(guess.as_dict()) if as_json else console().print(guess.line(), markup=False)
        return
    summary = verb(dataset, raw, out, settings, cluster=dask, **options)
    emit(summary.as_dict()) if as_json else console().print(summary.table())


@app.command()
def status(
    out: Annotated[str, typer.Argument(help="A shard folder, finished or not; or a URL.")],
    as_json: Json = False,
) -> None:
    """Say how far an ingest is, shard by shard; while it runs, or after it was cut off."""
    from cmelt import status as verb

    summary = verb.status(out)
    emit(summary) if as_json else console().print(verb.table(summary))


@app.command()
def verify(
    folders: Annotated[list[Path], typer.Argument(help="Shard folders.")],
    as_json: Json = False,
) -> None:
    """Re-hash and re-read shard folders; name recordings and patients that stand in several, or on both sides of a split."""
    from cmelt.shards.leaks import find_leaks, told
    from cmelt.shards.read import ShardFolder
    from cmelt.verify import verify as verb

    summaries = [verb(folder) for folder in folders]
    leaks = find_leaks([ShardFolder(folder) for folder in folders])
    if as_json:
        emit({"folders": summaries, "leaks": leaks})
        return
    for one in summaries:
        console().print(f"{one['folder']}: {one['samples']} samples in {one['shards']} shards, all bytes as written")
    for line in told(leaks):
        console().print(line, markup=False)


@app.command()
def inspect(
    folder: Folder,
    plot: Annotated[tuple[str, Path] | None, typer.Option(metavar="KEY FILE.png", help="Draw one record on 12-lead ECG paper.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page with distributions and twelve ECGs.")] = None,
    with_ids: Annotated[
        bool, typer.Option("--with-ids", help="Name patients, and the files and folders that may be named after them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show counts, classes, folds, flags, refusals and signal statistics of a shard folder."""
    from cmelt import inspect as verb

    if plot:
        verb.plot(folder, *plot)
        console().print(f"drawn: {plot[1]}")
        return
    if html:
        console().print(f"page: {verb.page(folder, html, with_ids=with_ids)}")
        return
    summary = verb.inspect(folder, with_ids=with_ids)
    emit(summary) if as_json else console().print(verb.table(summary))


@app.command()
def pretrain(
    shards: Annotated[list[str], typer.Option("--shards", help="A shard folder, or a URL of one; may be repeated.")],
    recipe: Annotated[str, typer.Option(help="tiny, base, or a .toml file.")] = "tiny",
    changes: Sets = None,
    where: Annotated[str, typer.Option("--where", help='Train on these samples alone, such as "fold <= 8"; data.where.')] = "",
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/RECIPE-N.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of --out (default: of the newest run).")] = False,
    upload: Annotated[str, typer.Option(metavar="URL", help="Copy every checkpoint there too, such as s3://bucket/run.")] = "",
    prepare: Annotated[bool, typer.Option("--prepare", help="Make the reports' embeddings, then stop: --resume trains.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how long and how large it would be; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Pre-train C-MELT on the training split of one or more shard folders. Under torchrun: on several GPUs."""
    from cmelt.config import load_recipe

    settings = load_recipe("pretrain", recipe, [*(changes or []), *([f"data.where={json.dumps(where)}"] if where else [])])
    if dry_run:
        from cmelt.rates import measure
        from cmelt.shards.read import ShardFolder

        first = ShardFolder(shards[0])
        guess = measure(settings, first.fs_hz, first.samples)
        emit(guess.as_dict()) if as_json else console().print(guess.line(), markup=False)
        return
    from cmelt.pretrain import pretrain as verb

    summary = verb(shards, settings, out=out, name=Path(recipe).stem, resume=resume, upload=upload, prepare=prepare)
    if os.environ.get("RANK", "0") != "0":
        return  # one rank speaks for all
    emit(summary) if as_json else console().print(f"run: {summary['run']}  steps: {summary['steps']}  {summary['minutes']:.1f} min")


@app.command()
def doctor(
    recipe: Annotated[str, typer.Option(help="See what pre-training by this recipe would lack.")] = "",
    changes: Sets = None,
    shards: Annotated[list[str] | None, typer.Option("--shards", help="A shard folder to look at; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Where runs are to lie.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Say what is here and what is missing: versions, devices, disk, extras, shards, what a recipe needs."""
    from cmelt import doctor as verb

    result = verb.doctor(recipe, changes or [], shards or [], out)
    emit(result) if as_json else console().print(verb.table(result))
    raise typer.Exit(0 if result["ok"] else 1)


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .png, .svg or .pdf; default: RUN/curves.png.")] = None,
) -> None:
    """Draw the curves of a run: losses, retrieval, learning rate, speed."""
    from cmelt.curves import curves as verb

    console().print(f"drawn: {verb(run, out)}")


@app.command("import-published")
def import_published(
    file: Annotated[Path, typer.Argument(help="The published .pt or .safetensors.")],
    config: Annotated[Path, typer.Option("--config", help="Its JSON config, flat or under 'model'.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint folder to make.")],
    tokenizer: Annotated[str, typer.Option(help="Hub name or local path; default: Flan-T5's, where it is to be had.")] = "",
    as_json: Json = False,
) -> None:
    """Turn a published C-MELT / D-BETA checkpoint into one of cmelt's. Its weights keep their licence, CC BY-NC."""
    from cmelt.models.published import import_published as verb

    summary = verb(file, config, out, tokenizer)
    line = f"{out}: {summary['tensors']} tensors, {summary['parameters']:,} parameters; the weights keep their licence, CC BY-NC 4.0"
    emit(summary) if as_json else console().print(line)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run or checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors or .pt file to write.")],
    as_json: Json = False,
) -> None:
    """Write a checkpoint under the published parameter names."""
    from cmelt.models.published import export_published as verb

    summary = verb(run, out)
    line = f"{out}: {summary['tensors']} tensors, leads {' '.join(summary['lead_order'])}"
    emit(summary) if as_json else console().print(line)


@app.command("export-onnx")
def export_onnx(
    run: Annotated[Path, typer.Argument(help="A run or checkpoint folder.")],
    out: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    as_json: Json = False,
) -> None:
    """Write the ECG encoder as an ONNX graph, checked against torch."""
    from cmelt.models.onnx import export_onnx as verb

    summary = verb(run, out)
    line = f"{out}: {summary['bytes'] / 1e6:.1f} MB, differs from torch by at most {summary['difference']:.1g}"
    emit(summary) if as_json else console().print(line)


@app.command()
def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; default: the newest under runs/.")] = None,
    out: Annotated[list[Path] | None, typer.Option("--out", "-o", help="What to write: .html (report.html), .md, .csv, .tex.")] = None,
) -> None:
    """Write one self-contained HTML page about one or more runs, or their numbers as Markdown, CSV and LaTeX."""
    from cmelt.report import report as verb
    from cmelt.tasks.base import default_run

    for file in out or [Path("report.html")]:
        console().print(f"written: {verb(runs or [default_run()], file)}")


app.add_typer(tasks)
app.add_typer(tokenizer, name="tokenizer")
app.add_typer(generate, name="generate")


def main() -> None:
    """Run the command line; an expected error is one line on standard error and exit code 2."""
    try:
        app()
    except CmeltError as error:
        if "--debug" in sys.argv:
            raise
        console(stderr=True).print(f"cmelt: {error}", markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
