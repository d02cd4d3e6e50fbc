"""Batches: every sample once an epoch, the same on any number of ranks and threads, resumable, mixed, and never silently wrong."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from cmelt.config import AugmentSettings, PretrainRecipe
from cmelt.errors import InputError, RecipeError, ShardError
from cmelt.training.corpus import Corpus
from cmelt.training.loader import HostBatch, Loader
from cmelt.training.negatives import Dealer, report_embeddings
from tests.laid import lay
from tests.pairs import small_model

SIZES = (7, 1, 13, 30, 2, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 61 samples in uneven shards, 49 of them for training."""
    return lay(tmp_path_factory.mktemp("laid") / "shards", SIZES, samples=160)


def make(folders: Path | list[Path] | list[str], late: bool = False, split: str = "train", **data: object) -> Loader:
    """Return a loader of batches of 9 (window of 2 shards) over one or more folders."""
    tables = {"data": {"window": 2, "leaks": "keep", **data}, "train": {"batch": 9, "seed": 3}}
    recipe = PretrainRecipe.model_validate(tables)
    corpus = Corpus(folders if isinstance(folders, list) else [folders], split, "device", recipe.data)
    return Loader(corpus, small_model(reports=corpus.reports), recipe, Dealer(report_embeddings(corpus.reports)), late=late)


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[HostBatch]:
    """Return three epochs and a bit of whole batches, made one after the other."""
    return list(make(folder, threads=0).batches(0, 17))


def numbers(batches: list[HostBatch]) -> list[int]:
    """Return the numbers that the samples carry (tests.laid), in order."""
    found = torch.cat([batch.ecg[:, 0, :2] for batch in batches]).mul(1000).round().long()
    return (found[:, 0] + 1000 * found[:, 1]).tolist()


def rows(batches: list[HostBatch]) -> list[tuple[object, ...]]:
    """Return each row of `batches` as something to compare: every field, padding cut off."""
    found = []
    for batch in batches:
        for row, padding in enumerate(batch.text_padding):
            texts = [getattr(batch, name)[row][~padding].tolist() for name in ("text_ids", "mlm_labels")]
            rest = [f.name for f in fields(batch) if f.name not in ("augment", "lsb_mv", "text_ids", "mlm_labels", "text_padding")]
            found.append((*texts, *(getattr(batch, name)[row].numpy().tobytes() for name in rest)))
    return found


TRAIN = [number for number in range(sum(SIZES)) if number % 10 < 8]


@pytest.mark.parametrize("threads", range(5))
@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 6, 7])
def test_every_sample_once_an_epoch_whatever_ranks_and_threads(folder: Path, whole: list[HostBatch], world: int, threads: int) -> None:
    seen = numbers(whole)
    for epoch in range(3):
        assert sorted(seen[49 * epoch : 49 * (epoch + 1)]) == TRAIN, epoch
    loader = make(folder, threads=threads)
    ranks = [list(loader.batches(0, 17, rank, world)) for rank in range(world)]
    assert {len(batch) for batches in ranks for batch in batches} <= {9 // world, -(-9 // world)}
    assert rows([batch for step in zip(*ranks, strict=True) for batch in step]) == rows(whole)


def test_a_batch_has_a_row_for_every_rank(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.batch = 9 has no row for each of 10 ranks"):
        next(make(folder).batches(0, 1, 3, 10))


def test_goes_on_anywhere(folder: Path) -> None:
    loader = make(folder)
    assert rows(list(loader.batches(11, 14))) == rows(list(loader.batches(0, 14)))[99:]
    assert loader.place(11) == {"epoch": 2, "sample": 99}
    assert rows(list(make(folder).batches(100_000, 100_002))) == rows(list(make(folder, threads=0).batches(100_000, 100_002)))


def test_wrong_reports_and_their_masks_arrive(folder: Path) -> None:
    loader = make(folder)
    batch = loader.batch(0)
    wrong = batch.is_aligned == 0
    assert wrong.any()
    assert (batch.text_report_id[wrong] != batch.report_id[wrong]).all()
    for row in range(len(batch)):
        ids = torch.where(batch.mlm_labels[row] == -100, batch.text_ids[row], batch.mlm_labels[row])[~batch.text_padding[row]]
        assert ids.tolist() == loader.tokens.encode([loader.corpus.reports[int(batch.text_report_id[row])]])[0]


def test_a_texts_mask_does_not_depend_on_the_texts_beside_it(folder: Path, whole: list[HostBatch]) -> None:
    loader = make(folder, threads=0)
    alone = [[loader.batch(step, rank, 9) for rank in range(9)] for step in range(4)]  # each as long as it is
    assert len({batch.text_ids.shape[1] for ranks in alone for batch in ranks}) > 2
    assert rows([batch for ranks in alone for batch in ranks]) == rows(whole[:4])
    assert sum(int((batch.mlm_labels != -100).sum()) for batch in whole[:4]) > 20


def test_leads_are_masked_and_units_converted_on_the_device(folder: Path) -> None:
    waiting = make(folder).batch(1)
    batch, late = waiting.to("cpu"), make(folder, late=True).batch(1)
    assert (waiting.ecg.dtype, late.ecg.dtype) == (torch.float32, torch.int16)
    for one, other in zip(fields(batch), fields(batch), strict=True):
        torch.testing.assert_close(getattr(batch, one.name), getattr(late.to("cpu"), other.name), rtol=0, atol=1e-7)
    assert torch.equal(batch.ecg_target, waiting.ecg)
    assert torch.equal(batch.ecg == 0, ~waiting.lead_kept[:, :, None] | (batch.ecg_target == 0))
    assert 20 < int(waiting.lead_kept.sum()) < 90


def test_ecgs_vary_the_same_on_any_ranks_and_never_in_validation(folder: Path) -> None:
    recipe = PretrainRecipe.model_validate(
        {"augment": {"turn_deg": 10, "roll": True}, "train": {"batch": 9}, "masking": {"lead_prob": 0.0}}
    )
    corpus = Corpus([folder], "train", "device", recipe.data)
    parts = small_model(reports=corpus.reports), recipe, Dealer(report_embeddings(corpus.reports))
    loader, plain = Loader(corpus, *parts), Loader(corpus, *parts, augment=False)
    whole, late = loader.batch(0).to("cpu"), Loader(corpus, *parts, late=True).batch(0).to("cpu")
    torch.testing.assert_close(late.ecg, whole.ecg, rtol=1e-5, atol=1e-5)
    assert torch.equal(whole.ecg, whole.ecg_target), "what is rebuilt is what was seen"
    halves = torch.cat([loader.batch(0, rank, 2).to("cpu").ecg for rank in range(2)])
    torch.testing.assert_close(halves, whole.ecg, rtol=1e-5, atol=1e-5)
    assert torch.equal(loader.batch(0).to("cpu").ecg, whole.ecg)
    still = plain.batch(0)
    assert still.variation.shape == (9, 0)
    off = recipe.model_copy(update={"augment": AugmentSettings()})
    assert torch.equal(still.to("cpu").ecg, Loader(corpus, parts[0], off, parts[2]).batch(0).to("cpu").ecg)
    assert (whole.ecg - still.to("cpu").ecg).abs().amax() > 0.01


def test_a_batch_that_is_kept_is_not_written_over(folder: Path) -> None:
    loader = make(folder, threads=3)
    kept = list(loader.batches(0, 30))
    views = [batch.ecg[2:, 3].numpy() for batch in loader.batches(30, 34)]  # their batches are gone
    assert numbers(kept) == [number for step in range(30) for number in numbers([loader.batch(step)])]
    np.testing.assert_array_equal(views[0], loader.batch(30).ecg[2:, 3].numpy())
    assert len({batch.ecg.data_ptr() for batch in loader.batches(0, 30)}) < 10  # but memory is used again


def test_threads_end_with_the_loop_and_tell_what_went_wrong(tmp_path: Path) -> None:
    folder = lay(tmp_path / "shards", SIZES, samples=160)
    before = set(threading.enumerate())  # a test before this one may have left a loop that is not collected yet
    batches = make(folder, threads=2).batches(0, 1000)
    next(batches)
    assert set(threading.enumerate()) - before, "threads make them"
    batches.close()
    assert not set(threading.enumerate()) - before
    loader = make(folder, threads=2)
    with (folder / "made-000003.tar").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(ShardError, match=r"made-000003\.tar ends inside a sample"):
        list(loader.batches(0, 6))


def test_data_sets_mix_in_fixed_shares(folder: Path, tmp_path: Path) -> None:
    other = lay(tmp_path / "other", [40, 3, 60], dataset="other", samples=160, seed=1)
    loader = make([folder, other], weights={"made": 1, "other": 2})
    seen: dict[int, list[int]] = {0: [], 1: []}
    for step in range(60):
        drawn = loader.order.samples(9 * step, 9)[0]
        of = loader.corpus.folder_of[drawn]
        assert abs(int((of == 0).sum()) - 3) <= 1
        for row, number in zip(drawn, of, strict=True):
            seen[int(number)].append(int(row))
    for number, count in ((0, 49), (1, 83)):
        stream = seen[number]
        assert len(stream) > 2 * count or number == 0
        for epoch in range(len(stream) // count):
            assert len(set(stream[count * epoch : count * (epoch + 1)])) == count
    assert rows(list(loader.batches(2, 5))) == rows(list(make([folder, other], weights={"made": 2, "other": 4}).batches(0, 5)))[18:]
    with pytest.raises(RecipeError, match=r"data\.weights has no weight for other"):
        make([folder, other], weights={"made": 1})
    with pytest.raises(RecipeError, match=r"data\.weights\.othr: .*did you mean 'other'"):
        make([folder, other], weights={"made": 1, "othr": 1})


def test_a_filter_holds_for_training_alone(folder: Path) -> None:
    loader = make(folder, where="fold <= 3 and not device = 'AT-6'")
    assert sorted(set(numbers(list(loader.batches(0, 4))))) == [n for n in TRAIN if n % 10 < 3 and n % 3 != 1]
    assert loader.corpus.facts()["filtered"] == len(TRAIN) - len(loader.corpus)
    assert len(make(folder, split="val", where="fold <= 3").corpus) == 6
    with pytest.raises(InputError, match="no column 'folds'; it has key, shard"):
        make(folder, where="folds <= 3")


def test_shuffled_reports_are_those_of_other_samples_of_the_folder(folder: Path, tmp_path: Path) -> None:
    other = lay(tmp_path / "other", [40], dataset="other", samples=160, seed=1)
    true, again, shuffled = (make([folder, other], shuffle_reports=seed).corpus for seed in (0, 0, 7))
    assert (true.report_id == again.report_id).all()
    assert (true.report_id != shuffled.report_id).mean() > 0.8
    for number in (0, 1):
        assert sorted(true.report_id[true.folder_of == number]) == sorted(shuffled.report_id[true.folder_of == number])
    assert (shuffled.report_id == make([folder, other], shuffle_reports=7).corpus.report_id).all()
    assert (shuffled.report_id != make([folder, other], shuffle_reports=8).corpus.report_id).any()
    held_out = [make(folder, split="val", shuffle_reports=seed).corpus.report_id for seed in (0, 7)]
    assert (held_out[0] == held_out[1]).all()


def test_bad_shards_are_named_or_left_out(tmp_path: Path) -> None:
    folder = lay(tmp_path / "shards", SIZES, samples=160)
    gone, short, changed = (folder / f"made-{number:06d}.tar" for number in (0, 2, 4))
    gone.unlink()
    with short.open("r+b") as file:
        file.truncate(short.stat().st_size - 512)
    content = bytearray(changed.read_bytes())
    content[3000] ^= 1
    changed.write_bytes(content)
    with pytest.raises(ShardError, match=r"made-000000\.tar is missing; .*made-000002\.tar has \d+ bytes of \d+\. Mend them"):
        make(folder)
    loader = make(folder, on_bad_shard="skip", verify="sha256")
    assert [(Path(name).name, problem[:11]) for name, problem in loader.corpus.bad_shards.items()] == [
        ("made-000000.tar", "is missing"),
        ("made-000002.tar", f"has {short.stat().st_size} bytes"[:11]),
        ("made-000004.tar", "has changed"),
    ]
    left = [number for number in TRAIN if number not in (*range(7), *range(8, 21), *range(51, 53))]
    assert sorted(numbers(list(loader.batches(0, 10)))[: len(left)]) == left
    assert loader.corpus.facts()["in_bad_shards"] == len(TRAIN) - len(left)
    for shard in folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(ShardError, match="no sample of the train split"):
        make(folder, on_bad_shard="skip")


def held_bytes(cache: Path) -> int:
    """Return the bytes of the shards in `cache`; the loader's threads may remove one while they are counted."""
    total = 0
    for file in cache.glob("*.tar"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def test_shards_come_from_a_url_a_window_ahead(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMELT_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").put(str(folder), "/loader/shards", recursive=True)
    sizes = sorted(shard["bytes"] for shard in Corpus([folder], "train").folders[0].manifest["shards"])
    room = sum(sizes[-4:]) / 1e9  # two windows of two shards
    expected = rows(list(make(folder).batches(0, 17)))
    held = []
    there = make(["memory://loader/shards"], cache_gb=room, threads=2)
    found = []
    for batch in there.batches(0, 17):
        found.append(batch)
        held.append(held_bytes(tmp_path / "cache" / "shards"))
    assert rows(found) == expected
    assert max(held) <= room * 1e9
    assert min(held) > 0
    with pytest.raises(RecipeError, match="holds no two windows of 2 shards"):
        make(["memory://loader/shards"], cache_gb=0.9 * room)
    fsspec.filesystem("memory").rm("/loader", recursive=True)
