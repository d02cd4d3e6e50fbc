"""Findings of reports: how they are denied and hedged, the tables, and the rules beside 320 real reports read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt.labels import load_vocabulary
from cmelt.text.entities import UNSAID, Status, entities, entity_matrix, known_entities, wordings
from tests.text.checked import checked, clean_reports, parse, scores


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("sinus rhythm. normal axis. normal ecg.", "SR LAX- RAX- NORM"),
        ("sinus rhythm. otherwise normal ecg.", "SR NORM?"),
        ("abnormal qrs(t), inferior infarct, probably old.", "ABQRS MI IMI"),
        ("abnormal qrs(t), septal infarct, not excluded. inferior infarct.", "ABQRS MI AMI? IMI"),
        ("old anteroseptal myocardial infarction cannot be excluded.", "MI? AMI?"),
        ("high anterior and lateral infarct.", "MI AMI LMI"),
        ("no definite ischaemia.", "ISC_-"),
        ("no ecg evidence of lvh or ischaemia.", "LVH- ISC_-"),
        ("there are no features to suggest pericarditis.", "PERI-"),
        ("acute pericarditis would be unlikely.", "PERI-"),
        ("left bundle branch block, this may be due to ischaemia.", "CLBBB ISC_?"),
        ("findings are likely to be due to ischaemic heart disease and digitalis effect.", "ISC_? DIG?"),
        ("myocardial ischaemia is a possible cause. left bundle branch block.", "ISC_? CLBBB"),
        ("st segments are depressed and t waves inverted in i, avl, v5,6. non-specific but consistent with ischaemia.", "STD_ INVT ISC_?"),
        ("q waves in ii, iii, avf consistent with old inferior myocardial infarction.", "QWAVE MI IMI"),
        ("t waves are flat in i, avl and inverted in v5,6.", "LOWT INVT"),
        ("voltages are high in chest leads suggesting lvh.", "HVOLT LVH?"),
        ("inferolateral ischaemia or left ventricular strain.", "ISC_? STRAIN?"),
        ("incomplete left bundle branch block. left anterior fascicular block.", "ILBBB LAFB"),
        ("supraventricular extrasystole(s). atrial fibrillation/flutter.", "PAC AFIB AFLT?"),
        ("may be at increased risk of developing complete heart block.", ""),
        ("wandering pacemaker.", ""),
        ("", ""),
    ],
)
def test_what_a_report_says_denies_and_hedges(report: str, says: str) -> None:
    assert entities(report) == dict(map(parse, says.split()))


def test_what_is_said_twice_is_taken_at_its_surest() -> None:
    assert entities("no ischaemia. possible ischaemia.") == {"ISC_": Status.UNCERTAIN}
    assert entities("ischaemia. possible ischaemia. no ischaemia.") == {"ISC_": Status.PRESENT}


def test_a_corpus_becomes_a_table_of_statuses() -> None:
    reports = ["sinus rhythm.", "no ischaemia, possible lvh.", "sinus rhythm.", ""]
    table = entity_matrix(reports)
    codes = [entity.code for entity in known_entities()]
    assert table.shape == (4, len(codes))
    assert table.dtype == np.int8
    assert [table[row, codes.index("SR")] for row in range(4)] == [Status.PRESENT, UNSAID, Status.PRESENT, UNSAID]
    assert [table[1, codes.index(code)] for code in ("ISC_", "LVH")] == [Status.ABSENT, Status.UNCERTAIN]
    assert (table[3] == UNSAID).all()


def test_a_code_has_one_name_and_ptbxls_superclass() -> None:
    known = known_entities()
    assert len({entity.code for entity in known}) == len({entity.words for entity in known}) == len(known)
    superclass = load_vocabulary("superclass").meaning
    for entity in known:
        if superclass.get(entity.code):
            assert {entity.superclass} == superclass[entity.code], entity.code


def test_every_finding_is_found_in_its_own_words() -> None:
    worded = {wording.code for wording in wordings()}
    for entity in known_entities():
        assert entity.code in worded
        assert entities(entity.words).get(entity.code) == Status.PRESENT, entity.words


def test_the_rules_beside_real_reports_read_by_hand(realdata: Path) -> None:
    rows = checked()
    assert len(rows) == len({row.ecg_id for row in rows}) == 320
    assert {code for row in rows for code in row.says} <= {entity.code for entity in known_entities()}
    reports = clean_reports(realdata / "ptbxl")
    held = scores([row for row in rows if row.half == "held"], reports)
    assert held["all"]["f1"] >= 0.95, held["all"]
    for name, score in held.items():
        if isinstance(score, dict) and score["statements"] >= 10:
            assert score["f1"] >= 0.85, (name, score)
