"""Batches of tokens and reports: a pure function of the step; every recording once an epoch; ranks share them out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmelt.config import load_recipe
from cmelt.config_tasks import GenerateRecipe
from cmelt.models.writer import Reading, Writer
from cmelt.tokenizer import train
from cmelt.tokens.ecg import ECGTokenizer
from cmelt.training.pairs import AT_ONCE, Pairs, corpus_of

LITTLE = [
    "model.config.hidden_size=16",
    "model.config.intermediate_size=16",
    "model.config.num_hidden_layers=1",
    "train.batch=4",
    "data.leaks=keep",
]


def little(*changes: str) -> GenerateRecipe:
    """Return the recipe of a very small model."""
    recipe: GenerateRecipe = load_recipe("generate", "tiny", [*LITTLE, *changes])
    return recipe


@pytest.fixture(scope="module")
def tokenizer(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> ECGTokenizer:
    """Return a tokenizer of two leads of the made-up shards, at half their rate."""
    out = tmp_path_factory.mktemp("pairs") / "T"
    train([shards], out, merges=50, records=40, leads=("I", "V1"), fs_hz=50.0, quiet=True)
    return ECGTokenizer.from_folder(out)


def pairs_of(shards: Path, tokenizer: ECGTokenizer, *changes: str, max_tokens: int = 400) -> Pairs:
    """Return the pairs of the training split."""
    recipe = little(*changes)
    corpus = corpus_of([shards], "train", recipe)
    writer = Writer.create(recipe.model, tokenizer, corpus.reports, Reading(10.0, max_tokens, 20, {}), 0)
    return Pairs(corpus, writer, recipe)


def test_a_batch_is_a_pure_function_of_its_step(shards: Path, tokenizer: ECGTokenizer) -> None:
    one, other = pairs_of(shards, tokenizer), pairs_of(shards, tokenizer)
    steps = len(one.corpus) // 4
    assert steps % AT_ONCE == 0
    seen = np.concatenate([one.rows(step) for step in range(steps)])
    assert sorted(seen) == list(range(len(one.corpus))), "every recording once an epoch"
    for step in (steps - 1, 3):  # in another order
        assert np.array_equal(other.rows(step), seen.reshape(steps, 4)[step])
    assert not np.array_equal(pairs_of(shards, tokenizer, "train.seed=1").rows(0), one.rows(0))
    prompts, texts, tokens = one.batch(3)
    assert tokens == sum(map(len, texts))
    for prompt, text, row in zip(prompts, texts, one.rows(3), strict=True):
        (whole,) = one.writer.prompts(one.corpus.ecg_mv(np.array([row])), one.corpus.folders[0].leads, 100.0)
        assert np.array_equal(prompt, whole)
        assert np.array_equal(text, one.writer.texts([one.corpus.reports[one.corpus.report_id[row]]])[0])
    shares = [one.batch(3, rank, 2) for rank in (0, 1)]
    assert [len(text) for share in shares for text in share[1]] == [len(text) for text in texts]
    assert {share[2] for share in shares} == {tokens}, "every rank knows the whole batch's tokens"


def test_batches_hold_recordings_of_about_one_length(shards: Path, tokenizer: ECGTokenizer) -> None:
    pairs = pairs_of(shards, tokenizer)
    lengths = np.array([[len(prompt) for prompt in pairs.batch(step)[0]] for step in range(AT_ONCE)])
    assert np.ptp(lengths, axis=1).mean() < np.ptp(lengths) / 3


def test_what_does_not_fit_is_cut_and_counted(shards: Path, tokenizer: ECGTokenizer) -> None:
    pairs = pairs_of(shards, tokenizer, max_tokens=100)
    prompts = pairs.prompts(np.arange(10))
    assert max(map(len, prompts)) == 80
    assert pairs.cut == sum(len(prompt) == 80 for prompt in prompts) > 0
    assert all(prompt[-1] == pairs.writer.end + 2 for prompt in prompts)
