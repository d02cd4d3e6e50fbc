"""Whatever stands in a header's comments or a table, a family yields Sources and Refused, or says what is wrong with the file."""

from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cmelt.datasets import open_dataset
from cmelt.datasets.headers import read_about
from cmelt.datasets.ptbxl import NEEDED
from cmelt.datasets.splits import read_splits, seeded_fold, split_of
from cmelt.datasets.wfdb import COLUMNS
from cmelt.errors import REASONS, InputError
from cmelt.raw import Raw
from cmelt.record import Refused, Source

WORDS = st.text(st.sampled_from("Aa19#:, .\t/-xDN\"';|\0é\n"), max_size=12)
CELLS = st.one_of(WORDS, st.sampled_from(["", "nan", "1", "-1", "1e99", "../x", "A0001", "40689238", "True", "9" * 30]))


def outcome(dataset: str, files: dict[str, bytes]) -> list[Source | Refused] | None:
    """Return what `dataset` yields from a folder of `files`, None where it says that a file is not right."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        try:
            found = list(open_dataset(dataset, Raw(folder)).sources())
        except InputError:
            return None
    for item in found:
        assert isinstance(item, Source) or item.reason in REASONS
        assert item.key
        assert isinstance(item, Refused) or item.split == split_of(item.fold) or item.fold == 0
    return found


def table(columns: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue().encode()


@given(st.lists(WORDS, max_size=8))
def test_any_header_text(lines: list[str]) -> None:
    about = read_about("\n".join(lines))
    assert about.age is None or 0 <= about.age <= 300
    assert about.sex in ("", "male", "female")
    assert all(code == code.strip() and "," not in code for code in about.codes)


@given(age=CELLS, sex=CELLS, codes=st.lists(WORDS, max_size=4), space=st.booleans())
def test_comments_survive_either_spelling(age: str, sex: str, codes: list[str], space: bool) -> None:
    hash_ = "# " if space else "#"
    tidy = [code.strip() for code in codes if code.strip() and not set(code) & set(",\n\0#:")]
    tidy = [code for code in tidy if len(code.splitlines()) == 1]
    about = read_about(f"r 0 500\n{hash_}Dx: {','.join(tidy)}\n")
    assert list(about.codes) == list(dict.fromkeys(tidy))
    read_about(f"r 0 500\n{hash_}Age: {age}\n{hash_}Sex: {sex}\n")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=5))
def test_any_reference_table(rows: list[list[str]]) -> None:
    found = outcome("cpsc2018", {"REFERENCE.csv": table(["Recording", "First_label", "Second_label", "Third_label"], rows)})
    assert found is None or len(found) <= len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=5))
def test_any_record_list(rows: list[list[str]]) -> None:
    found = outcome("mimic-iv-ecg", {"record_list.csv": table(["subject_id", "study_id", "path"], rows)})
    assert found is None or len(found) == len(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(CELLS, st.sampled_from(["{}", "{'NORM': 1}", "{1: 2}", "9", "10.0"])), min_size=8, max_size=8), min_size=1)
)
def test_any_row_of_ptbxl(rows: list[list[str]]) -> None:
    found = outcome("ptbxl", {"ptbxl_database.csv": table([*NEEDED, "filename_hr"], rows)})
    assert found is None or len(found) == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=len(COLUMNS), max_size=len(COLUMNS)), max_size=4))
def test_any_table_of_ones_own(rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "A0001.hea").write_text("A0001 1 500 600\nA0001.dat 16 1000 16 0 0 0 0 I\n")
        Path(folder, "A0001.dat").write_bytes(bytes(1200))
        Path(folder, "t.csv").write_bytes(table(list(COLUMNS), rows))
        try:
            found = list(open_dataset("wfdb", Raw(folder), table=f"{folder}/t.csv").sources())
        except InputError:
            return
    named = {str(row[0]).strip().removesuffix(".hea") for row in rows}
    assert len(found) == len(named | {"A0001"})


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=4).map(lambda r: table(["key", "x"], r)))
)
def test_any_bytes_for_a_split_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a_train.csv").write_bytes(data)
        with contextlib.suppress(InputError):
            assert set(read_splits(folder).of.values()) <= {"train"}


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([("cpsc2018", "REFERENCE.csv"), ("mimic-iv-ecg", "record_list.csv"), ("code15", "exams.csv")])
)
def test_any_bytes_for_a_table(data: bytes, where: tuple[str, str]) -> None:
    outcome(where[0], {where[1]: data})


@given(st.text(max_size=20))
def test_folds_are_even_and_steady(who: str) -> None:
    assert 1 <= seeded_fold(who) <= 10
    assert seeded_fold(who) == seeded_fold(who)


def test_folds_stay_what_they_were() -> None:
    assert [seeded_fold(f"p{number}") for number in range(12)] == [6, 9, 3, 5, 5, 3, 10, 1, 8, 10, 2, 10]
    counts = [0] * 11
    for number in range(10_000):
        counts[seeded_fold(str(number))] += 1
    assert all(900 < count < 1100 for count in counts[1:])
