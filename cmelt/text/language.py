"""The language of a report, by a rule one can read: the language that has the most of its words in it.

Only words that a report's language gives away are listed: "normal", "sinus" and abbreviations belong to all three.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W\d_]+")

TOLD_BY = {
    "German": """
        der die das und oder mit ohne nicht bei auf für von nach im ist sind am zu aus vom ekg sinusrhythmus rhythmus lagetyp linkstyp
        rechtstyp normales abnormes abnormales bericht verdacht wahrscheinlich möglich infarkt ischämie ableitungen sonst alt
        vorhofflimmern linksbelastung periphere niederspannung unspezifisches unspezifische""",
    "English": """
        the and or with without of for is are in to this may be not no but from otherwise consistent due likely possible probable ecg
        trace only requested rhythm left right axis deviation waves wave leads abnormal borderline infarction changes tachycardia
        bradycardia fibrillation ischemia ischaemia hypertrophy premature branch bundle atrial ventricular""",
    "Swedish": """
        och eller med utan ej inte är för vid på till från såsom som sinusrytm rytm gammal vänster höger axel normalt förlopp avvikande
        förändring förändringar ospecifik ospecifika skänkelblock hög trolig troligen misstänkt förmaksflimmer infarkten""",
}
WORDS = {language: frozenset(WORD.findall(words)) for language, words in TOLD_BY.items()}


def language_of(report: str) -> str:
    """Return German, English or Swedish, 'unclear' where none or several have the most words, 'none' for an empty report."""
    words = WORD.findall(report.lower())
    if not words:
        return "none"
    found = {language: sum(word in known for word in words) for language, known in WORDS.items()}
    most = max(found.values())
    best = [language for language, count in found.items() if count == most]
    return best[0] if most and len(best) == 1 else "unclear"
