"""docs/reference/access.md: where the data sets come from, on what terms, and how they are cited."""

from __future__ import annotations

from cmelt.datasets import DATASETS, dataset_class

HEAD = """# Where the data come from

cmelt brings no recordings. What it reads, where that is to be had, and on whose terms; what lies in each folder stands in
[data sets](datasets.md).

| name | what | size | licence | access |
| --- | --- | --- | --- | --- |
"""


def access_page() -> str:
    """Return size, licence, access and citation of every family as Markdown."""
    kinds = {name: dataset_class(name) for name in DATASETS}
    rows = "".join(f"| `{name}` | {one.title} | {one.size} | {one.licence} | {one.access} |\n" for name, one in kinds.items())
    cited = "".join(f"- `{name}`: {one.citation}\n" for name, one in kinds.items() if one.citation)
    return f"{HEAD}{rows}\n## To be cited\n\n{cited}"
