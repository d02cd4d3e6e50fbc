"""WFDB headers: what is understood, what is refused, and that wfdb agrees."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import wfdb
from hypothesis import given
from hypothesis import strategies as st

from cmelt.errors import RecordError
from cmelt.signal.header import parse_header


def test_a_header_of_every_field() -> None:
    header = parse_header(
        "# before\nr1 2 257/500(3) 1000 10:00:00 1/2/1990\n\na.dat 16x2:3+24 4880(-7)/uV 16 5 1 2 0 lead I\na.dat 212\n#Dx: 1\n"
    )
    assert (header.fs_hz, header.samples, header.comments) == (257.0, 1000, ("before", "Dx: 1"))
    first, second = header.channels
    assert (first.file, first.format, first.samples_per_frame, first.skew, first.offset) == ("a.dat", 16, 2, 3, 24)
    assert (first.gain_adu_per_unit, first.baseline_adu, first.mv_per_unit, first.name) == (4880.0, -7, 1e-3, "lead I")
    assert (second.gain_adu_per_unit, second.gain_assumed, second.name) == (200.0, True, "")


def test_the_baseline_is_the_adc_zero_where_the_gain_has_none() -> None:
    assert parse_header("r 1 500 9\na.dat 16 1000/mV 16 -12 0 0 0 I\n").channels[0].baseline_adu == -12


@pytest.mark.parametrize("name", ["../a.dat", "/etc/passwd", "b/a.dat", "..", "b\\a.dat"])
def test_a_file_outside_the_folder_is_refused(name: str) -> None:
    for text in (f"r 1 500 9\n{name} 16 1000/mV 16 0 0 0 0 I\n", f"r/1 1 500 9\n{name} 9\n"):
        with pytest.raises(RecordError) as error:
            parse_header(text)
        assert error.value.reason == "path_outside"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "r",
        "r x 500 10\n",
        "r 1 0 10\na.dat 16\n",
        "r 1 nan 10\na.dat 16\n",
        "r 1 500 -3\na.dat 16\n",
        "r 1 500 10\n",
        "r 1 500 10\na.dat 16\nb.dat 16\n",
        "r 1 500 10\na.dat sixteen\n",
        "r 1 500 10\na.dat 16 1000/mmHg\n",
        "r 1 500 10\na.dat 16 inf/mV\n",
        "r 1 500 10\na.dat 16 1000(99999999999)/mV\n",
        "r/2 1 500 10\na 10\n",
        "r 1 ٥٠٠ 10\na.dat 16\n",
    ],
)
def test_a_header_that_says_something_else_is_refused(text: str) -> None:
    with pytest.raises(RecordError) as error:
        parse_header(text)
    assert error.value.reason == "bad_header"


LINES = st.text(st.sampled_from("r1 a.dat16x+:()/mVuI#-\t500e9.nan"), max_size=60)


@given(st.lists(LINES, max_size=5))
def test_any_text_is_a_header_or_a_reason(lines: list[str]) -> None:
    with contextlib.suppress(RecordError):
        parse_header("\n".join(lines))


def test_wfdb_reads_the_same_from_every_real_header(realdata: Path) -> None:
    files = sorted((realdata / "cinc2021").rglob("*.hea")) + sorted((realdata / "ptbxl" / "records500").rglob("*.hea"))[::40]
    assert len(files) > 90
    for file in [*files, realdata / "ptbdb" / "s0010_re.hea"]:
        ours = parse_header(file.read_text())
        theirs = wfdb.rdheader(str(file.with_suffix("")))
        assert (ours.fs_hz, ours.samples, len(ours.channels)) == (theirs.fs, theirs.sig_len, theirs.n_sig)
        assert [c.name for c in ours.channels] == theirs.sig_name
        assert [c.gain_adu_per_unit for c in ours.channels] == theirs.adc_gain
        assert [c.baseline_adu for c in ours.channels] == theirs.baseline
        assert [c.offset for c in ours.channels] == [offset or 0 for offset in theirs.byte_offset]


def test_the_record_lines_that_wfdb_refuses_are_read(realdata: Path) -> None:
    headers = [parse_header(file.read_text()) for file in sorted((realdata / "cinc2020_header_variants").glob("*.hea"))]
    assert len(headers) == 15
    assert {len(header.channels) for header in headers} == {12}
