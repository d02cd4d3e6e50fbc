"""Texts become ids the same way every time, whatever made the tokenizer, and what is masked is never a special token."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmelt.errors import CheckpointError
from cmelt.text.tokenizer import ReportTokenizer, plain, plain_column
from tests.pairs import some_reports

REPORTS = [*some_reports(40), "qrs 120 ms; µv ≥ 3 (β)"]
FLAN_T5 = Path(os.environ.get("CMELT_TOKENIZERS", Path(__file__).parents[3] / "shared" / "tokenizers")) / "flan-t5"


def test_a_trained_tokenizer_has_its_marks_in_place_and_is_the_same_again(tmp_path: Path) -> None:
    first, again = (ReportTokenizer.train(order, 120, 64) for order in (REPORTS, REPORTS[::-1]))
    assert (first.pad_id, first.backend.token_to_id("</s>"), first.backend.token_to_id("<unk>"), first.mask_id) == (0, 1, 2, 3)
    assert first.special_ids == (0, 1, 2, 3)
    assert first.vocab_size <= 120
    assert first.encode(REPORTS) == again.encode(REPORTS)
    assert all(ids[-1] == 1 and 2 not in ids for ids in first.encode(REPORTS[:40]))
    assert [first.decode(ids) for ids in first.encode(REPORTS[:40])] == REPORTS[:40]
    first.save(tmp_path)
    assert ReportTokenizer.load(str(tmp_path), 64).encode(REPORTS) == first.encode(REPORTS)


def test_long_texts_are_cut_and_short_ones_padded() -> None:
    tokenizer = ReportTokenizer.train(REPORTS, 120, 6)
    ids, lengths = tokenizer.encode_padded(["sinus rhythm.", ", ".join(REPORTS)])
    assert ids.shape == (2, 6)
    assert lengths.tolist()[1] == 6
    assert ids[1, -1] == 1  # the end mark stays
    assert (ids[0, lengths[0] :] == 0).all()


def test_what_is_saved_is_read_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = ReportTokenizer.train(REPORTS, 120, 24)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(REPORTS[3])["input_ids"] == tokenizer.encode([REPORTS[3]])[0]
    assert theirs.mask_token == "<extra_id_0>"
    assert theirs.pad_token_id == 0


@pytest.mark.skipif(not FLAN_T5.is_dir(), reason=f"no tokenizer at {FLAN_T5} (set CMELT_TOKENIZERS)")
def test_flan_t5_knows_every_sign_of_a_report() -> None:
    tokenizer = ReportTokenizer.load(str(FLAN_T5), 64)
    assert (tokenizer.pad_id, tokenizer.mask, tokenizer.mask_id, tokenizer.vocab_size) == (0, "<extra_id_0>", 32099, 32100)
    (ids,) = tokenizer.encode(["VerlÄngerung < 2 mV, ≥ 60/min ~ 5 µV {a} \\ ^ `b` ÜBER"])
    assert 2 not in ids
    assert ids[-1] == 1
    assert set(range(32000, 32100)) <= set(tokenizer.special_ids)


def test_plain_text() -> None:
    assert plain("  QRS < 120\tms ≥ {x} ") == "qrs less than 120 ms at least (x)"


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aZ  .<~{}\\^`≥µÜİß\t\n\u2003\x1c\x7f-'") | st.characters(codec="utf-8"))))
def test_plain_text_of_many_at_once(texts: list[str]) -> None:
    assert plain_column(pa.array(texts, pa.string())).to_pylist() == [plain(text) for text in texts]


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"<pad>": 0, "a": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="no mask token"):
        ReportTokenizer.load(str(tmp_path), 8)
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        ReportTokenizer.load(str(tmp_path.parent), 8)
