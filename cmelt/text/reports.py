"""Reports in, plain English text out.

PTB-XL's reports are German, English and Swedish, partly with broken characters, the device's footer, and the second
reader's codes (``Edit: NORM 100``), which are the labels themselves. They are repaired, stripped of footer and codes, and
translated phrase by phrase by ``glossary.csv``, longest phrase first; what it does not know stays as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

CUT = 254
"""PTB-XL's reports end after 254 or 255 characters, in the middle of a word if need be."""

SECOND_READER = re.compile(r"\bEdit:.*", re.DOTALL)
FOOTER = re.compile(r"\b4\.4\d?(\s+u.*)?$")
"""The device's ``4.46 unbestätigter bericht``, whole or cut off with the report."""
PATIENT_LINE = re.compile(r"^nr: \d+ ålder:.*?med:")
SEVEN_BIT = str.maketrans("{|}", "äöå")
"""How Swedish letters look in a seven-bit code page."""

TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
FOLD = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
"""Umlauts are written either way, in one report even."""

END = "\0"
"""Where a translated statement ends: a full stop, unless other punctuation or a joining word follows."""
START = "\1"
"""Where a translated statement begins: a full stop if a lead or a number stands before it."""
JOINING = r"(?=(?:and|or|with|without|in|over|of|to|after|by|from)\b|[(/])"


class Piece(NamedTuple):
    """A stretch of a report: whether blank space precedes it, how many words it had, what it becomes, and by what."""

    spaced: bool
    words: int
    text: str
    kind: str
    """``translated``, ``identity`` (a word that the glossary keeps), ``unknown``, or ``sign`` (digits, punctuation)."""


def clean_report(text: str, dataset: str) -> str:
    """Return the report of a recording of `dataset` as the model reads it: lower case, one line, PTB-XL's in English."""
    if dataset == "ptbxl":
        return clean_ptbxl(text)
    if dataset == "mimic-iv-ecg":  # the cart's ornaments around it, and its German abbreviation
        text = text.replace("EKG", "ECG").strip("*=- \t\n")
    return finish(text.lower())


@lru_cache(65_536)  # a corpus repeats itself: PTB-XL's 21,837 reports are 9,883 texts
def clean_ptbxl(text: str) -> str:
    """Return a report of PTB-XL repaired, without footer and codes, in English."""
    return finish("".join(f"{' ' * piece.spaced}{piece.text}" for piece in translate(text)))


def repair(text: str) -> str:
    """Return a report of PTB-XL in lower case on one line, its characters repaired, without the device's footer and the codes."""
    text = SECOND_READER.sub("", text).lower()
    if "}lder" in text:
        text = text.translate(SEVEN_BIT)
    text = re.sub("ó[¿¬½©]?", "", text.replace("#", "ü").replace("á", "ß"))
    return PATIENT_LINE.sub("", FOOTER.sub("", " ".join(text.split()))).strip()


def translate(text: str) -> list[Piece]:
    """Return the pieces of a report of PTB-XL, translated where the glossary knows them."""
    phrases, longest = glossary()
    plain = repair(text)
    tokens = list(TOKEN.finditer(plain))
    folded = [word if word.isascii() else word.translate(FOLD) for word in TOKEN.findall(plain)]
    pieces = []
    at = 0
    while at < len(tokens):
        spaced = tokens[at].start() > 0 and plain[tokens[at].start() - 1] == " "
        for size in range(min(longest.get(folded[at], 0), len(tokens) - at), 0, -1):
            english = phrases.get(tuple(folded[at : at + size]))
            if english is not None:
                words = sum(map(str.isalpha, folded[at : at + size]))
                kind = "identity" if size == 1 and english == folded[at] else "translated"
                pieces.append(Piece(spaced, words, english, kind))
                at += size
                break
        else:
            word = tokens[at].group()
            pieces.append(Piece(spaced, int(word.isalpha()), word, "unknown" if word.isalpha() else "sign"))
            at += 1
    published = SECOND_READER.sub("", text)
    if len(published) >= CUT and published[-1:].isalpha() and pieces and pieces[-1].words == 1:
        last = pieces[-1]
        return pieces[:-1] if last.kind == "unknown" or len(tokens[-1].group()) < 4 else pieces  # half a word, or perhaps
    return pieces


def finish(text: str) -> str:
    """Return `text` on one line with one mark where several met, ending in a full stop; '' stays ''."""
    text = " ".join(text.split())
    text = re.sub(rf"(\d|\b(?:i|ii|iii|av[rlf]))\s*{START}", rf"\1{END}", text).replace(START, " ")
    text = re.sub(rf"\s*{END}[\s{END}]*{JOINING}", " ", text)
    text = re.sub(rf"\s*(?:{END}\s*)+(?=[,.;:!?)]|$)", "", text)
    text = re.sub(rf"(?<=[,.;:(])\s*(?:{END}\s*)+", " ", text)
    text = re.sub(rf"\s*(?:{END}\s*)+", ". ", text)
    text = re.sub(r"\s+(?=[,.;:!?)])", "", text)
    text = re.sub(r"[,;:.]+(?=[,;:.])(?!\.\d)", "", text)
    text = re.sub(r":(?=[^\W\d])", ": ", text)
    text = " ".join(text.replace("( ", "(").split()).strip(" ,;:")
    text = text.lstrip(".,;:) ")
    return text if not text or text[-1] in ".!?" else f"{text}."


def coverage(texts: Iterable[str]) -> Counter[str]:
    """Return how many words of the reports `texts` the glossary translates, keeps (``identity``) and does not know."""
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for piece in translate(text):
            if piece.kind != "sign":
                counts[piece.kind] += piece.words * times
    return counts


@cache
def glossary() -> tuple[dict[tuple[str, ...], str], dict[str, int]]:
    """Return the English of each phrase, by its tokens, with END for full stops at either end; and by first token the longest's tokens."""
    phrases = {tuple(TOKEN.findall(row["phrase"].translate(FOLD))): with_ends(row["english"]) for row in glossary_rows()}
    return phrases, {phrase[0]: len(phrase) for phrase in sorted(phrases, key=len)}


def with_ends(english: str) -> str:
    """Return an English phrase of the table with END for a full stop before or after it, START for a semicolon before it."""
    return re.sub(r"^\.|\.$", END, english).replace(";", START, int(english.startswith(";")))


def glossary_rows() -> Iterator[dict[str, str]]:
    """Yield the rows of ``glossary.csv``: language (de, sv, en), phrase, english."""
    text = (files("cmelt.text") / "glossary.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(io.StringIO(text))
