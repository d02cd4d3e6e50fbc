"""How far a text is word for word another: BLEU and ROUGE-L, from counts that can be added up over texts and over resamples of them.

N texts. Words are runs of letters and digits in lower case: full stops and commas earn nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+")
LONGEST = 4
"""Words of the longest run that BLEU counts."""


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return WORD.findall(text.lower())


def bleu_counts(written: Sequence[str], true: Sequence[str]) -> NDArray[np.float64]:
    """Return of N texts and their references what BLEU is made of, (N, 2 · LONGEST + 2).

    Of 1 … LONGEST words in a row: those that both have (each as often as the reference has it), then those that were written; then the
    words written, and of the reference.
    """
    table = np.zeros((len(written), 2 * LONGEST + 2))
    for row, one, other in zip(table, written, true, strict=True):
        ours, theirs = words(one), words(other)
        for size in range(1, LONGEST + 1):
            mine, yours = runs(ours, size), runs(theirs, size)
            row[size - 1], row[LONGEST + size - 1] = sum((mine & yours).values()), sum(mine.values())
        row[-2:] = len(ours), len(theirs)
    return table


def bleu(counts: NDArray[np.float64], longest: int = LONGEST) -> NDArray[np.float64]:
    """Return BLEU (…,) over a corpus, without smoothing, of summed `counts` (…, 2 · LONGEST + 2), for runs of 1 … `longest` words.

    Papineni et al., ACL 2002: the geometric mean of the precisions, times exp(1 − r/c) where fewer words were written (c) than the
    reference has (r).
    """
    hits, made, (ours, theirs) = counts[..., :longest], counts[..., LONGEST : LONGEST + longest], np.moveaxis(counts[..., -2:], -1, 0)
    precision = np.divide(hits, made, out=np.zeros_like(hits), where=made > 0)
    mean = np.exp(np.log(precision, out=np.full_like(precision, -np.inf), where=precision > 0).mean(-1))
    short = 1 - np.divide(theirs, ours, out=np.full_like(ours, np.inf), where=ours > 0)
    result: NDArray[np.float64] = mean * np.exp(np.minimum(0.0, short))
    return result


def rouge_l(written: Sequence[str], true: Sequence[str]) -> NDArray[np.float64]:
    """Return ROUGE-L of each of N texts, (N,): F1 of the longest sequence of words that is, with gaps, in both (Lin, 2004)."""
    found = np.zeros(len(written))
    for row, (one, other) in enumerate(zip(written, true, strict=True)):
        ours, theirs = words(one), words(other)
        if ours and theirs:
            found[row] = 2 * in_common(ours, theirs) / (len(ours) + len(theirs))
    return found


def runs(text: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Return how often each run of `size` words is in a text."""
    return Counter(zip(*(text[first:] for first in range(size)), strict=False))


def in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    best = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, theirs in enumerate(other, 1):
            before, best[place] = best[place], before + 1 if word == theirs else max(best[place], best[place - 1])
    return best[-1]
