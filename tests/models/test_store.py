"""A checkpoint is found in a folder or by its name on the hub, and its model card is one."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from cmelt import CMELT
from cmelt.errors import CheckpointError
from tests.pairs import small_model

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a saved checkpoint."""
    small_model().save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_a_hub_name_is_read_from_the_hubs_cache(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "cache" / "models--somebody--small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(REVISION)
    shutil.copytree(run, kept / "snapshots" / REVISION)
    monkeypatch.setattr("cmelt.models.store.hub_is_away", lambda: True)
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("the network was asked"))
    here = CMELT.from_pretrained(run)
    for revision in (None, REVISION):
        loaded = CMELT.from_pretrained("somebody/small", revision=revision, cache_dir=tmp_path / "cache")
        assert loaded.config == here.config
        assert all(torch.equal(value, here.state_dict()[name]) for name, value in loaded.state_dict().items())
        assert torch.equal(loaded.encode_text(["sinus rhythm"]), here.encode_text(["sinus rhythm"]))
    with pytest.raises(CheckpointError, match="nobody/small: no such checkpoint folder, nor a model on the hub or in its cache"):
        CMELT.from_pretrained("nobody/small", cache_dir=tmp_path / "cache")


def test_the_model_card_is_one(run: Path) -> None:
    card = ModelCard.load(run / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("cmelt", "feature-extraction")
    assert {"ecg", "medical"} <= set(card.data.tags)
    assert card.text.lstrip().startswith("# C-MELT checkpoint")
    assert "no clinical decision may rest on it" in card.text
