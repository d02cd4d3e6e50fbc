"""Zero-shot by a checkpoint's entity queries: a class is there where any of the findings that stand for it is.

N recordings, E findings of the checkpoint, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cmelt.errors import TaskError
from cmelt.labels import class_entities
from cmelt.metrics import Floats
from cmelt.text.entities import known_entities

RULE = {"texts": "entity queries", "similarity": "probability of any"}
"""What a result says of how it scored, in the place of texts and similarity."""


def asked_for(task: str, entities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the findings, by code, that stand for each class of `task`, of those that a checkpoint asks for, `entities` (E,).

    Classes that none stands for are left out; raises TaskError where that is all of them.
    """
    found = {name: tuple(code for code in codes if code in entities) for name, codes in class_entities(task).items()}
    found = {name: codes for name, codes in found.items() if codes}
    if not found:
        raise TaskError(f"no finding that the checkpoint asks for stands for a class of task {task!r}; take --by texts")
    return found


def words(asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the findings that stand for each class as a result tells them, in words."""
    known = {entity.code: entity.words for entity in known_entities()}
    return {name: [known.get(code, code) for code in codes] for name, codes in asked.items()}


def any_of(probability: NDArray[np.floating], entities: Sequence[str], classes: Sequence[Sequence[str]]) -> Floats:
    """Return how probable it is that an ECG has any of the findings of each of C classes, (N, C), as if they were independent.

    `probability` (N, E) is that of each of `entities` (E,).
    """
    column = {code: at for at, code in enumerate(entities)}
    absent = np.log1p(-np.clip(probability.astype(np.float64), 0, 1 - 1e-9))
    return -np.expm1(np.stack([absent[:, [column[code] for code in codes]].sum(1) for codes in classes], axis=1))
