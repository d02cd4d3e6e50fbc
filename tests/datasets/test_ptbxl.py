"""PTB-XL's table: what a row says, and what a bad row becomes."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cmelt.datasets import open_dataset
from cmelt.datasets.base import key_of
from cmelt.errors import InputError
from cmelt.raw import Raw
from cmelt.record import Refused, Source

MakeRaw = Callable[..., Path]


def edit(raw: Path, row: int, **changes: str) -> None:
    """Change cells of row `row` (0-based) of the table in folder `raw`."""
    file = raw / "ptbxl_database.csv"
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    rows[row] |= changes
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_row_becomes_a_source(make_raw: MakeRaw) -> None:
    raw = make_raw(3)
    edit(raw, 0, device=" AT-6 C  5.5 ", age="", sex="0", strat_fold="9.0", report="Sinusrhythmus,\nnormal")
    data = open_dataset("ptbxl", Raw(raw))
    first, second, _ = data.sources()
    assert first == Source(
        key="00001_hr",
        path="records500/00000/00001_hr.hea",
        patient_id="100",
        fold=9,
        split="val",
        age=None,
        sex="male",
        device="AT-6 C 5.5",
        report_raw="Sinusrhythmus,\nnormal",
        codes=("NORM", "SR"),
        likelihoods=(100.0, 0.0),
    )
    assert isinstance(second, Source)
    assert (second.sex, second.split, second.age) == ("male", "train", 52.0)
    assert (data.name, data.version, data.mains_hz) == ("ptbxl", "unknown", 50)
    assert [source.key for source in open_dataset("ptbxl", Raw(raw), records100=True).sources()] == ["00001_lr", "00002_lr", "00003_lr"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scp_codes": "__import__('os').remove('x')"}, "bad_row"),
        ({"scp_codes": "{'NORM': }"}, "bad_row"),
        ({"scp_codes": "[" * 5000}, "bad_row"),
        ({"scp_codes": "['NORM']"}, "bad_row"),
        ({"scp_codes": "{'NORM': 'x'}"}, "bad_row"),
        ({"scp_codes": "{'NORM': 1e999}"}, "bad_row"),
        ({"strat_fold": "11"}, "bad_row"),
        ({"strat_fold": ""}, "bad_row"),
        ({"strat_fold": "inf"}, "bad_row"),
        ({"age": "old"}, "bad_row"),
        ({"filename_hr": "records500/00000/00099_hr"}, "missing_file"),
        ({"filename_hr": "../00001_hr"}, "path_outside"),
        ({"filename_hr": "/etc/passwd"}, "path_outside"),
        ({"filename_hr": "a\0b"}, "path_outside"),
        ({"filename_hr": ""}, "missing_file"),
    ],
)
def test_a_bad_row_is_refused_and_the_others_go_on(make_raw: MakeRaw, changes: dict[str, str], reason: str) -> None:
    raw = make_raw(3)
    edit(raw, 1, **changes)
    found = list(open_dataset("ptbxl", Raw(raw)).sources())
    assert [type(item) for item in found[:3]] == [Source, Refused, Source]
    assert found[1].reason == reason
    assert [item.reason for item in found[3:]] == ["no_row"] * ("filename_hr" in changes)  # what the row named before


def test_a_signal_file_that_is_missing_is_known_before_reading(make_raw: MakeRaw) -> None:
    raw = make_raw(3)
    (raw / "records500/00000/00002_hr.dat").unlink()
    refused = list(open_dataset("ptbxl", Raw(raw)).sources())[1]
    assert refused == Refused("00002_hr", "records500/00000/00002_hr.hea", "missing_file", "records500/00000/00002_hr.dat")


def test_a_folder_that_is_not_ptbxl(make_raw: MakeRaw, tmp_path: Path) -> None:
    table = make_raw(1) / "ptbxl_database.csv"
    text = table.read_text()
    for broken, words in (
        (text.replace("scp_codes", "codes"), "no column scp_codes"),
        (text.splitlines()[0], "no rows"),
        ("", "no rows"),
        (text + '1,"', "cannot be read"),
    ):
        table.write_text(broken)
        with pytest.raises(InputError, match=words):
            open_dataset("ptbxl", Raw(table.parent))
    table.write_bytes(b"ecg_id\n\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        open_dataset("ptbxl", Raw(table.parent))
    table.unlink()
    with pytest.raises(InputError, match=r"has no ptbxl_database\.csv"):
        open_dataset("ptbxl", Raw(table.parent))
    with pytest.raises(InputError, match="is not a folder"):
        Raw(tmp_path / "absent")
    with pytest.raises(InputError, match="did you mean 'ptbxl'"):
        open_dataset("ptb-xl", Raw(table.parent))
    with pytest.raises(InputError, match="no option 'databases'"):
        open_dataset("ptbxl", Raw(table.parent), databases="x")


def test_simulated_folders_say_so(make_raw: MakeRaw) -> None:
    raw = make_raw(1)
    (raw / "SIMULATED").touch()
    data = open_dataset("ptbxl", Raw(raw))
    assert (data.name, data.version) == ("ptbxl-simulated", "simulated")
    assert "SIMULATED" in data.title


def test_keys_have_no_odd_characters() -> None:
    assert [key_of(path) for path in ("a/00001_hr.hea", "x/Ä b.c.hea", ".hea")] == ["00001_hr", "__b", "_"]


def test_the_real_table(realdata: Path) -> None:
    data = open_dataset("ptbxl", Raw(realdata / "ptbxl"))
    found = list(data.sources())
    assert (len(found), data.version) == (21_837, "1.0.1")
    assert Counter(item.reason for item in found if isinstance(item, Refused)) == {"missing_file": 21_200}
    kept = [item for item in found if isinstance(item, Source)]
    assert Counter(source.split for source in kept) == {"train": 357, "val": 81, "test": 199}
    assert Counter(source.sex for source in kept).keys() == {"male", "female"}
    assert all(source.patient_id.isdigit() for source in kept)


def test_a_recording_without_a_row_is_named_not_passed_over(make_raw: MakeRaw) -> None:
    raw = make_raw(4)
    for file in list((raw / "records500/00000").iterdir()):
        if file.name.startswith("00002"):
            shutil.copy(file, file.with_name(file.name.replace("00002", "00099")))
    found = list(open_dataset("ptbxl", Raw(raw)).sources())
    assert [(f.key, f.reason) for f in found if isinstance(f, Refused)] == [("00099_hr", "no_row")]
    assert len(found) == 5
