"""docs/reference/python.md: the public names of the package, with signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

import cmelt

HEAD = """# Python

What `import cmelt` offers; everything else may change. Names are imported on first use, so that `import cmelt` alone is quick.

"""


def python_page() -> str:
    """Return the reference of the public names as Markdown."""
    parts = [HEAD]
    for name in sorted(set(cmelt.__all__) - {"__version__"}):
        thing = getattr(cmelt, name)
        if inspect.isclass(thing):
            parts.append(entry(f"cmelt.{name}", thing, level=2, called=name))
            parts += [entry(f"{name}.{key}", method, level=3, called=f"{name}.{key}") for key, method in methods(thing)]
        elif callable(thing):
            parts.append(entry(f"cmelt.{name}", thing, level=2, called=name))
        else:
            parts.append(f"## cmelt.{name}\n\n`{thing!r}`\n")
    return "\n".join(parts)


def methods(kind: type) -> list[tuple[str, Any]]:
    """Return the public methods and properties that a class defines itself, in their order; torch's `forward` is the object, called."""
    found = [(name, value) for name, value in vars(kind).items() if not name.startswith("_") and name != "forward"]
    return [(name, value) for name, value in found if callable(value) or isinstance(value, classmethod | staticmethod | property)]


def entry(title: str, thing: Any, level: int, called: str) -> str:
    """Return the heading, signature (of what is called) and docstring of a public thing."""
    bare = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
    words = inspect.cleandoc(bare.__doc__ or "").split("\n\n")
    unsigned = isinstance(thing, property) or (inspect.isclass(thing) and issubclass(thing, Exception))
    shown = "" if unsigned else f"```text\n{signature(called, bare)}\n```\n\n"
    told = "\n\n".join(re.sub(r"``([^`]*)``", r"`\1`", part) for part in words)
    return f"{'#' * level} {title}\n\n{shown}{told}\n"


def signature(called: str, thing: Any) -> str:
    """Return how a thing is called."""
    parts = [part for part in inspect.signature(thing).parameters.values() if part.name not in {"self", "cls"}]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    words = []
    for part in parts:
        kind = f": {part.annotation}" if isinstance(part.annotation, str) else ""
        words.append(f"{stars.get(part.kind, '')}{part.name}{kind}" + ("" if part.default is part.empty else f" = {part.default!r}"))
    return f"{called}({', '.join(words)})"
