"""What several commands take and how they answer: the shared options, a console, JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Sets = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one recipe key; may be repeated.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Runs = Annotated[Path | None, typer.Option("--run", help="A run folder; default: the newest under runs/, else cmelt-sim-small.")]
FOLDERS = "A shard folder or URL; may be repeated. Default: the run's own."
Shards = Annotated[list[str] | None, typer.Option("--shards", help=FOLDERS)]
Trained = Annotated[list[str] | None, typer.Option("--shards", "--train", help=FOLDERS)]
Tested = Annotated[list[str] | None, typer.Option("--test", help="Take the test fold of these shard folders (or URLs) instead.")]
SplitFiles = Annotated[Path | None, typer.Option("--splits", help="A folder of split files that say which recording is in which fold.")]
Subgroups = Annotated[bool, typer.Option("--subgroups", help="Tell AUROC by sex, age band and fold of the test recordings too.")]
Folder = Annotated[Path, typer.Argument(help="A shard folder.")]
Split = Annotated[str, typer.Option("--split", help="train, val or test; default: all.")]
Where = Annotated[str, typer.Option("--where", help="Only recordings for which this is true: \"age > 60 and device = 'CS100'\".")]
Fold = Annotated[str, typer.Option("--fold", help="Which fold is scored: test; or val, for choices, the test fold left alone.")]
Leads = Annotated[str, typer.Option("--leads", help="Leads that are seen, the others zero: II; I,II,V2; or 12, 6, 4, 3, 2, 1.")]
Task = Annotated[str, typer.Option("--task", help="superclass, subclass, form, rhythm, …")]


def console(stderr: bool = False) -> Console:
    """Return a rich console (imported on use)."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True, highlight=False)


def emit(summary: dict[str, Any]) -> None:
    """Print a summary for machines."""
    sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
