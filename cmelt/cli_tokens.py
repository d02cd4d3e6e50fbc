"""The commands that turn ECGs into tokens and back: tokenizer train, encode, decode, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmelt.cli_options import Json, Split, Where, console, emit

tokenizer = typer.Typer(help="ECGs as tokens for language models, the way of ECG-Byte: train, encode, decode, plot.", no_args_is_help=True)

Shards = Annotated[list[str], typer.Argument(help="Shard folders, or URLs of them.")]
Trained = Annotated[Path, typer.Option("--tokenizer", help="A folder that cmelt tokenizer train made.")]
COUNTED = (
    "{rows} recordings: {tokens_per_record:.0f} tokens each, {compression:.2f} values a token; back again {rmse_uv:.1f} µV off (RMS), "
    "{clipped_percent:.2f} % of the values clipped; {tokens_per_s:,} tokens/s"
)


@tokenizer.command()
def train(
    shards: Shards,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    symbols: Annotated[int, typer.Option(help="Bins into which a value may fall, 2 to 256.")] = 26,
    merges: Annotated[int, typer.Option(help="Byte pairs to learn.")] = 3500,
    clip: Annotated[float, typer.Option(help="Clip so many per cent of the training values on either side.")] = 1.0,
    records: Annotated[int, typer.Option(min=1, help="Training recordings from which pairs are learnt.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Draws those recordings.")] = 0,
    leads: Annotated[str, typer.Option(help="The leads that it sees, such as I,II,V1,V5; default: all.")] = "",
    rate: Annotated[float, typer.Option(min=0, metavar="HZ", help="The rate at which it sees them; default: that of the shards.")] = 0.0,
    where: Where = "",
    as_json: Json = False,
) -> None:
    """Train a tokenizer on the training split of shard folders; say what it does to held-out recordings."""
    from cmelt.tokenizer import train as verb

    names = [name.strip() for name in leads.split(",") if name.strip()]
    found = verb(shards, out, symbols, merges, clip, records, seed, where, names, rate)
    if as_json:
        emit(found)
        return
    console().print(
        f"{out}: {found['vocab_size']} tokens; {found['low_mv']:.3f} to {found['high_mv']:.3f} mV; {found['records']} recordings, "
        f"pairs from {found['records_merged']} ({found['seconds']:.1f} s)"
    )
    console().print(f"on split {found['measured_on']}, " + COUNTED.format(**found))


@tokenizer.command()
def encode(
    shards: Shards,
    trained: Trained,
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file to write.")] = Path("tokens.parquet"),
    split: Split = "",
    where: Where = "",
    as_json: Json = False,
) -> None:
    """Write the ECGs of shard folders as a Parquet table of token ids, a row a recording."""
    from cmelt.tokenizer import encode as verb

    found = verb(shards, trained, out, split, where)
    emit(found) if as_json else console().print(f"{out}: " + COUNTED.format(**found))


@tokenizer.command()
def decode(
    table: Annotated[Path, typer.Argument(help="A table that cmelt tokenizer encode made.")],
    trained: Trained,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .npy file to write.")] = Path("ecg.npy"),
    as_json: Json = False,
) -> None:
    """Write the ECGs that token ids stand for, (rows, 12, samples) in mV, as a NumPy file."""
    from cmelt.tokenizer import decode as verb

    found = verb(table, trained, out)
    emit(found) if as_json else console().print(f"{out}: {' × '.join(map(str, found['shape']))} values in mV")


@tokenizer.command()
def plot(
    folder: Annotated[Path, typer.Argument(help="A shard folder.")],
    key: Annotated[str, typer.Argument(help="The recording.")],
    file: Annotated[Path, typer.Argument(help="The .png, .svg or .pdf to draw.")],
    trained: Trained,
    seconds: Annotated[float, typer.Option(min=0.1, help="So much of each lead.")] = 3.0,
) -> None:
    """Draw one recording as its tokens give it back, each token in a colour of its own."""
    from cmelt.tokenizer import plot as verb

    console().print(f"drawn: {verb(folder, key, trained, file, seconds)}")
