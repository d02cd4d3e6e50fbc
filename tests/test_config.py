"""Recipes: defaults, changes, and one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmelt.config import IngestRecipe, SignalSettings, load_recipe
from cmelt.errors import RecipeError


def test_the_named_recipes_are_what_the_contract_says() -> None:
    assert load_recipe("ingest", "clinical") == IngestRecipe()
    signal = IngestRecipe().signal
    assert (signal.fs_hz, signal.duration_s, signal.highpass_hz, signal.lowpass_hz) == (500, 10, 0.5, 100)
    assert (signal.filter_order, signal.notch_hz, signal.notch_q) == (3, "mains", 30)
    paper = load_recipe("ingest", "paper").signal
    assert (paper.fs_hz, paper.highpass_hz, paper.lowpass_hz, paper.notch_hz) == (500, 0, 0, 0)


def test_changes_are_typed_and_saved_whole(tmp_path: Path) -> None:
    recipe = load_recipe("ingest", "clinical", ["signal.fs_hz=250", "signal.notch_hz=60", "shards.samples_per_shard = 7"])
    assert (recipe.signal.fs_hz, recipe.signal.notch_hz, recipe.shards.samples_per_shard) == (250, 60, 7)
    assert IngestRecipe.model_validate(recipe.model_dump(mode="json")) == recipe
    (tmp_path / "mine.toml").write_text("[signal]\nlowpass_hz = 40\n")
    assert load_recipe("ingest", str(tmp_path / "mine.toml")).signal == SignalSettings(lowpass_hz=40)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("signal.fs=250", "unknown recipe key 'signal.fs'; did you mean 'signal.fs_hz'"),
        ("highpass_hz=1", "unknown recipe key 'highpass_hz'; did you mean 'signal.highpass_hz'"),
        ("signal.fs_hz=fast", "signal.fs_hz = 'fast'"),
        ("signal.fs_hz=0", "signal.fs_hz = 0"),
        ("signal.fs_hz=inf", "signal.fs_hz = inf"),
        ("signal.lowpass_hz=nan", "signal.lowpass_hz = nan"),
        ("signal.notch_hz=-1", "signal.notch_hz = -1"),
        ("signal.highpass_hz=150", "highpass_hz 150 does not lie below lowpass_hz 100"),
        ("signal.fs_hz", "write it as section.key=value"),
        ("signal.fs_hz.x=1", "is a value, not a section"),
    ],
)
def test_a_wrong_change_is_one_clear_line(change: str, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe("ingest", "clinical", [change])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_and_broken_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'clinical'"):
        load_recipe("ingest", "clinica")
    (tmp_path / "broken.toml").write_text("[signal\n")
    with pytest.raises(RecipeError, match="not a TOML file"):
        load_recipe("ingest", str(tmp_path / "broken.toml"))
