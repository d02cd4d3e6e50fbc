"""Filters of index rows, ``fold <= 8 and (sex = 'f' or age is null)``: a small language, parsed, never run as code.

::

    either = both ("or" both)*
    both   = one ("and" one)*
    one    = "not" one | "(" either ")" | VALUE "in" COLUMN | COLUMN test
    test   = SIGN VALUE | ["not"] "in" "(" VALUE ("," VALUE)* ")" | "is" ["not"] "null"
    SIGN   = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    VALUE  = a number, or a text in single or double quotes

``'AFIB' in codes`` asks a column of lists. As in SQL, a comparison with null is neither true nor false, and only rows for which
the whole is true are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmelt.errors import InputError

TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])|(?P<text>'[^']*'|"[^"]*")|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<sign><=|>=|==|!=|<>|[=<>(),]))""",
    re.ASCII,
)
COMPARE: dict[str, Callable[..., Any]] = {
    **{"=": pc.equal, "==": pc.equal, "!=": pc.not_equal, "<>": pc.not_equal},
    **{"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal},
}
WORDS = ("and", "or", "not", "in", "is", "null")

Value = int | float | str
Test = Callable[[pa.Table], Any]


class Where:
    """A filter, parsed; ``columns`` are those that it reads. Raises InputError that says where the text cannot be understood."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: list[str] = []
        self._tokens = self._split()
        self._test = self._either()
        if self._tokens[0][0] != "end":
            raise self._unexpected("'and', 'or' or the end")

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return for which rows of `table`, which has the wanted columns, the filter is true, (N,)."""
        return np.asarray(pc.fill_null(self._test(table), False), bool)

    def check(self, schema: pa.Schema, where: str) -> None:
        """Raise InputError that names the columns of `schema`, of `where`, where the filter wants another."""
        for name in self.columns:
            if name not in schema.names:
                raise InputError(f"filter {self.text!r}: {where} has no column {name!r}; it has {', '.join(schema.names)}")

    def _split(self) -> list[tuple[str, str, int]]:
        """Return the tokens as (kind, text, place); the last is the end."""
        found, at, end = [], 0, len(self.text.rstrip())
        while at < end:
            match = TOKEN.match(self.text, at)
            if match is None:
                place = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                raise InputError(f"filter {self.text!r}: {self.text[place:]!r} cannot be understood; texts stand in quotes")
            kind, word = str(match.lastgroup), str(match[match.lastgroup or 0])
            if kind == "word" and word.lower() in WORDS:
                kind, word = "keyword", word.lower()
            found.append((kind, word, match.start(match.lastgroup or 0)))
            at = match.end()
        return [*found, ("end", "", end)]

    def _unexpected(self, wanted: str) -> InputError:
        kind, word, place = self._tokens[0]
        before = f" after {self.text[:place].rstrip()!r}" if place else ""
        return InputError(f"filter {self.text!r}: {repr(word) if kind != 'end' else 'the end'} stands{before} where {wanted} should")

    def _next(self, *words: str) -> str:
        """Take the next token where it is one of the keywords or signs `words`; '' where it is not."""
        kind, word, _ = self._tokens[0]
        if kind in ("keyword", "sign") and word in words:
            del self._tokens[0]
            return word
        return ""

    def _want(self, *words: str) -> None:
        if not self._next(*words):
            raise self._unexpected(" or ".join(repr(word) for word in words))

    def _either(self) -> Test:
        test = self._both()
        while self._next("or"):
            test = _joined(pc.or_kleene, test, self._both())
        return test

    def _both(self) -> Test:
        test = self._one()
        while self._next("and"):
            test = _joined(pc.and_kleene, test, self._one())
        return test

    def _one(self) -> Test:
        if self._next("not"):
            test = self._one()
            return lambda table: pc.invert(test(table))
        if self._next("("):
            test = self._either()
            self._want(")")
            return test
        if self._tokens[0][0] in ("number", "text"):
            value = self._value()
            self._want("in")
            return self._holds(self._column(), value)
        return self._about(self._column())

    def _column(self) -> str:
        kind, word, _ = self._tokens[0]
        if kind != "word":
            raise self._unexpected("a column")
        del self._tokens[0]
        if word not in self.columns:
            self.columns.append(word)
        return word

    def _value(self) -> Value:
        kind, word, _ = self._tokens[0]
        if kind == "text":
            value: Value = word[1:-1]
        elif kind == "number":
            value = float(word) if re.search(r"[.eE]", word) else int(word)
        else:
            raise self._unexpected("a number or a text in quotes")
        del self._tokens[0]
        return value

    def _about(self, name: str) -> Test:
        """Return the test that follows column `name`."""
        if self._next("is"):
            absent = not self._next("not")
            self._want("null")
            return lambda table: pc.is_null(table.column(name)) if absent else pc.is_valid(table.column(name))
        if self._next("not"):
            self._want("in")
            test = self._among(name)
            return lambda table: pc.invert(test(table))
        if self._next("in"):
            return self._among(name)
        sign = self._next(*COMPARE)
        if not sign:
            raise self._unexpected("a comparison, 'in' or 'is'")
        value = self._value()
        return partial(self._compared, COMPARE[sign], name, value)

    def _among(self, name: str) -> Test:
        self._want("(")
        values = [self._value()]
        while self._next(","):
            values.append(self._value())
        self._want(")")
        tests: list[Test] = [partial(self._compared, pc.equal, name, value) for value in values]
        return reduce(lambda one, other: _joined(pc.or_kleene, one, other), tests)

    def _holds(self, name: str, value: Value) -> Test:
        """Return the test whether `value` is in the lists of column `name`."""

        def test(table: pa.Table) -> Any:
            lists = table.column(name).combine_chunks()
            if not pa.types.is_list(lists.type):
                raise InputError(f"filter {self.text!r}: column {name!r} has no lists ({lists.type}); write {name} = {value!r}")
            items = pa.table({name: pc.list_flatten(lists)})
            found = np.zeros(len(lists), bool)
            parents = pc.list_parent_indices(lists).to_numpy()
            found[parents[np.asarray(pc.fill_null(self._compared(pc.equal, name, value, items), False), bool)]] = True
            return pa.array(found, mask=np.asarray(pc.is_null(lists)))

        return test

    def _compared(self, function: Callable[..., Any], name: str, value: Value, table: pa.Table) -> Any:
        try:
            return function(table.column(name), pa.scalar(value))
        except pa.ArrowException:
            raise InputError(
                f"filter {self.text!r}: column {name!r} ({table.column(name).type}) cannot be compared with {value!r}"
            ) from None


def _joined(function: Callable[..., Any], one: Test, other: Test) -> Test:
    """Return the test that joins two by `function`."""
    return lambda table: function(one(table), other(table))
