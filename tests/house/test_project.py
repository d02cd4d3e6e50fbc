"""The project's own papers: how to cite it, and what of it is public."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import types
from typing import Any

import pytest
import yaml

import cmelt
from tests.conftest import REPOSITORY

SHAPE = re.compile(r"\((len\(\w+\)|[A-Z]|\d+)(, [^()]+)*,?\)")
"""How a docstring writes a shape: (B, 12, S), (len(rows), 12, samples), (D)."""


def test_citation_is_of_this_version_and_names_the_paper() -> None:
    told = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(told), "what the schema 1.2.0 asks for"
    assert (told["cff-version"], told["version"], told["license"]) == ("1.2.0", cmelt.__version__, "MIT")
    (paper,) = told["references"]
    assert paper["url"] == "https://arxiv.org/abs/2410.02131"
    assert [author["family-names"] for author in paper["authors"]] == ["Pham", "Saeed", "Ma"]


def test_nothing_else_is_public() -> None:
    assert dir(cmelt) == sorted(cmelt.__all__)
    public = {name for name, value in vars(cmelt).items() if not name.startswith("_") and not isinstance(value, types.ModuleType)}
    assert public <= {*cmelt.__all__, "annotations"}
    with pytest.raises(AttributeError, match="no attribute 'cmlet'"):
        cmelt.cmlet  # noqa: B018


@pytest.mark.parametrize("name", sorted(set(cmelt.__all__) - {"__version__", "LEADS"}))
def test_public_names_say_what_goes_in_and_what_comes_out(name: str) -> None:
    thing = getattr(cmelt, name)
    for where, called in [(name, thing), *(methods(thing) if inspect.isclass(thing) else ())]:
        told = inspect.cleandoc(called.__doc__ or "")
        assert told, f"{where} has no docstring"
        if re.search("NDArray|Tensor", str(getattr(called, "__annotations__", {}))):
            assert SHAPE.search(told), f"{where}: its docstring tells no shape"


def methods(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods that a class defines itself, under their full names."""
    found = [(name, getattr(value, "__func__", value)) for name, value in vars(kind).items() if not name.startswith("_")]
    return [(f"{kind.__name__}.{name}", value) for name, value in found if inspect.isfunction(value)]


def test_importing_the_package_brings_nothing_of_others() -> None:
    code = "import sys; before = set(sys.modules); import cmelt; print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) - sys.stdlib_module_names == {"cmelt"}
