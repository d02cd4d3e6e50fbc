"""Wrong reports are wrong, dealt evenly, by seed; and nothing but the ECG tells them from true ones."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from cmelt.errors import RecipeError
from cmelt.models.batch import IGNORE
from cmelt.models.masking import mask_text
from cmelt.text.reports import clean_report
from cmelt.training.controls import controls, deal_epochs, drawn
from cmelt.training.corpus import distinct_reports
from cmelt.training.negatives import BLOCK, Dealer, antipodal_table, deal_balanced, report_embeddings
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports(60)


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return report_embeddings(REPORTS)


def test_embeddings_are_normalised_and_the_same_again(embeddings: np.ndarray) -> None:
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert np.array_equal(embeddings, report_embeddings(REPORTS))
    assert report_embeddings(["one report."]).shape[0] == 1
    with pytest.raises(RecipeError, match="hf:NAME"):
        report_embeddings(REPORTS, "word2vec")


def test_reports_that_differ_in_case_or_spacing_are_one() -> None:
    texts = ["Sinus rhythm.", "other.", "SINUS  rhythm."], ["sinus rhythm.", None, "Other finding.", "ABOVE it"]
    columns = [pa.array(some).dictionary_encode() for some in texts]
    reports, number = distinct_reports(columns, [np.array([0, 1, 2]), np.array([0, 2])])
    assert reports == ["Other finding.", "SINUS  rhythm.", "other."]
    assert number.tolist() == [1, 2, 1, 1, 0]


def test_embeddings_of_a_hugging_face_encoder_are_means_over_real_tokens(tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    tokenizer = small_model(reports=REPORTS).require_tokenizer()
    sizes = {"vocab_size": tokenizer.vocab_size, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    encoder = T5EncoderModel(T5Config(**sizes)).eval()  # type: ignore[arg-type]
    encoder.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    embeddings = report_embeddings(REPORTS, f"hf:{tmp_path}")
    with torch.no_grad():
        hidden = encoder(torch.tensor(tokenizer.encode([REPORTS[7]]))).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(embeddings[7], (hidden / hidden.norm()).numpy(), atol=1e-4)


@pytest.mark.parametrize("mode", ["balanced", "antipodal", "random"])
def test_a_deal_is_half_wrong_and_never_by_an_equal_report(embeddings: np.ndarray, mode: str) -> None:
    dealer = Dealer(embeddings, mode)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        report_id = rng.choice(len(REPORTS), 33, p=np.r_[0.3, np.full(len(REPORTS) - 1, 0.7 / (len(REPORTS) - 1))])
        group = rng.integers(0, 3, 33)
        deal = dealer.deal(report_id, group, rng)
        wrong = deal.is_aligned == 0
        assert (deal.text_id[wrong] != report_id[wrong]).all()
        assert np.array_equal(deal.text_id[~wrong], report_id[~wrong])
        again = dealer.deal(report_id, group, np.random.default_rng(seed + 1000))
        assert seed or not np.array_equal(again.text_id, deal.text_id)
        if mode != "balanced":
            assert wrong.sum() in (16, 17)
            continue
        for name in range(3):
            here = group == name
            assert abs(int((wrong & here).sum()) - int((deal.is_aligned[here] == 1).sum())) <= 1
            assert sorted(deal.text_id[wrong & here]) == sorted(report_id[wrong & here])  # the half's own reports


def test_deals_are_seeded(embeddings: np.ndarray) -> None:
    report_id, group = np.arange(40) % 25, np.arange(40) % 2
    for mode in ("balanced", "antipodal", "random"):
        dealer = Dealer(embeddings, mode)
        first, second = (dealer.deal(report_id, group, np.random.default_rng((7, 2, 3))) for _ in range(2))
        assert np.array_equal(first.text_id, second.text_id)
        assert np.array_equal(first.is_aligned, second.is_aligned)


def test_every_row_is_wrong_in_half_of_the_deals(embeddings: np.ndarray) -> None:
    report_id, group, rng = np.arange(20) % 13, np.arange(20) % 2, np.random.default_rng(0)
    wrong = np.mean([deal_balanced(report_id, group, embeddings, rng).is_aligned == 0 for _ in range(400)], axis=0)
    np.testing.assert_allclose(wrong, 0.5, atol=0.12)


def test_small_groups_and_what_cannot_be_deranged_are_left_out(embeddings: np.ndarray) -> None:
    def dealt(reports: list[int], groups: list[int] | None = None) -> np.ndarray:
        return deal_balanced(np.array(reports), np.array(groups or [0] * len(reports)), embeddings, np.random.default_rng(0)).is_aligned

    assert (dealt([1, 2, 3]) == IGNORE).all()  # under 4 rows
    assert (dealt([1, 2, 3, 4, 5, 6, 7], [0] * 4 + [1] * 3) == IGNORE).tolist() == [False] * 4 + [True] * 3
    assert sorted(dealt([1, 2, 3, 4])) == [0, 0, 1, 1]
    assert (dealt([5] * 10) == IGNORE).all()
    mostly = dealt([5] * 10 + [1, 2, 3, 4])  # of the tens, only as many stay as others can stand in for
    assert (mostly == IGNORE).sum() == 6
    assert (mostly[10:] != IGNORE).all()
    assert sorted(dealt([1, 1, 2, 2])) == [0, 0, 1, 1]


def test_the_assignment_is_the_best_of_all(embeddings: np.ndarray) -> None:
    from itertools import permutations

    report_id = np.array([3, 9, 9, 20, 31, 44, 50, 12, 7, 25])
    deal = deal_balanced(report_id, np.zeros(10, int), embeddings, np.random.default_rng(4))
    wrong = np.flatnonzero(deal.is_aligned == 0)
    own = report_id[wrong]
    costs = [float(np.sum(embeddings[own] * embeddings[list(p)])) for p in permutations(own) if (np.array(p) != own).all()]
    assert float(np.sum(embeddings[own] * embeddings[deal.text_id[wrong]])) == pytest.approx(min(costs), abs=1e-5)


def test_large_groups_are_dealt_in_blocks(embeddings: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    report_id = np.where(rng.random(3 * BLOCK + 3) < 0.45, 0, rng.integers(1, len(REPORTS), 3 * BLOCK + 3))
    deal = deal_balanced(report_id, np.zeros(len(report_id), int), embeddings, rng)
    wrong = deal.is_aligned == 0
    assert (deal.text_id[wrong] != report_id[wrong]).all()
    assert sorted(deal.text_id[wrong]) == sorted(report_id[wrong])


def test_a_run_tells_what_it_will_draw(embeddings: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    report_id, group = rng.integers(0, len(REPORTS), 800), np.zeros(800, int)
    told = drawn(Dealer(embeddings), REPORTS, report_id, group, 32)
    assert told["left_out"] < 0.05
    assert 5.5 < told["entropy_bits"] <= np.log2(len(REPORTS))  # nearly as even as the reports are
    assert told["text_only"] == pytest.approx(0.5, abs=0.08)
    hub = np.zeros_like(embeddings)
    hub[:, 0], hub[:2, 0] = 1.0, -1.0  # two reports are everyone's opposites
    narrow = Dealer(hub, "antipodal")
    assert narrow.opposites is not None
    narrow.opposites = narrow.opposites[:, :2]
    hubs = drawn(narrow, REPORTS, report_id, group, 32)
    assert hubs["entropy_bits"] < 4
    assert hubs["text_only"] > 0.8
    assert "text_only" not in drawn(Dealer(embeddings), REPORTS, report_id[:40], group[:40], 32)


def test_opposites_are_the_farthest_reports(embeddings: np.ndarray) -> None:
    table = antipodal_table(embeddings, 5)
    cosine = embeddings @ embeddings.T
    for report, opposites in enumerate(table):
        assert report not in opposites
        assert cosine[report, opposites].max() <= np.sort(cosine[report])[4] + 1e-5


def test_the_wrong_report_is_what_the_text_encoder_reads() -> None:
    model = small_model(reports=REPORTS).eval()
    batch = small_batch(model, REPORTS, 16)
    wrong = batch.is_aligned == 0
    assert wrong.any()
    seen = []
    handle = model.text_encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    model(batch)
    handle.remove()
    ids, padding = seen[0]
    read = torch.where(batch.mlm_labels == IGNORE, ids, batch.mlm_labels)  # what was hidden put back
    for row in range(16):
        own, told = (model.require_tokenizer().encode([REPORTS[x[row]]])[0] for x in (batch.report_id, batch.text_report_id))
        kept = batch.mlm_labels[row] == IGNORE
        assert read[row, ~padding[row]].tolist() == told
        assert (told != own) == bool(wrong[row])
        assert int((~padding[row]).sum()) == len(told)  # the mask is made from those ids
        assert torch.equal(ids[row][kept][: sum(kept)], read[row][kept])
    assert mask_text(read, padding, torch.zeros(16, 3, ids.shape[1]), 0.15, model.require_tokenizer())[1][wrong].max() >= 0


@pytest.fixture(scope="module")
def ptbxl(realdata: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return PTB-XL's distinct training reports, each row's report and device family, and the reports' embeddings."""
    with (realdata / "ptbxl" / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["strat_fold"]) <= 8]
    texts = [clean_report(row["report"], "ptbxl") for row in rows]
    told = [number for number, text in enumerate(texts) if text]
    reports, report_id = np.unique([texts[number] for number in told], return_inverse=True)
    family = [(rows[number]["device"].split() or [""])[0] for number in told]
    return reports.tolist(), report_id, np.unique(family, return_inverse=True)[1], report_embeddings(reports.tolist())


def test_on_real_reports_blind_readers_learn_nothing(ptbxl: tuple[list[str], np.ndarray, np.ndarray, np.ndarray]) -> None:
    reports, report_id, device, embeddings = ptbxl
    assert len(report_id) > 17_000
    dealt = deal_epochs(Dealer(embeddings), report_id, device, batch=128, epochs=3)
    told = controls(dealt, reports, report_id, device, embeddings)
    assert told["text_only"] == pytest.approx(0.5, abs=0.02)
    assert told["length_only"] == pytest.approx(0.5, abs=0.02)
    assert told["acquisition"] == pytest.approx(0.5, abs=0.03)
    assert told["left_out"] < 0.03


def test_the_controls_do_find_what_gives_the_answer_away(ptbxl: tuple[list[str], np.ndarray, np.ndarray, np.ndarray]) -> None:
    reports, report_id, device, embeddings = ptbxl
    antipodal = deal_epochs(Dealer(embeddings, "antipodal"), report_id, device, batch=128, epochs=1)
    told = controls(antipodal, reports, report_id, device, embeddings)
    assert told["text_only"] > 0.8
    assert told["length_only"] > 0.6
    ungrouped = deal_epochs(Dealer(embeddings), report_id, np.zeros_like(device), batch=128, epochs=1)
    assert controls(ungrouped, reports, report_id, device, embeddings)["acquisition"] > 0.7
