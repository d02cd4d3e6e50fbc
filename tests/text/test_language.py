"""Languages of reports, told by their words."""

from __future__ import annotations

import pytest

from cmelt.text.language import WORDS, language_of


@pytest.mark.parametrize(
    ("report", "language"),
    [
        ("sinusrhythmus lagetyp normal normales ekg", "German"),
        ("Sinus rhythm. Left axis deviation. Otherwise normal ECG.", "English"),
        ("SINUSRYTM VÄNSTER EL-AXEL OSPECIFIK T-FÖRÄNDRING", "Swedish"),
        ("trace only requested.", "English"),
        ("normal", "unclear"),
        ("sinusrytm sinusrhythmus", "unclear"),
        (" 4.46 ", "none"),
    ],
)
def test_language(report: str, language: str) -> None:
    assert language_of(report) == language


def test_few_words_tell_of_two_languages() -> None:
    words = list(WORDS.values())
    assert {word for a in words for b in words if a is not b for word in a & b} <= {"för", "till"}
