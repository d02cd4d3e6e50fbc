"""A newcomer finds everything from the README: every command, every page; what is generated is up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cmelt.cli import app
from cmelt.config import RECIPES, recipe_type
from docs.generate.__main__ import DOCS, PAGES
from docs.generate.recipes import meanings
from docs.generate.results import FOLDER, Results, results_page
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


def test_no_table_is_torn() -> None:
    for page in (REPOSITORY / "docs").rglob("*.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[1:], 1):
            if line.startswith("| ---"):
                assert lines[number - 1].startswith("|"), f"{page}:{number}: no header above"


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), f"docs/{name} is not what its sources say; run: make pages"


@pytest.mark.parametrize("verb", RECIPES)
def test_every_setting_says_what_it_is(verb: str) -> None:
    sections = {name: info.annotation for name, info in recipe_type(verb).model_fields.items()}
    silent = [f"{name}.{key}" for name, kind in sections.items() for key in kind.model_fields if key not in meanings(kind)]  # type: ignore
    assert not silent


def test_every_result_is_shown_and_says_where_it_is_from() -> None:
    results = Results()
    results_page(results)
    assert set(results) == results.used, f"no template shows {sorted(set(results) - results.used)}"
    for name, result in results.items():
        stated = [result, *(part for key in ("killed", "end_to_end") for part in result.get(key, []))]
        assert {"date", "machine"} <= set(result), name
        assert any({"command", "commit"} <= set(one) for one in stated), name


@pytest.mark.parametrize("template", sorted(FOLDER.glob("*.j2")), ids=lambda file: file.name)
def test_no_hand_writes_a_figure(template: Path) -> None:
    words = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|`[^`]*`|\]\([^)]*\)", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    allowed = (
        r"(?:1|10|95|100) ?%|\d+ (?:Hz|ms|epochs)|300,000 steps|800,035 recordings|0\.5 is chance"  # what was asked, not what was found
    )
    found = re.findall(r"\d+[.,]\d+|\d+ ?%|\d{3,}", re.sub(allowed, "", words))
    assert not found, f"{template.name}: {found} belong in a JSON file"


def test_the_site_builds_strictly_and_asks_nothing_of_any_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        asked = re.search(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]*', page.read_text(encoding="utf-8"))
        assert not asked, f"{page.name}: {asked and asked.group()}"
