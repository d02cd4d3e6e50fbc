"""A newcomer finds everything from the README: every command, every page."""

from __future__ import annotations

import re

import typer

from cmelt.cli import app
from tests.conftest import REPOSITORY


def test_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = " ".join(line.split("|")[1] for line in readme.splitlines() if line.startswith("| `cmelt"))
    named = set(re.findall(r"[a-z]+(?:-[a-z]+)*", table))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) <= named, sorted(set(commands) - named)


def test_every_page_is_reached_and_no_link_is_broken() -> None:
    reached, left = set(), [REPOSITORY / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            assert target.exists(), f"{page}: {link}"
            if target.suffix == ".md" and target not in reached:
                left.append(target)
    pages = set((REPOSITORY / "docs").rglob("*.md"))
    assert pages <= reached, sorted(str(page.relative_to(REPOSITORY)) for page in pages - reached)
