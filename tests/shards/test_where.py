"""Filters of index rows: what they keep, nulls included, and that what is wrong with one is said."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cmelt.errors import InputError
from cmelt.shards.where import Where

ROWS = pa.table(
    {
        "fold": [1, 2, 8, 9, None],
        "sex": ["f", "m", None, "f", "m"],
        "age": [1.5, None, 3.0, 4.0, 90.0],
        "codes": [["AFIB"], [], None, ["NORM", "AFIB"], ["X"]],
        "device": ["CS100 3", "a", "b", 'say "c"', "d"],
    }
)


def kept(text: str) -> list[int]:
    """Return the rows of ROWS that the filter `text` keeps."""
    where = Where(text)
    where.check(ROWS.schema, "index")
    return [int(row) for row in where.mask(ROWS).nonzero()[0]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("fold <= 8", [0, 1, 2]),
        ("fold<=8 and sex='f'", [0]),
        ("not (fold <= 8)", [3]),
        ("fold in (1, 9)", [0, 3]),
        ("fold not in (1, 9)", [1, 2]),
        ("age is null or sex is null", [1, 2]),
        ("fold is not null AND age != 4.0", [0, 2]),
        ("fold = 1 or fold = 2 and sex = 'f'", [0]),
        ("(fold = 1 or fold = 2) and sex = 'm'", [1]),
        ("not fold = 1 and not fold = 2", [2, 3]),
        ("'AFIB' in codes", [0, 3]),
        ("not 'AFIB' in codes", [1, 4]),
        ("device = 'CS100 3'", [0]),
        ("device = 'say \"c\"'", [3]),
        ("age > -1e0 and age < 5", [0, 2, 3]),
        ("age <> 90", [0, 2, 3]),
    ],
)
def test_rows_that_are_kept(text: str, rows: list[int]) -> None:
    assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the end stands where a column"),
        ("fold <", "a number or a text in quotes"),
        ("8 >= fold", "'>=' stands after '8' where 'in'"),
        ("fold = 1 fold", "'fold' stands after 'fold = 1' where 'and', 'or' or the end"),
        ("(fold = 1", r"the end stands .* where '\)'"),
        ("fold = 1; drop", "'; drop' cannot be understood"),
        ("fold in ()", "a number or a text"),
        ("__import__('os')", "a comparison, 'in' or 'is'"),
        ("sex = m", "a number or a text in quotes"),
        ("fold <= 'x'", r"'fold' \(int64\) cannot be compared with 'x'"),
        ("'x' in sex", "'sex' has no lists"),
        ("AGE > 3", "no column 'AGE'; it has fold, sex, age, codes, device"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        kept(text)
