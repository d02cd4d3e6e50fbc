"""The house keeps its order: imports point down, nothing is stubbed, the command line starts light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cmelt"
LAYERS = [
    {"errors", "record", "files", "archive", "origins", "remote", "__init__"},
    {"config", "config_tasks", "labels", "metrics", "plots", "charts", "page", "tables", "raw", "exports"},
    {"datasets", "signal", "text", "shards", "simulation", "tokens"},
    {"models"},
    {"objectives"},
    {"training"},
    {"tasks"},
    {
        "ingest",
        "pretrain",
        "verify",
        "inspect",
        "embed",
        "search",
        "predict",
        "predictions",
        "report",
        "sections",
        "simulate",
        "status",
        "estimate",
        "rates",
        "curves",
        "doctor",
        "tokenizer",
        "generate",
    },
    {"cli_options"},
    {"cli_tasks", "cli_tokens", "cli_generate"},
    {"cli"},
]
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
DATA_FOLDERS = {"datasets", "signal", "text", "shards", "tokens"}
TORCHLESS = DATA_FOLDERS | {"simulation", "ingest", "verify", "tokenizer"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
    """Return the top-level room of a file: its folder, or its own name at the root."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else file.stem


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports anywhere, type-checking blocks excepted."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "cmelt" else {node.module}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    mine = room(file)
    if file.name == "__init__.py" and mine == "__init__":
        return  # the package's lazy public names
    for module in imports(file):
        if not module.startswith("cmelt."):
            continue
        other = module.split(".")[1]
        if other in {"__version__", mine}:
            continue
        assert LAYER[other] <= LAYER[mine], f"{file.name} ({mine}) imports {module}, which lies above it"
        assert not ({mine, other} <= DATA_FOLDERS), f"{file.name}: the data folders do not import one another ({module})"


@pytest.mark.parametrize("file", [f for f in FILES if room(f) in TORCHLESS], ids=lambda f: f.name)
def test_the_data_side_never_imports_torch(file: Path) -> None:
    assert not {m for m in imports(file) if m.split(".")[0] in {"torch", "transformers", "accelerate"}}


def test_two_levels_and_no_junk_drawers() -> None:
    for file in FILES:
        assert len(file.relative_to(PACKAGE).parts) <= 2, file
        assert file.stem not in {"utils", "misc", "helpers", "common"}, file
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 400, f"{file} is over 400 lines: does it do two things?"


def test_nothing_is_promised_or_swallowed() -> None:
    forbidden = re.compile(
        r"TODO|FIXME|NotImplementedError|except:|allow_pickle=True|weights_only=False|pickle\.load|(?<![\w.])(eval|exec)\("
    )
    for file in FILES:
        found = forbidden.search(file.read_text(encoding="utf-8"))
        assert not found, f"{file}: {found.group() if found else ''}"


def test_the_command_line_starts_light() -> None:
    heavy = ("torch", "transformers", "faiss", "matplotlib", "dask", "scipy", "pydantic", "pyarrow")
    code = f"import sys, cmelt.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
