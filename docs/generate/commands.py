"""docs/reference/cli.md: every command, argument and option, read off the functions that are the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from cmelt.cli import app

HEAD = """# Commands

Every command has `--help`, most have `--json`. An expected error is one line on standard error and exit code 2; `--debug` before the
command shows where it arose.

| command | what it does |
| --- | --- |
"""
WORDS = {str: "TEXT", Path: "PATH", int: "N", float: "X"}


def cli_page() -> str:
    """Return the reference of the command line as Markdown."""
    found = dict(commands(app))
    rows = "".join(f"| [`cmelt {name}`](#cmelt-{name.replace(' ', '-')}) | {first_sentence(verb)} |\n" for name, verb in found.items())
    return HEAD + rows + "".join(section(name, verb) for name, verb in found.items())


def commands(group: typer.Typer, before: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the commands of a group by name, with the words `before` it; those of groups within it too."""
    for one in group.registered_commands:
        assert one.callback is not None
        yield before + (one.name or one.callback.__name__.replace("_", "-")), one.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before}{inner.name} " if isinstance(inner.name, str) else before)


def first_sentence(verb: Callable[..., Any]) -> str:
    """Return what a command does, up to the first full stop."""
    return inspect.cleandoc(verb.__doc__ or "").split(". ")[0].rstrip(".")


def section(name: str, verb: Callable[..., Any]) -> str:
    """Return the section of one command: what it does, how it is called, what it takes."""
    words = [f"cmelt {name}"]
    rows = []
    hints = get_type_hints(verb, include_extras=True)
    for key, parameter in inspect.signature(verb).parameters.items():
        assert get_origin(hints[key]) is Annotated, f"{name}: {key} says no help"
        kind, info = get_args(hints[key])[:2]
        needed = parameter.default is parameter.empty
        taken = metavar(key, kind, info)
        if isinstance(info, ArgumentInfo):
            words.append(taken if needed else f"[{taken}]")
            shown = f"`{taken}`"
        else:
            assert isinstance(info, OptionInfo)
            first = (info.default,) if isinstance(info.default, str) else ()  # where Typer keeps the first name in an Annotated
            flags = [flag for given in (*first, *(info.param_decls or ())) for flag in given.split("/")] or [f"--{key.replace('_', '-')}"]
            shown = " ".join(filter(None, [", ".join(f"`{flag}`" for flag in flags), f"`{taken}`" if taken else ""]))
            words += [f"{flags[0]} {taken}"] if needed else []
        default = parameter.default
        told = "needed" if needed else f"`{default}`" if default not in (None, "") and not isinstance(default, bool) else ""
        rows.append(f"| {shown} | {(info.help or '').replace('|', chr(92) + '|')} | {told} |")
    usage = " ".join([*words, "[OPTIONS]"])
    what = inspect.cleandoc(verb.__doc__ or "").replace("``", "`")
    return "\n".join(
        ["", f"## cmelt {name}", "", what, "", "```text", usage, "```", "", "| | what | default |", "| --- | --- | --- |", *rows, ""]
    )


def metavar(key: str, kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    """Return the word that stands for what a parameter takes; '' for a switch."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    several = get_origin(kind) is list or any(get_origin(part) is list for part in inner)
    while inner:
        kind = inner[0]
        inner = [part for part in get_args(kind) if part is not type(None)]
    if kind is bool:
        return ""
    word = info.metavar or (key.upper() if isinstance(info, ArgumentInfo) else WORDS[kind])
    return f"{word} …" if several and isinstance(info, ArgumentInfo) else word
