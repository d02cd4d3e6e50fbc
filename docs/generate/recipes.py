"""docs/reference/recipes.md: every recipe key with its meaning, default, limits, and what the named recipes make of it."""

from __future__ import annotations

import ast
import inspect
import json
import tomllib
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from cmelt.config import RECIPES, Settings, recipe_folder, recipe_type

HEAD = """# Recipes

A recipe says what is done, never where things are. Named ones lie in `pipelines/VERB/NAME.toml`; `--recipe` takes a name or a file,
`--set a.b=c` changes single keys, and the resolved recipe is saved with every output. A key that is not given has its default. An unknown
key or a value out of bounds is an error that names the nearest right one.

"""
Keys = dict[str, Any]


def recipes_page() -> str:
    """Return the reference of the recipes as Markdown."""
    parts = [HEAD]
    for verb in RECIPES:
        kind = recipe_type(verb)
        named = {
            file.stem: flat(tomllib.loads(file.read_text(encoding="utf-8"))) for file in sorted((recipe_folder() / verb).glob("*.toml"))
        }
        parts.append(f"## cmelt {verb}\n\n{(kind.__doc__ or '').replace('``', '`')} Named: {', '.join(f'`{name}`' for name in named)}.\n")
        for section, info in kind.model_fields.items():
            parts.append(table(section, info, named))
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def table(section: str, info: FieldInfo, named: dict[str, Keys]) -> str:
    """Return one section's keys as a table."""
    kind, defaults = info.annotation, info.default
    assert isinstance(kind, type)
    assert issubclass(kind, Settings)
    words = meanings(kind)
    lines = [f"### {section}\n", f"{kind.__doc__}\n", "| key | default | what | named recipes |", "| --- | --- | --- | --- |"]
    for key, field in kind.model_fields.items():
        others = [
            f"{name}: {written(keys[f'{section}.{key}'])}"
            for name, keys in named.items()
            if f"{section}.{key}" in keys and keys[f"{section}.{key}"] != plain(getattr(defaults, key))
        ]
        what = " ".join(filter(None, [words.get(key, ""), allowed(field)]))
        lines.append(f"| `{key}` | {written(getattr(defaults, key))} | {what} | {'; '.join(others)} |")
    return "\n".join(lines) + "\n"


def meanings(kind: type[Settings]) -> dict[str, str]:
    """Return what the string below each field says, by key."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    told = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            told[ast.unparse(field.target)] = " ".join(str(below.value.value).replace("``", "`").split())
    return told


def allowed(field: FieldInfo) -> str:
    """Return the values or bounds of a field, in brackets; '' where there are none."""
    choices = [value for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal for value in get_args(part)]
    if choices:
        return f"({', '.join(f'`{value}`' for value in choices)})"
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [f"{sign} {getattr(one, name):,g}" for one in field.metadata for name, sign in signs.items() if hasattr(one, name)]
    return f"({', '.join(bounds)})" if bounds else ""


def plain(value: Any) -> Any:
    """Return a value as TOML would give it."""
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def written(value: Any) -> str:
    """Return a value as it is written in a recipe."""
    if isinstance(value, dict) and value:
        return ", ".join(f"`{key}` {written(one)}" for key, one in value.items())
    return f"`{json.dumps(plain(value))}`"


def flat(table: dict[str, Any]) -> Keys:
    """Return a recipe's tables as dotted keys, two levels deep."""
    return {f"{section}.{key}": value for section, keys in table.items() for key, value in keys.items()}
