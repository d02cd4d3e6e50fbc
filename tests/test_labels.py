"""Label sets give the published counts, and the published tables are reproduced where they are at hand."""

from __future__ import annotations

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

from cmelt.errors import TaskError
from cmelt.labels import TASKS, class_texts, load_vocabulary, read_table

PTBXL = """
NORM 9528 IMI 2685 ILMI 479 IPLMI 51 IPMI 33 INJIN 18 INJIL 15 ASMI 2363 AMI 354 ALMI 290 INJAS 215 INJAL 148 INJLA 17 LMI 201 PMI 17
NDT 1829 DIG 181 LNGQT 118 ANEUR 104 EL 97 NST_ 770 ISC_ 1275 ISCAL 660 ISCAS 170 ISCLA 142 ISCAN 44 ISCIN 219 ISCIL 179 LAFB 1626 LPFB 177
IRBBB 1118 1AVB 797 3AVB 16 2AVB 14 IVCD 789 CRBBB 542 CLBBB 536 WPW 80 ILBBB 77 LVH 2137 LAO/LAE 427 RVH 126 RAO/RAE 99 SEHYP 30
ABQRS 3327 PVC 1146 STD_ 1009 VCLVH 875 QWAVE 548 LOWT 438 NT_ 424 PAC 398 LPR 340 INVT 294 LVOLT 182 HVOLT 62 TAB_ 35 STE_ 28 PRC(S) 10
SR 16782 AFIB 1514 STACH 826 SARRH 772 SBRAD 637 PACE 296 SVARR 157 BIGU 82 AFLT 73 SVTAC 27 PSVT 24 TRIGU 20
"""
"""Records of PTB-XL 1.0.1 with each statement."""

GROUPED = {
    "superclass": "NORM 9528 MI 5486 STTC 5250 CD 4907 HYP 2655",
    "subclass": "NORM 9528 IMI 3281 AMI 3086 LMI 201 PMI 17 STTC 2244 NST_ 770 ISC_ 1275 ISCA 944 ISCI 398 LAFB/LPFB 1800 "
    "IRBBB 1118 _AVB 827 IVCD 789 CRBBB 542 CLBBB 536 WPW 80 ILBBB 77 LVH 2137 LAO/LAE 427 RVH 126 RAO/RAE 99 SEHYP 30",
}

RECORDS = {
    "superclass": (21430, 5),
    "subclass": (21430, 23),
    "form": (8988, 19),
    "rhythm": (21066, 12),
    "diagnostic": (21430, 44),
    "all": (21837, 71),
}


def counts(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


@pytest.fixture(scope="module")
def statements(realdata: Path) -> list[list[str]]:
    with (realdata / "ptbxl/ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        return [list(ast.literal_eval(row["scp_codes"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("task", RECORDS)
def test_ptbxl_counts(task: str, statements: list[list[str]]) -> None:
    vocabulary = load_vocabulary(task)
    truth = vocabulary.targets(statements)
    found = dict(zip(vocabulary.classes, truth.sum(0, dtype=int).tolist(), strict=True))
    assert (int(truth.any(1).sum()), len(vocabulary.classes)) == RECORDS[task]
    assert sum(bool(vocabulary.classes_of(codes)) for codes in statements) == RECORDS[task][0]
    expected = counts(GROUPED.get(task, PTBXL))
    assert found == {name: expected[name] for name in found}
    assert not set().union(*(vocabulary.unknown(codes) for codes in statements))


def test_order_and_unknown_codes() -> None:
    assert load_vocabulary("superclass").classes == ("NORM", "MI", "STTC", "CD", "HYP")
    assert load_vocabulary("superclass").classes_of({"IMI": 0.0, "LVH": 100.0, "SR": 0.0, "NEW": 50.0}) == {"MI", "HYP"}
    assert load_vocabulary("superclass").unknown(["IMI", "SR", "NEW"]) == {"NEW"}
    assert load_vocabulary("superclass").classes_of([]) == set()


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(TaskError, match="did you mean 'superclass'"):
        load_vocabulary("supperclass")


def test_every_class_has_words_and_is_described() -> None:
    for task in TASKS:
        vocabulary = load_vocabulary(task)
        words = class_texts(task)
        assert tuple(words) == vocabulary.classes
        assert all(row[kind] and row[kind] == row[kind].strip() for row in words.values() for kind in ("name", "description", "reports"))
        assert len({row["name"] for row in words.values()}) == len(words), "two classes of one task cannot be told apart by name"
    assert load_vocabulary("rhythm").describe("AFIB") == "atrial fibrillation"


def test_cpsc2018(realdata: Path) -> None:
    vocabulary = load_vocabulary("cpsc2018")
    with (realdata / "cpsc2018/training_set/REFERENCE.csv").open(encoding="utf-8") as file:
        columns = ("First_label", "Second_label", "Third_label")  # the later two as floats in this copy of the table
        rows = {row["Recording"]: [row[c].removesuffix(".0") for c in columns if row[c]] for row in csv.DictReader(file)}
    found = dict(zip(vocabulary.classes, vocabulary.targets(list(rows.values())).sum(0, dtype=int).tolist(), strict=True))
    assert len(rows) == 6877
    assert found == counts("NORM 918 AFIB 1221 1AVB 722 CLBBB 236 CRBBB 1857 PAC 616 VPC 700 STD 869 STE 220")
    for name in ("train", "val", "test"):
        with (realdata / f"splits/merl_cpsc2018/icbeb_{name}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert vocabulary.classes_of(rows[row["filename"]]) == {c for c in vocabulary.classes if row[c] == "1"}
    headers = sorted((realdata / "cinc2021/training/cpsc_2018").glob("*.hea"))
    for header in headers:  # the same recordings, labelled in SNOMED CT
        assert vocabulary.classes_of(diagnoses(header)) == vocabulary.classes_of(rows[header.stem])
    assert len(headers) == 8


def test_csn_and_its_substring_edition(realdata: Path) -> None:
    exact, merl = load_vocabulary("csn"), load_vocabulary("csn-merl")
    wrong: Counter[str] = Counter()
    with (realdata / "splits/merl_chapman/chapman_val.csv").open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ())[3:] == merl.classes
        for row in reader:
            published = {name for name in merl.classes if row[name] == "1"}
            codes = row["diagnose"].split(",")
            assert merl.classes_of(codes) == published
            assert exact.classes_of(codes) == set(codes)
            wrong.update(published ^ (exact.classes_of(codes) & set(merl.classes)))
    assert wrong == {"AF": 124, "ST": 100, "VB": 82, "AVB": 68, "SA": 54, "CR": 16, "2AVB": 2}
    with (realdata / "csn/ConditionNames_SNOMED-CT.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {code for code in exact.meaning if code.isdigit()} == {row["Snomed_CT"] for row in rows}
    assert len(exact.classes) == 55
    assert exact.classes_of(["195101003", "164909002", "999"]) == {"WAVN", "LBBB"}, "the first row wins; an unknown code is passed over"
    assert exact.unknown(["195101003", "999"]) == {"999"}
    assert merl.classes_of(["270492004", "999"]) == set(), "an unknown code drops the record"
    assert merl.classes_of(["270492004"]) == {"1AVB", "AVB", "VB"}


def test_cinc2021_scored_classes(realdata: Path) -> None:
    vocabulary = load_vocabulary("cinc2021")
    with (realdata / "cinc2021/mapping/weights.csv").open(encoding="utf-8") as file:
        scored, *rows = csv.reader(file)
    columns = [set(cell.split("|")) for cell in scored[1:]]
    assert len(columns) == len(vocabulary.classes) == 26
    weights = read_table("cinc2021_weights")
    assert [row["class"] for row in weights] == list(vocabulary.classes)
    assert [[float(row[c]) for c in vocabulary.classes] for row in weights] == [[float(cell) for cell in row[1:]] for row in rows]
    headers = sorted((realdata / "cinc2021/training").rglob("*.hea"))
    seen = Counter(name for header in headers for name in vocabulary.classes_of(diagnoses(header)))
    by_hand = Counter(i for header in headers for i, column in enumerate(columns) if column & set(diagnoses(header)))
    assert seen == {vocabulary.classes[i]: n for i, n in by_hand.items()}
    assert vocabulary.classes_of(["17338001"]) == vocabulary.classes_of(["427172004", "17338001"]) == {"PVC|VPB"}


def test_code(realdata: Path) -> None:
    vocabulary = load_vocabulary("code")
    with (realdata / "code_test/annotations/gold_standard.csv").open(encoding="utf-8") as file:
        rows = [[name for name, value in row.items() if value == "1"] for row in csv.DictReader(file)]
    found = dict(zip(vocabulary.classes, vocabulary.targets(rows).sum(0, dtype=int).tolist(), strict=True))
    assert found == counts("1AVB 28 RBBB 34 LBBB 30 SBRAD 16 AFIB 13 STACH 37")


def diagnoses(header: Path) -> list[str]:
    """Return the codes of a CinC header."""
    for line in header.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and line[1:].strip().startswith("Dx:"):
            return [code.strip() for code in line.split(":", 1)[1].split(",") if code.strip()]
    return []
