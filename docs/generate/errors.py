"""docs/reference/errors.md: the error tree, every reason for which a recording is refused, every flag of one that is kept."""

from __future__ import annotations

from cmelt import errors
from cmelt.errors import REASONS, CmeltError
from cmelt.record import FLAGS

HEAD = """# Errors, reasons, flags

Expected errors end a command with exit code 2 and one line: what, where, and what to do.
In Python they are subclasses of `cmelt.errors.CmeltError`.

"""


def errors_page() -> str:
    """Return the reference of what can go wrong as Markdown."""
    (_, tree) = (errors.__doc__ or "").split("\n\n", 1)
    lines = [HEAD, "```text", tree.rstrip(), "```", "", "## Why a recording is refused", ""]
    lines += [
        "One recording's fault never ends an ingest: it becomes a row of `rejects.parquet` with one of these reasons, and what was found.",
        "",
    ]
    lines += ["| reason | what it means |", "| --- | --- |", *(f"| `{name}` | {words} |" for name, words in REASONS.items()), ""]
    lines += [
        "## What is said of a recording that is kept",
        "",
        "The column `flags` of the index; limits and their reasons: [data sets](datasets.md#what-is-said-of-a-recording).",
        "",
    ]
    lines += ["| flag | what it means |", "| --- | --- |", *(f"| `{name}` | {words} |" for name, words in FLAGS.items())]
    assert all(kind.__name__ in tree for kind in CmeltError.__subclasses__())
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
