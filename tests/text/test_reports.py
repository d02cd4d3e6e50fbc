"""Cleaning reports: repaired, stripped of footer and codes, translated; what the real reports' words are covered by."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from cmelt.text.reports import clean_report, coverage, glossary_rows, translate

FOOTER = "4.46                          unbestÄtigter bericht"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("sinus rhythm. normal ecg.", "sinus rhythm. normal ecg."),
        ("sinusrhythmus lagetyp normal normales ekg", "sinus rhythm. normal axis. normal ecg."),
        (
            f"tachykardes vorhofflimmern lagetyp normal qrs(t) abnorm    inferiorer infarkt     alter unbest. {FOOTER}",
            "atrial fibrillation with rapid ventricular response. normal axis. abnormal qrs(t), inferior infarct, age undetermined.",
        ),
        (
            "sinusrhythmus mÄssige amplitudenkriterien f#r linkshypertrophie",
            "sinus rhythm. moderate voltage criteria for left ventricular hypertrophy.",
        ),
        ("sinusrhythmus t- veraenderungen, neg in v1", "sinus rhythm. t wave changes, negative in v1."),
        ("sinusrhythmus T-Veränderungen neg. in V1", "sinus rhythm. t wave changes negative in v1."),
        ("ventrikulÄre extrasystole(n), bigeminus linkstyp", "premature ventricular contraction(s), bigeminy. leftward axis."),
        ("sinusrytm vÄnster el-axel eljest normalt ekg", "sinus rhythm. leftward axis. otherwise normal ecg."),
        (
            "sinusrytm avvikande qrs(t) fÖrlopp    inferior infarkt     Ålder ej bestÄmmbar",
            "sinus rhythm. abnormal qrs(t), inferior infarct, age undetermined.",
        ),
        ("st-hebung in v2,v3 pathologisches ekg", "st elevation in v2,v3. pathological ecg."),
        ("diskrete st-hebung in v2", "slight st elevation in v2."),
        ("linksschenkelblock und a-v block i", "left bundle branch block and first degree av block."),
        ("sinus rhythm, rate 60. pr 0.24 sec. 2:1 block", "sinus rhythm, rate 60. pr 0.24 sec. 2:1 block."),
        ("xyzzy ekg", "xyzzy ecg."),
        ("", ""),
        (FOOTER, ""),
    ],
)
def test_a_report_becomes_plain_english(raw: str, clean: str) -> None:
    assert clean_report(raw, "ptbxl") == clean


@pytest.mark.parametrize("kept", range(0, len(FOOTER), 3))
def test_the_footer_goes_however_much_of_it_is_left(kept: int) -> None:
    assert clean_report("sinusrhythmus " + FOOTER[: kept + 3], "ptbxl") == "sinus rhythm."


def test_the_second_readers_codes_go_because_they_are_the_labels() -> None:
    for footer in ("", FOOTER):
        raw = f"sinusrhythmus normales ekg {footer} Edit: NORM 100, LVH 50, (NORM 100,\n LVH 15)"
        assert clean_report(raw, "ptbxl") == "sinus rhythm. normal ecg."


def test_half_a_word_at_the_cut_goes() -> None:
    whole = "sinus rhythm. " * 18
    assert clean_report(whole + "subendocardial", "ptbxl").endswith("rhythm. subendocardial.")
    assert clean_report((whole + "infarc").rjust(255, " "), "ptbxl").endswith("sinus rhythm.")


def test_other_data_sets_are_not_translated() -> None:
    assert clean_report("  Sinusrhythmus,  Normal  EKG ", "wfdb") == "sinusrhythmus, normal ekg."


def test_words_are_counted_by_what_covers_them() -> None:
    counts = coverage(["sinusrhythmus 60/min xyzzy", "sinusrhythmus 60/min xyzzy", "verdacht auf p-sinistrocardiale in v1"])
    assert counts == {"translated": 2 + 4, "identity": 2 + 2, "unknown": 2}


def test_the_glossary_is_clean() -> None:
    rows = list(glossary_rows())
    assert {row["language"] for row in rows} == {"de", "sv", "en"}
    phrases = [row["phrase"] for row in rows]
    assert len(phrases) == len(set(phrases))
    for row in rows:
        assert row["phrase"] == row["phrase"].lower().strip()
        assert row["english"] == row["english"].lower().strip() != ""
        assert not re.search("[äöüßå]", row["english"]), row
        unknown = [piece.text for piece in translate(row["english"]) if piece.kind == "unknown"]
        assert not unknown, (row, unknown)  # what was translated stays, translated again


def test_the_real_reports_are_covered(realdata: Path) -> None:
    with (realdata / "ptbxl" / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        reports = [row["report"] for row in csv.DictReader(file)]
    counts = coverage(reports)
    assert len(reports) == 21_837
    assert (counts["translated"] + counts["identity"]) / counts.total() >= 0.999
    assert counts["translated"] / counts.total() >= 0.54
    cleaned = [clean_report(report, "ptbxl") for report in reports]
    left = re.compile(r"edit:|best[aä]tigt|4\.46|\b(infarkt|lagetyp|und|oder|nicht|eller|och|vänster|ekg)\b|[\x00\x01]")
    assert [text for text in cleaned if left.search(text)] == []
    assert sum(not text for text in cleaned) < 100
    assert all(text == text.lower() and "  " not in text for text in cleaned)
