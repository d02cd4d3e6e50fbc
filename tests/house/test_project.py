"""The project's own papers: how to cite it, and what is public."""

from __future__ import annotations

import yaml

import cmelt
from tests.conftest import REPOSITORY


def test_citation_is_of_this_version_and_names_the_paper() -> None:
    told = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(told), "what the schema 1.2.0 asks for"
    assert (told["cff-version"], told["version"], told["license"]) == ("1.2.0", cmelt.__version__, "MIT")
    (paper,) = told["references"]
    assert paper["url"] == "https://arxiv.org/abs/2410.02131"
    assert [author["family-names"] for author in paper["authors"]] == ["Pham", "Saeed", "Ma"]
