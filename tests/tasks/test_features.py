"""Features are computed once, read again as they were, and never stale."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from cmelt.errors import CheckpointError
from cmelt.models.cmelt import CMELT
from cmelt.shards.read import ShardFolder
from cmelt.tasks import features as module
from cmelt.tasks.features import features, fingerprint, prune
from tests.made import SAMPLES, MakeShards
from tests.pairs import small_model

ROWS = np.array([40, 3, 17, 3])


class Counting:
    """A model that counts the ECGs and texts it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ecgs = self.texts = 0
        ecg_features, encode_text = CMELT.ecg_features, CMELT.encode_text

        def count_ecgs(model: CMELT, ecg: np.ndarray, batch: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
            self.ecgs += len(ecg)
            return ecg_features(model, ecg, batch=batch)

        def count_texts(model: CMELT, texts: list[str], batch: int = 64) -> torch.Tensor:
            self.texts += len(texts)
            return encode_text(model, texts, batch)

        monkeypatch.setattr(CMELT, "ecg_features", count_ecgs)
        monkeypatch.setattr(CMELT, "encode_text", count_texts)


@pytest.mark.parametrize("side", ["ecg", "text"])
def test_rows_are_computed_once_and_in_the_order_asked(side: str, tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    model, folder, count = small_model(samples=SAMPLES), ShardFolder(shards), Counting(monkeypatch)
    plain = features(model, folder, ROWS, side, quiet=True)
    count.ecgs = count.texts = 0
    first = features(model, folder, ROWS, side, tmp_path, quiet=True)
    assert (count.ecgs, count.texts) == ((3, 0) if side == "ecg" else (0, 3)), "row 3 once, and nothing of the other side"
    for name, values in plain.items():
        np.testing.assert_allclose(first[name], values, atol=1e-6)
    more = np.array([17, 41, 200])
    again = features(model, folder, more, side, tmp_path, quiet=True)
    assert count.ecgs + count.texts == 5, "17 was there, 41 and 200 are new"
    assert np.array_equal(again["embedding"][0], first["embedding"][2])
    assert np.array_equal(features(model, folder, ROWS, side, tmp_path, quiet=True)["embedding"], first["embedding"])
    assert count.ecgs + count.texts == 5
    expected = (
        model.ecg_features(folder.ecg_mv(more))[0] if side == "ecg" else model.encode_text([folder.column("report")[r] for r in more])
    )
    np.testing.assert_allclose(again["embedding"], expected, atol=1e-5)


def test_nothing_stale_is_read(tmp_path: Path, shards: Path, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = small_model(samples=SAMPLES), ShardFolder(shards)
    first = {side: fingerprint(model, folder, side) for side in ("ecg", "text")}
    model.mlm_head.dense.bias.data += 1
    assert fingerprint(model, folder, "ecg") == first["ecg"], "the head is not read"
    model.ecg_encoder.layers[0].ffn_in.bias.data[0] += 1e-6
    assert fingerprint(model, folder, "ecg") != first["ecg"]
    assert fingerprint(model, folder, "text") == first["text"]
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    assert fingerprint(model, ShardFolder(copy), "text") == first["text"], "a copy is the same content"
    other = make_shards(tmp_path / "other", seed=5)
    assert fingerprint(model, ShardFolder(other), "text") != first["text"]
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"lsb_uv": 2}))
    assert fingerprint(model, ShardFolder(copy), "text") != first["text"]
    monkeypatch.setattr(module, "code_digest", lambda: b"mended")
    assert fingerprint(model, folder, "text") != first["text"]


def test_a_damaged_file_is_made_again(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder, count = small_model(samples=SAMPLES), ShardFolder(shards), Counting(monkeypatch)
    first = features(model, folder, ROWS, "ecg", tmp_path, quiet=True)
    (file,) = tmp_path.rglob("*.safetensors")
    data = file.read_bytes()
    for damaged in (b"", data[: len(data) // 2], data[:-1]):
        file.write_bytes(damaged)
        assert np.array_equal(features(model, folder, ROWS, "ecg", tmp_path, quiet=True)["embedding"], first["embedding"])
        assert file.read_bytes() == data
    assert count.ecgs == 12


def test_writers_at_the_same_time_do_no_harm(tmp_path: Path, shards: Path) -> None:
    model, folder = small_model(samples=SAMPLES).eval(), ShardFolder(shards)
    asked = [np.arange(start, start + 40) for start in range(0, 200, 20)]
    expected = features(model, folder, np.arange(240), quiet=True)["embedding"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda rows: features(model, folder, rows, "ecg", tmp_path, quiet=True)["embedding"], asked))
    for rows, values in zip(asked, found, strict=True):
        np.testing.assert_allclose(values, expected[rows], atol=1e-5)
    assert len(list(tmp_path.rglob("*"))) == 2, "one folder with one whole file"


def test_room_is_made_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ecg-0").mkdir()
    part, whole = tmp_path / "ecg-0" / "000000.safetensors.0.part", tmp_path / "ecg-0" / "000000.safetensors"
    part.write_bytes(b"0")
    os.utime(tmp_path / "ecg-0", (0, 0))
    listed = Path.iterdir

    def named_just_then(place: Path) -> list[Path]:
        found = list(listed(place))
        if part in found:
            part.rename(whole)
        return found

    monkeypatch.setattr(Path, "iterdir", named_just_then)
    prune(tmp_path, 0)
    assert whole.exists(), "its writer prunes after it"
    os.utime(tmp_path / "ecg-0", (0, 0))
    prune(tmp_path, 0)
    assert not whole.exists()


def test_a_checkpoint_that_gives_nan_keeps_nothing(tmp_path: Path, shards: Path) -> None:
    model = small_model(samples=SAMPLES)
    model.text_project.weight.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="the text encoder gives numbers that are not finite"):
        features(model, ShardFolder(shards), ROWS, "text", tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def test_what_was_used_longest_ago_makes_room(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, models = ShardFolder(shards), [small_model(samples=SAMPLES, seed=seed) for seed in range(4)]
    for age, model in zip((5e4, 7e4, 6e4), models, strict=False):
        features(model, folder, ROWS, "ecg", tmp_path, quiet=True)
        place = tmp_path / f"ecg-{fingerprint(model, folder, 'ecg')[:20]}"
        os.utime(place, (time.time() - age,) * 2)
    size = sum(file.stat().st_size for file in place.iterdir())
    features(models[1], folder, ROWS, "ecg", tmp_path, quiet=True)  # read again: the newest now
    monkeypatch.setattr(module.prune, "__defaults__", (2.5 * size,))
    features(models[3], folder, ROWS, "ecg", tmp_path, quiet=True)
    kept = {f"ecg-{fingerprint(models[number], folder, 'ecg')[:20]}" for number in (1, 3)}
    assert {path.name for path in tmp_path.iterdir()} == kept
    prune(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == kept, "another process may be at these"
