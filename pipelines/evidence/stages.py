"""Long work in short stages: what a stage found is kept as JSON, so that work which was cut off goes on with the next.

WORK/settings.json says what all stages are made with; WORK/stages/NAME.json is written last, whole, and means: done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmelt.config import PretrainRecipe, validate
from cmelt.errors import OutputError
from cmelt.files import json_bytes, write_json

Work = Callable[[], dict[str, Any]]

SETTINGS = "settings.json"


def done_file(work: Path, name: str) -> Path:
    """Return the file that says that stage `name` is done."""
    return work / "stages" / f"{name}.json"


def completed(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return `settings`, read from `file`, with the recipe's keys that came later at their defaults: they make no other work of it."""
    if "recipe" not in settings:
        return settings
    return settings | {"recipe": validate(PretrainRecipe, settings["recipe"], str(file)).model_dump(mode="json")}


def found(work: Path, name: str) -> dict[str, Any]:
    """Return what stage `name` found; raises OutputError where it is not done."""
    file = done_file(work, name)
    if not file.is_file():
        raise OutputError(f"{work}: stage {name} is not done; run the stages first")
    of: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return of


def run_stages(work: Path, settings: Mapping[str, Any], stages: Mapping[str, Work], only: Sequence[str] = (), most: int = 0) -> int:
    """Do the stages that are not done, in their order, `only` those named, at most `most` (0 = all); return how many are left.

    Raises OutputError where `work` was begun with other settings: its stages would not go together.
    """
    file, wanted = work / SETTINGS, json_bytes(dict(settings))
    if file.is_file() and completed(json.loads(file.read_bytes()), file) != json.loads(wanted):
        raise OutputError(f"{work} was begun with other settings ({file}); take another folder")
    unknown = [name for name in only if name not in stages]
    if unknown:
        raise OutputError(f"no stage {unknown[0]!r}; the stages: {', '.join(stages)}")
    write_json(file, dict(settings))
    left = [name for name in only or stages if not done_file(work, name).is_file()]
    for number, name in enumerate(left):
        if most and number == most:
            return len(left) - number
        began, burnt = time.perf_counter(), time.process_time()
        told = stages[name]()
        took = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - burnt, 1)}
        write_json(done_file(work, name), {"stage": name, **took, **told})
        sys.stdout.write(
            f"{name}: {took['seconds']:.0f} s, {took['cpu_seconds']:.0f} of a processor; {len(left) - number - 1} stages left\n"
        )
        sys.stdout.flush()
    return 0
