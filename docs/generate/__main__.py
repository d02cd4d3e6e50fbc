"""Write every generated page; with ``--check``, say which are out of date instead and exit with 1."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate.access import access_page
from docs.generate.commands import cli_page
from docs.generate.errors import errors_page
from docs.generate.python import python_page
from docs.generate.recipes import recipes_page
from docs.generate.results import results_page

DOCS = Path(__file__).parents[1]
PAGES = {
    "results.md": results_page,
    "reference/cli.md": cli_page,
    "reference/recipes.md": recipes_page,
    "reference/access.md": access_page,
    "reference/errors.md": errors_page,
    "reference/python.md": python_page,
}
"""Page below docs/ → what writes its text."""


def main() -> int:
    """Write or check the pages; return the exit status."""
    stale = [name for name, text in ((name, make()) for name, make in PAGES.items()) if settle(DOCS / name, text)]
    told = "out of date, run: make pages" if "--check" in sys.argv else "written"
    sys.stdout.write("".join(f"docs/{name}: {told}\n" for name in stale))
    return int("--check" in sys.argv and bool(stale))


def settle(page: Path, text: str) -> bool:
    """Return whether `page` holds another text than `text`; unless only checking, write it."""
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return False
    if "--check" not in sys.argv:
        page.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(main())
