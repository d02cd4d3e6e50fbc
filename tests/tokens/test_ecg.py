"""ECG tokens: lossless up to quantisation, learnt as a plain trainer learns, refused where they do not fit."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cmelt.errors import CheckpointError, InputError
from cmelt.record import LEADS
from cmelt.tokens.ecg import FACTS, MERGES, ECGTokenizer, Scale
from cmelt.tokens.train import count_values, learn, percentiles, pieces


def walks(leads: int = 60, samples: int = 700, symbols: int = 26, seed: int = 0) -> np.ndarray:
    """Return slow random walks (leads, samples) over symbols."""
    steps = np.random.default_rng(seed).normal(0, 0.35, (leads, samples)).cumsum(axis=1)
    return np.clip(np.round(steps + symbols / 2), 0, symbols - 1).astype(np.uint8)


def trained(symbols: int = 26, merges: int = 300) -> ECGTokenizer:
    """Return a tokenizer of −1 to 1 mV, its pairs learnt from walks."""
    return ECGTokenizer(Scale(LEADS, 100.0, -1.0, 1.0, symbols), learn(pieces([walks(symbols=symbols)]), symbols, merges))


SMALL = {symbols: trained(symbols) for symbols in (2, 26, 256)}


def plain_merges(words: list[str], merges: int) -> list[tuple[str, str]]:
    """Return what byte-pair learning gives as its textbook says: count all pairs, merge the most frequent everywhere, again."""
    rank = {letter: number for number, letter in enumerate(map(chr, range(97, 123)))}
    split, found = [list(word) for word in words], []
    while len(found) < merges:
        counts = Counter(pair for word in split for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], rank[pair[0]], rank[pair[1]]), default=None)
        if best is None or counts[best] < 2:
            break
        rank.setdefault("".join(best), len(rank))
        found.append(best)
        for number, word in enumerate(split):
            made: list[str] = []
            place = 0
            while place < len(word):
                both = tuple(word[place : place + 2]) == best
                made.append("".join(word[place : place + 1 + both]))
                place += 1 + both
            split[number] = made
    return found


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.just(12), st.integers(1, 60)), elements=st.floats(-3, 3, width=32)),
    st.sampled_from(sorted(SMALL)),
)
def test_what_comes_back_is_the_quantised_ecg_bit_for_bit(ecg: np.ndarray, symbols: int) -> None:
    tokenizer = SMALL[symbols]
    (ids,) = tokenizer.encode(ecg)
    back = tokenizer.decode(ids)
    assert back.dtype == np.float32
    assert back.tobytes() == tokenizer.quantised(ecg).tobytes()
    assert np.array_equal(tokenizer.encode(back)[0], ids), "once quantised, it stays as it is"
    inside = (ecg >= -1) & (ecg <= 1)
    assert np.abs(back - ecg)[inside].max(initial=0) <= 1 / symbols + 1e-6


def test_real_looking_ecgs_take_few_tokens_and_none_reaches_over_a_lead() -> None:
    tokenizer = SMALL[26]
    ecg = tokenizer.scale.dequantise(walks(24, 500, seed=1).reshape(2, 12, 500))
    both = tokenizer.encode(ecg, 100.0)
    assert [len(ids) for ids in both] == [len(tokenizer.encode(one)[0]) for one in ecg], "a batch is its recordings"
    for ids in both:
        assert len(ids) < 6000 / 2.5
        assert set(range(500, 6001, 500)) <= set(tokenizer.ends(ids).tolist())
    lead = tokenizer.encode(np.roll(ecg[0], 1, axis=0))[0]
    assert not np.array_equal(lead, both[0]), "the order of the leads counts"


@pytest.mark.parametrize("words", [["aaaaabaaaa", "abababab", "bbbbbb"], None])
def test_merges_are_those_of_the_textbook(words: list[str] | None) -> None:
    some = words or list(pieces([walks(20, 200)]))
    mine = json.loads(learn(some, 26, 60).to_str())["model"]["merges"]
    assert [tuple(pair) for pair in mine] == plain_merges(some, 60)


def test_percentiles_are_exact_and_of_all_values() -> None:
    values = np.random.default_rng(0).normal(0, 900, (7, 12, 1001)).astype(np.int16)
    counts = np.zeros(65536, np.int64)
    for block in np.split(values, [2, 5]):
        count_values(block, counts)
    low, high = percentiles(counts, 1.0, 1e-3)
    assert ((values * 1e-3 < low).mean(), (values * 1e-3 > high).mean()) == pytest.approx((0.01, 0.01), abs=2e-4)
    assert percentiles(counts, 0.0, 1e-3) == (values.min() * 1e-3, values.max() * 1e-3)
    flat = np.zeros(65536, np.int64)
    flat[32768] = 5
    with pytest.raises(InputError, match="nothing to quantise"):
        percentiles(flat, 1.0, 1e-3)


def test_a_folder_gives_the_same_tokenizer_back(tmp_path: Path) -> None:
    tokenizer = SMALL[26]
    tokenizer.save(tmp_path / "T")
    again = ECGTokenizer.from_folder(tmp_path / "T")
    assert (again.scale, again.vocab_size, again.fingerprint) == (tokenizer.scale, 326, tokenizer.fingerprint)
    ecg = np.random.default_rng(0).normal(0, 0.5, (12, 300))
    assert np.array_equal(again.encode(ecg)[0], tokenizer.encode(ecg)[0])
    assert SMALL[2].fingerprint != tokenizer.fingerprint
    before = (tmp_path / "T" / MERGES).read_bytes()
    trained().save(tmp_path / "U")
    assert (tmp_path / "U" / MERGES).read_bytes() == before, "the same words give the same bytes"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (FACTS, None, "is no ECG tokenizer"),
        (FACTS, "{", "damaged"),
        (FACTS, '{"format_version": 1}', "damaged"),
        (FACTS, "more symbols", "damaged"),
        (FACTS, "newer", "format 2, and this cmelt reads 1"),
        (MERGES, None, "No such file"),
        (MERGES, "{}", "is not the file that"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, file: str, text: str | None, said: str) -> None:
    SMALL[26].save(tmp_path)
    facts = json.loads((tmp_path / FACTS).read_text())
    texts = {
        "more symbols": json.dumps(facts | {"scale": facts["scale"] | {"symbols": 999}}),
        "newer": json.dumps(facts | {"format_version": 2}),
    }
    (tmp_path / file).unlink()
    if text:
        (tmp_path / file).write_text(texts.get(text, text))
    with pytest.raises(CheckpointError, match=said):
        ECGTokenizer.from_folder(tmp_path)


def test_what_does_not_fit_is_refused() -> None:
    tokenizer = SMALL[26]
    ecg = np.zeros((12, 50), np.float32)
    (ids,) = tokenizer.encode(ecg)
    for given_ecg, fs_hz, said in (
        (ecg, 500.0, "500 Hz for a tokenizer of 100 Hz"),
        (ecg[:8], None, "give \\(N, 12, samples\\)"),
        (np.full((12, 50), np.nan), None, "NaN"),
    ):
        with pytest.raises(InputError, match=said):
            tokenizer.encode(given_ecg, fs_hz)
    for wrong, said in ((ids[:-1], "not 12 leads"), ([*ids, 0], "not 12 leads"), ([-1], "another tokenizer"), ([400], "another tokenizer")):
        with pytest.raises(InputError, match=said):
            tokenizer.decode(wrong)
