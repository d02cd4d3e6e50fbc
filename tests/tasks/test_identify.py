"""Patients are found again: by lists or derived pairs, and better after ArcFace where there is something to learn."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import roc_curve

from cmelt.config_tasks import FinetuneRecipe
from cmelt.errors import InputError, TaskError
from cmelt.metrics import identification
from cmelt.models.cmelt import CMELT
from cmelt.shards.read import ShardFolder
from cmelt.tasks.identify import MARGIN, SCALE, People, arcface_loss, derived, identify, read_list, table
from tests.made import MakeShards


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 12), st.integers(1, 15), st.integers(0, 2**32 - 1), st.booleans())
def test_identification_follows_its_definition(people: int, probes: int, seed: int, is_coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    near, far = rng.normal(size=(people, 3)), rng.normal(size=(probes, 3))
    if is_coarse:
        near, far = np.sign(near), np.sign(far)
    who, sought = rng.permutation(people), rng.integers(0, people, probes)
    found, hits = identification(near, who, far, sought)
    cosine = (far / np.linalg.norm(far, axis=1, keepdims=True)) @ (near / np.linalg.norm(near, axis=1, keepdims=True)).T
    for k in (1, 5):
        right = [
            sum(cosine[p, g] >= cosine[p, who == sought[p]].max() - 1e-12 for g in range(people) if who[g] != sought[p]) < k
            for p in range(probes)
        ]
        assert found[f"top{k}"] == pytest.approx(np.mean(right))
    assert found["top1"] == hits.mean()
    accepted, kept, _ = roc_curve((sought[:, None] == who).ravel(), cosine.round(12).ravel(), drop_intermediate=False)
    grid = np.linspace(0, 1, 20001)
    on_curve = (
        np.interp(grid, np.arange(len(kept)) / (len(kept) - 1), accepted),
        np.interp(grid, np.arange(len(kept)) / (len(kept) - 1), 1 - kept),
    )
    assert found["eer"] == pytest.approx(on_curve[0][np.abs(on_curve[0] - on_curve[1]).argmin()], abs=2e-3)


def test_arcface_moves_the_right_angle() -> None:
    cosine = torch.tensor([[0.6, 0.1, -0.3], [-0.95, 0.2, 0.0]])
    patient = torch.tensor([0, 0])
    logits = SCALE * cosine.double()
    logits[0, 0] = SCALE * np.cos(np.arccos(0.6) + MARGIN)
    logits[1, 0] = SCALE * (-0.95 - MARGIN * np.sin(MARGIN))  # beyond π − m the cosine would rise again
    expected = torch.nn.functional.cross_entropy(logits, patient)
    assert float(arcface_loss(cosine, patient)) == pytest.approx(float(expected), rel=1e-5)


@pytest.fixture
def crowd(tmp_path: Path, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of 160 recordings, four of each of 40 patients, each with a rhythm and an axis of its own."""
    folder = make_shards(tmp_path / "crowd", n=160, dataset="crowd")
    rng = np.random.default_rng(0)
    style, noise = rng.normal(size=(40, 12, 1)), rng.normal(size=(160, 12, 320))
    time = np.arange(320) / 100
    plain = ShardFolder.column

    def column(self: ShardFolder, name: str) -> object:
        if name == "patient_id":
            return [str(row // 4) for row in range(160)]
        if name == "split":
            return ["train" if row < 96 else "val" if row < 128 else "test" for row in range(160)]
        return plain(self, name)

    def ecg_mv(self: ShardFolder, rows: np.ndarray) -> np.ndarray:
        who = np.asarray(rows) // 4
        wave = np.sin(2 * np.pi * (1 + 0.15 * who)[:, None, None] * time)
        return (style[who] * wave + 0.7 * noise[rows]).astype(np.float32)

    monkeypatch.setattr(ShardFolder, "column", column)
    monkeypatch.setattr(ShardFolder, "ecg_mv", ecg_mv)
    return folder


def test_derived_pairs_and_arcface(run: Path, crowd: Path) -> None:
    people = People([crowd])
    pairs = derived(people, "test")
    assert (len(pairs.gallery), len(pairs.probes)) == (8, 24)
    assert pairs.gallery.tolist() == list(range(128, 160, 4))
    recipe = FinetuneRecipe.model_validate(
        {"tune": {"epochs": 12, "batch": 24, "patience": 12}, "optim": {"lr": 3e-3, "schedule": "cosine"}}
    )
    before = CMELT.from_pretrained(run).state_dict()
    result = identify(run, [crowd], arcface=recipe, quiet=True)
    assert result["arcface"]["patients"] == 24
    assert result["arcface"]["recordings"] == 96
    assert result["arcface"]["stopped_by"] == "validation patients"
    assert result["scores"]["arcface"]["top1"] > result["scores"]["mean"]["top1"]
    assert result["scores"]["arcface"]["eer"] < result["scores"]["mean"]["eer"]
    assert json.loads((run / "results/people/identify.json").read_text())["scores"] == result["scores"]
    assert all(torch.equal(value, before[name]) for name, value in CMELT.from_pretrained(run).state_dict().items()), "the run was changed"
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table(result))
    assert "chance top-1 0.125" in console.export_text()
    few = identify(run, [crowd], leads=("II",), quiet=True)
    assert (run / "results/people/identify-leads-II.json").exists()
    assert few["scores"]["mean"] != result["scores"]["mean"]


def test_lists_name_recordings_and_people(run: Path, crowd: Path, tmp_path: Path) -> None:
    gallery, probes = tmp_path / "gallery.csv", tmp_path / "probe.csv"
    gallery.write_text("filename_hr,label\nrecords500/00128,7\nrecords500/00132,8\nrecords500/99999,9\n")
    probes.write_text("filename_hr,label\nrecords500/00129,7\nrecords500/00133,8\nrecords500/00140,9\n")
    result = identify(run, [crowd], gallery, probes, quiet=True)
    assert result["pairs"] == {
        "from": "gallery.csv, probe.csv",
        "gallery": 2,
        "probes": 2,
        "not_in_the_shards": [1, 0],
        "probes_without_their_person": 1,
    }
    probes.write_text("key\n00129\n")
    assert read_list(People([crowd]), probes) == ({129: "crowd/32"}, 0)
    probes.write_text("key\n99999\n")
    with pytest.raises(TaskError, match="nobody has recordings on both sides"):
        identify(run, [crowd], gallery, probes, quiet=True)
    with pytest.raises(InputError, match="a gallery list needs a probe list"):
        identify(run, [crowd], gallery, quiet=True)
    with pytest.raises(InputError, match="cannot be read"):
        identify(run, [crowd], gallery, tmp_path / "nowhere.csv", quiet=True)


def test_nobody_who_is_sought_is_trained_on(run: Path, crowd: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_text("\n".join(["key,label", *(f"{row:05d},{row // 4}" for row in (*range(8), *range(128, 132)))]) + "\n")
    result = identify(run, [crowd], arcface=FinetuneRecipe.model_validate({"tune": {"epochs": 1}}), train=train, quiet=True)
    assert (result["arcface"]["patients"], result["arcface"]["recordings"]) == (2, 8), "patient 32 is in the gallery"
    train.write_text("key,label\n00000,0\n00001,0\n00128,32\n00129,32\n")
    with pytest.raises(TaskError, match="ArcFace has nobody to tell apart"):
        identify(run, [crowd], arcface=FinetuneRecipe(), train=train, quiet=True)


def test_nobody_to_find(run: Path, tmp_path: Path, make_shards: MakeShards) -> None:
    with pytest.raises(TaskError, match="no patient of the test split has two recordings"):
        identify(run, [make_shards(tmp_path / "few", n=20)], quiet=True)
