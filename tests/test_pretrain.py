"""Pre-training: what a run leaves behind, that it resumes to the same numbers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmelt import CMELT
from cmelt.config import IngestRecipe, PretrainRecipe, load_recipe
from cmelt.errors import CheckpointError, CmeltError, OutputError
from cmelt.ingest import ingest
from cmelt.pretrain import pretrain
from tests.conftest import write_raw

SMALL = ["model.ecg_width=16", "model.ecg_layers=1", "model.ecg_heads=2", "model.ecg_ffn=32", "model.position_groups=2"]
SMALL += ["model.conv_layers=[[8,4,4],[8,4,4]]", "model.position_kernel=8", "model.width=16", "model.fusion_heads=2"]
SMALL += ["model.decoder_width=16", "model.decoder_blocks=1", "model.decoder_heads=2", "model.tokenizer_vocab=60"]
SMALL += ["model.text_config={d_model=16,d_kv=8,d_ff=16,num_layers=1,num_heads=2,feed_forward_proj='gated-gelu'}"]
SMALL += ["train.batch=16", "train.steps=6", "train.log_every=1", "train.save_every=3", "train.validate_every=3", "optim.lr=1e-3"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small shard folder: 60 made-up recordings, 48 of them for training."""
    folder = tmp_path_factory.mktemp("river")
    write_raw(folder / "raw", 60)
    recipe = IngestRecipe.model_validate({"signal": {"fs_hz": 100, "duration_s": 4}, "shards": {"samples_per_shard": 25}})
    ingest("ptbxl", folder / "raw", folder / "shards", recipe, workers=1)
    return folder / "shards"


def recipe(*changes: str) -> PretrainRecipe:
    """Return the tiny recipe made smaller."""
    small: PretrainRecipe = load_recipe("pretrain", "tiny", [*SMALL, *changes])
    return small


def metrics(run: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl, the speed left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "samples_per_s"} for line in lines]


def test_a_run_holds_a_loadable_model_its_recipe_and_its_metrics(shards: Path, tmp_path: Path) -> None:
    summary = pretrain([shards], recipe(), tmp_path / "run", quiet=True)
    assert summary["steps"] == 6
    assert summary["train"] == 48
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["recipe"]["train"]["batch"] == 16
    assert saved["shards"] == [str(shards)]
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    validation = [line for line in lines if line["split"] == "val"]
    assert {"loss", "mlm", "mem", "etm", "ets", "retrieval_ecg_to_text@10", "retrieval_text_to_ecg@10"} <= set(validation[-1])
    model = CMELT.from_pretrained(tmp_path / "run")
    assert model.encode_ecg(torch.zeros(2, 12, 400)).shape == (2, 16)
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_stopped_run_resumes_to_the_same_bytes(shards: Path, tmp_path: Path, ema: float, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [f"train.ema={ema}", "model.ecg_dropout=0.1", "model.fusion_dropout=0.1"]
    pretrain([shards], recipe(*changes), tmp_path / "whole", quiet=True)

    import cmelt.pretrain as verb

    real, calls = verb.total_loss, []

    def dies(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 7:  # 3 training steps, a validation of 1 batch, then the fifth step
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(verb, "total_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain([shards], recipe(*changes), tmp_path / "cut", quiet=True)
    monkeypatch.undo()
    pretrain([shards], recipe(*changes), tmp_path / "cut", resume=True, quiet=True)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    for file in ("model.safetensors", "state/step-000000006/state.safetensors"):
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "cut" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


def test_resuming_with_another_recipe_names_the_difference(shards: Path, tmp_path: Path) -> None:
    pretrain([shards], recipe(), tmp_path / "run", quiet=True)
    with pytest.raises(CheckpointError, match=r"optim\.lr: 0\.001 → 0\.01"):
        pretrain([shards], recipe("optim.lr=0.01"), tmp_path / "run", resume=True, quiet=True)


def test_bad_folders_are_refused(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        pretrain([shards], recipe(), tmp_path / "mine", quiet=True)
    with pytest.raises(CheckpointError, match=r"recipe\.json"):
        pretrain([shards], recipe(), tmp_path / "mine", resume=True, quiet=True)
    with pytest.raises(CmeltError, match="manifest"):
        pretrain([tmp_path / "mine"], recipe(), tmp_path / "new", quiet=True)
    with pytest.raises(CmeltError, match="ecg_heads"):
        pretrain([shards], recipe("model.ecg_width=15"), tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_loss_that_is_not_finite_is_fatal_or_skipped(shards: Path, tmp_path: Path) -> None:
    wild = ["optim.lr=1e30", "optim.clip=0", "optim.warmup=0"]
    with pytest.raises(CmeltError, match="the loss is"):
        pretrain([shards], recipe(*wild), tmp_path / "fatal", quiet=True)
    summary = pretrain([shards], recipe(*wild, "train.on_nan='skip'", "train.validate_every=100"), tmp_path / "skip", quiet=True)
    assert summary["steps"] == 6
