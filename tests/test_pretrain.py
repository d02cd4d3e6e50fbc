"""Pre-training: what a run leaves behind, that it resumes to the same numbers, which model it chooses, and what it refuses."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cmelt.pretrain as verb
from cmelt import CMELT
from cmelt.config import IngestRecipe, PretrainRecipe, load_recipe
from cmelt.curves import curves
from cmelt.errors import CheckpointError, CmeltError, InputError, MissingExtra, OutputError, RecipeError
from cmelt.ingest import ingest
from cmelt.pretrain import pretrain
from cmelt.training.corpus import Corpus
from tests.conftest import write_raw

SMALL = ["model.ecg_width=16", "model.ecg_layers=1", "model.ecg_heads=2", "model.ecg_ffn=32", "model.position_groups=2"]
SMALL += ["model.conv_layers=[[8,4,4],[8,4,4]]", "model.position_kernel=8", "model.width=16", "model.fusion_heads=2"]
SMALL += ["model.decoder_width=16", "model.decoder_blocks=1", "model.decoder_heads=2", "model.tokenizer_vocab=60"]
SMALL += ["model.text_config={d_model=16,d_kv=8,d_ff=16,num_layers=1,num_heads=2,feed_forward_proj='gated-gelu'}"]
SMALL += [
    "train.trackers=[]",
    "train.batch=16",
    "train.steps=6",
    "train.log_every=1",
    "train.save_every=3",
    "train.validate_every=3",
    "optim.lr=1e-3",
]


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


SPEED = {"samples_per_s", "data_wait", "memory_mb"}


def metrics(run: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl, the speed left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in SPEED} for line in lines]


def assert_equal(one: Path, other: Path) -> None:
    """Hold two runs equal, bit for bit: metrics, the chosen model, every training state."""
    assert metrics(one) == metrics(other)
    assert (one / "chosen.json").read_text() == (other / "chosen.json").read_text()
    files = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    assert files == sorted(file.relative_to(other) for file in other.rglob("*.safetensors"))
    for file in files:
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file


def at_update(monkeypatch: pytest.MonkeyPatch, call: int, act: Callable[[], None]) -> None:
    """Have `act` done before the parameters are updated for the `call`-th time."""
    real, calls = verb.update, []

    def patched(*arguments: Any) -> str:
        calls.append(1)
        if len(calls) == call:
            act()
        return real(*arguments)

    monkeypatch.setattr(verb, "update", patched)


def die() -> None:
    raise KeyboardInterrupt


def test_few_records_train_in_bf16_the_same_way_twice(shards: Path, tmp_path: Path) -> None:
    quick = [f"train.{key}=4" for key in ("steps", "validate_every", "save_every")]
    few = load_recipe(
        "pretrain", "few-records", [*quick, "train.batch=12", "train.log_every=1", "train.pictures_every=4", "train.trackers=[]"]
    )
    for name in ("one", "two"):
        pretrain([shards], few, tmp_path / name, quiet=True)
    lines = metrics(tmp_path / "one")
    assert lines == metrics(tmp_path / "two")
    assert [set(line) & {"mlm", "mem", "etm", "ets", "entities"} for line in lines[1:]] == [{"ets", "entities"}] * 5
    assert [file.name for file in (tmp_path / "one" / "pictures").iterdir()] == ["step-000000004-retrieved.png"]  # nothing is rebuilt
    model = CMELT.from_pretrained(tmp_path / "one")
    assert model.config.ecg_encoder == "residual"
    assert torch.isfinite(model.entity_probabilities(torch.randn(2, 12, 400))).all()


@pytest.mark.parametrize(
    "encoder", [("conv", "each"), ("residual", "each"), ("lead-wise", "dynamic")], ids=["conv", "residual", "lead-wise"]
)
def test_a_run_holds_a_loadable_model_its_recipe_and_its_metrics(shards: Path, tmp_path: Path, encoder: tuple[str, str]) -> None:
    run = tmp_path / "run"
    changes = ("train.trackers=['tensorboard']", "train.pictures_every=3", f"model.ecg_encoder={encoder[0]}", f"masking.leads={encoder[1]}")
    summary = pretrain([shards], recipe(*changes), run, quiet=True)
    assert summary["steps"] == 6
    assert summary["train"] == 48
    assert not summary["stopped"]
    saved = json.loads((run / "recipe.json").read_text())
    assert saved["recipe"]["train"]["batch"] == 16
    assert saved["shards"] == [str(shards)]
    assert saved["history"] == [{"step": 0, "ranks": 1, "changed": []}]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "mlm", "mem", "etm", "ets", "lr", "left_out", "grad_norm"} | SPEED <= set(train[-1])
    assert all(0 <= line["data_wait"] < 1 and line["samples_per_s"] > 0 and line["memory_mb"] > 10 for line in train)
    assert train[0]["loss"] == pytest.approx(sum(train[0][name] for name in ("mlm", "mem", "etm", "ets")), rel=1e-4)
    validation = [line for line in lines if line["split"] == "val"]
    assert {"loss", "mlm", "mem", "etm", "ets", "retrieval_ecg_to_text@10", "retrieval_text_to_ecg@10"} <= set(validation[-1])
    model = CMELT.from_pretrained(run)
    assert model.encode_ecg(torch.zeros(2, 12, 400)).shape == (2, 16)
    assert not list(run.rglob("*.part"))
    assert {file.stat().st_mode for file in run.rglob("*.safetensors")} == {(run / "config.json").stat().st_mode}
    assert not [file for file in run.rglob("*") if file.suffix in {".pt", ".bin", ".pkl", ".pth"}]
    assert [p.name for p in sorted((run / "pictures").iterdir())] == [
        f"step-00000000{step}-{what}.png" for step in (3, 6) for what in ("rebuilt", "retrieved")
    ]
    assert curves(run, tmp_path / "curves.svg").read_text().count("validation") >= 5
    assert curves(run).read_bytes().startswith(b"\x89PNG")
    (events,) = (run / "tensorboard").rglob("events.out.tfevents*")
    assert b"train/ets" in events.read_bytes()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_cut_off_resumes_to_the_same_bytes(shards: Path, tmp_path: Path, ema: float, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [f"train.ema={ema}", "model.ecg_dropout=0.1", "model.fusion_dropout=0.1", "train.save_every=2", "train.keep=9"]
    pretrain([shards], recipe(*changes), tmp_path / "whole", quiet=True)
    run = tmp_path / "cut"
    pretrain([shards], recipe(*changes), run, quiet=True, prepare=True)
    assert sorted(file.name for file in run.iterdir()) == ["recipe.json", "reports.safetensors"]
    for call in (1, 4):  # before the first state there is, and after the validation of step 3, which no state has seen
        with monkeypatch.context() as patch:
            at_update(patch, call, die)
            with pytest.raises(KeyboardInterrupt):
                pretrain([shards], recipe(*changes), run, resume=True, quiet=True)
    (run / "state.part").mkdir()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "sp')
    pretrain([shards], recipe(*changes, "data.threads=0"), run, resume=True, quiet=True)  # as many threads as before, or not
    assert_equal(tmp_path / "whole", run)
    history = json.loads((run / "recipe.json").read_text())["history"]
    assert [entry["step"] for entry in history] == [0, 0, 0, 2]


def test_a_signal_saves_and_ends_the_run(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = tmp_path / "run", signal.getsignal(signal.SIGUSR1)
    pretrain([shards], recipe("train.keep=1"), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        at_update(patch, 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        summary = pretrain([shards], recipe("train.keep=1"), run, quiet=True)
    assert (summary["steps"], summary["stopped"]) == (3, True)  # the step in which it came, and the one that says so to all ranks
    assert signal.getsignal(signal.SIGUSR1) is before
    assert [state.name for state in (run / "state").iterdir()] == ["step-000000003"]
    pretrain([shards], recipe("train.keep=1"), run, resume=True, quiet=True)
    assert_equal(tmp_path / "whole", run)


def test_bf16_trains_as_fp32_does_nearly(shards: Path, tmp_path: Path) -> None:
    for kind in ("fp32", "bf16"):
        pretrain([shards], recipe(f"train.precision='{kind}'", "train.select='last'"), tmp_path / kind, quiet=True)
    one, other = ([line["loss"] for line in metrics(tmp_path / kind) if "loss" in line] for kind in ("fp32", "bf16"))
    assert one != other
    assert other == pytest.approx(one, rel=0.02)


def test_gradients_of_several_batches_are_averaged(shards: Path, tmp_path: Path) -> None:
    from accelerate import Accelerator

    from cmelt.objectives.ranks import Ranks
    from cmelt.training.corpus import Corpus
    from cmelt.training.distributed import TrainingPass
    from cmelt.training.loader import Loader
    from cmelt.training.negatives import Dealer, report_embeddings

    corpus = Corpus([shards], "train")
    one, two = recipe(), recipe("train.accumulate=2")
    model = CMELT.create(one.model, corpus.fs_hz, corpus.samples, corpus.reports)
    loader = Loader(corpus, model, one, Dealer(report_embeddings(corpus.reports)))
    step = TrainingPass(model, one.objectives, Ranks())

    def gradient(settings: PretrainRecipe, number: int, batches: Iterator[Any]) -> tuple[torch.Tensor, float]:
        told = verb.backward(Accelerator(cpu=True), step, batches, settings, number)
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        return flat, float(told["loss"])

    alone = [gradient(one, number, loader.batches(number, number + 1)) for number in (6, 7)]
    together, loss = gradient(two, 3, loader.batches(6, 8))
    torch.testing.assert_close(together, (alone[0][0] + alone[1][0]) / 2)
    assert loss == pytest.approx((alone[0][1] + alone[1][1]) / 2)
    assert pretrain([shards], two, tmp_path / "run", quiet=True)["steps"] == 6


def test_the_best_on_the_validation_split_is_chosen(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["train.validate_every=1", "train.save_every=1", "train.keep=3"]
    told = {"loss": [float("nan"), 3.0, 2.0, 2.0, float("nan"), 5.0], "ets": [1.0, 1.0, 1.0, 0.5, 0.9, 1.0]}
    told |= {"retrieval_ecg_to_text@1": [0.1, 0.2, 0.1, 0.1, 0.4, 0.3], "retrieval_text_to_ecg@1": [0.1, 0.2, 0.5, 0.1, 0.4, 0.3]}
    for by, best in {"loss": 3, "ets": 4, "retrieval": 5, "last": 6}.items():
        answers = iter([{name: values[i] for name, values in told.items()} for i in range(6)])
        monkeypatch.setattr(verb, "validate", lambda *_, answers=answers: next(answers))
        run = tmp_path / by
        pretrain([shards], recipe(*settings, "train.keep=6", f"train.select='{by}'"), run, quiet=True)
        chosen = json.loads((run / "chosen.json").read_text())
        assert (chosen["step"], chosen["by"]) == (best, by)
        one, other = load_file(run / "model.safetensors"), load_file(run / f"state/step-00000000{best}/model.safetensors")
        assert all(torch.equal(one[name], other[name]) for name in other)
        assert CMELT.from_pretrained(run / "state/step-000000006").tokenizer is not None  # each state is a checkpoint of its own
    answers = iter([{"loss": 2.0}, {"loss": 3.0}])  # what was the best before a cut is still the best after it
    monkeypatch.setattr(verb, "validate", lambda *_: next(answers))
    with monkeypatch.context() as patch:
        at_update(patch, 5, die)
        with pytest.raises(KeyboardInterrupt):
            pretrain([shards], recipe(), tmp_path / "cut", quiet=True)
    pretrain([shards], recipe(), tmp_path / "cut", resume=True, quiet=True)
    assert json.loads((tmp_path / "cut/chosen.json").read_text())["step"] == 3
    monkeypatch.undo()
    pretrain([shards], recipe(*settings), tmp_path / "three", quiet=True)
    assert [state.name[-1] for state in sorted((tmp_path / "three/state").iterdir())] == ["4", "5", "6"]


def test_resuming_with_another_recipe_names_the_difference(shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    constant = ["optim.schedule='constant'", "optim.warmup=0", "train.steps=4"]
    pretrain([shards], recipe(*constant), run, quiet=True)
    with pytest.raises(CheckpointError, match=r"change its numbers: optim\.lr: 0\.001 → 0\.01; use another"):
        pretrain([shards], recipe(*constant, "optim.lr=0.01", "train.keep=1"), run, resume=True, quiet=True)
    other = tmp_path / "other"
    write_raw(other / "raw", 60, seed=1)
    ingest("ptbxl", other / "raw", other / "shards", IngestRecipe.model_validate({"signal": {"fs_hz": 100, "duration_s": 4}}), workers=1)
    with pytest.raises(CheckpointError, match="hold other samples"):
        pretrain([other / "shards"], recipe(*constant), run, resume=True, quiet=True)
    # What changes no number is said: more steps of a constant rate, other intervals, the same shards elsewhere.
    shutil.copytree(shards, tmp_path / "moved")
    changed = ["train.log_every=2", "train.steps=6"]
    pretrain([tmp_path / "moved"], recipe(*constant[:2], *changed), run, resume=True)
    said = capfd.readouterr().err
    assert "resumed with train.log_every: 1 → 2" in said
    assert "train.steps: 4 → 6" in said
    assert "moved" in said
    pretrain([shards], recipe(*constant[:2], "train.steps=6"), tmp_path / "whole", quiet=True)
    one, two = (load_file(folder / "state/step-000000006/model.safetensors") for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    pretrain([shards], recipe("train.steps=6"), tmp_path / "cosine", quiet=True)
    with pytest.raises(CheckpointError, match=r"train\.steps: 6 → 8"):  # a rate that falls with the number of steps
        pretrain([shards], recipe("train.steps=8"), tmp_path / "cosine", resume=True, quiet=True)


def test_bad_folders_are_refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(RecipeError, match="needs a GPU"):
        pretrain([shards], recipe("train.precision='fp16'"), tmp_path / "new", quiet=True)
    monkeypatch.setattr("cmelt.training.distributed.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"cmelt\[wandb\]"):
        pretrain([shards], recipe("train.trackers=['wandb']"), tmp_path / "new", quiet=True)
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_damaged_state_is_named(shards: Path, tmp_path: Path) -> None:
    pretrain([shards], recipe(), tmp_path / "run", quiet=True)
    file = tmp_path / "run/state/step-000000006/training.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="step-000000006: this training state does not load"):
        pretrain([shards], recipe(), tmp_path / "run", resume=True, quiet=True)
    shutil.rmtree(file.parent)
    assert pretrain([shards], recipe(), tmp_path / "run", resume=True, quiet=True)["steps"] == 6


def test_a_loss_that_is_not_finite_is_fatal_or_skipped(shards: Path, tmp_path: Path) -> None:
    wild = ["optim.lr=1e30", "optim.clip=0", "optim.warmup=0"]
    with pytest.raises(CmeltError, match=r"the loss is .*; no sample gives a finite loss: it is the weights"):
        pretrain([shards], recipe(*wild), tmp_path / "fatal", quiet=True)
    summary = pretrain([shards], recipe(*wild, "train.on_nan='skip'", "train.validate_every=100"), tmp_path / "skip", quiet=True)
    assert summary["steps"] == 6


def test_the_sample_that_makes_a_loss_nan_is_named(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus([shards], "train")
    bad = 7
    name = str(corpus.column("key")[bad])
    real = Corpus.ecg_mv

    def ecg_mv(self: Corpus, rows: Any, *more: Any) -> Any:
        signal = real(self, rows, *more)
        signal[(rows == bad) & (len(self) == len(corpus)), 3] = np.nan
        return signal

    monkeypatch.setattr(Corpus, "ecg_mv", ecg_mv)
    with pytest.raises(CmeltError, match=rf"the loss is nan.*; not finite: ptbxl/{name} \(.*ptbxl-000000.tar\); lower optim.lr") as caught:
        pretrain([shards], recipe(), tmp_path / "fatal", quiet=True)
    assert "\n" not in str(caught.value)
    assert pretrain([shards], recipe("train.on_nan='skip'"), tmp_path / "skip", quiet=True)["steps"] == 6


def test_recomputed_layers_train_to_the_same_numbers(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = CMELT.recompute_layers
    monkeypatch.setattr(CMELT, "recompute_layers", lambda self, again: (asked.append(again), real(self, again)))
    for again in ("false", "true"):
        pretrain([shards], recipe(f"train.recompute={again}", "model.fusion_dropout=0.1"), tmp_path / again, quiet=True)
    assert asked == [False, True]
    kept, again_ = (load_file(tmp_path / name / "model.safetensors") for name in ("false", "true"))
    for name in kept:
        torch.testing.assert_close(again_[name], kept[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_gradient_that_is_not_finite_changes_nothing(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verb.backward

    def poisoned(accelerator: Any, trained: torch.nn.Module, *more: Any) -> Any:
        told = real(accelerator, trained, *more)
        next(p for p in trained.parameters() if p.grad is not None).grad.fill_(float("nan"))
        return told

    monkeypatch.setattr(verb, "backward", poisoned)
    with pytest.raises(CmeltError, match="step 1: the gradient's norm is nan"):
        pretrain([shards], recipe(), tmp_path / "fatal", quiet=True)
    pretrain([shards], recipe("train.on_nan='skip'", "train.keep=9"), tmp_path / "skip", quiet=True)
    early, late = (load_file(tmp_path / f"skip/state/step-00000000{step}/model.safetensors") for step in (3, 6))
    assert all(torch.equal(early[name], late[name]) for name in early)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let no file grow above `size` bytes, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_fatal_or_said(
    shards: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain([shards], recipe(), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch, no_file_above(1 << 30):
        at_update(patch, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY)))
        with pytest.raises(OutputError, match=r"cannot write .*cut"):
            pretrain([shards], recipe(), tmp_path / "cut", quiet=True)
    assert [state.name for state in (tmp_path / "cut/state").iterdir()] == ["step-000000003"]  # what was saved before is whole
    assert not list((tmp_path / "cut").rglob("*.part"))
    pretrain([shards], recipe(), tmp_path / "cut", resume=True, quiet=True)
    assert_equal(tmp_path / "whole", tmp_path / "cut")
    with monkeypatch.context() as patch, no_file_above(1 << 30):
        at_update(patch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY)))
        at_update(patch, 4, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY)))
        pretrain([shards], recipe("train.on_save_error='skip'"), tmp_path / "skip")
    assert "going on without, as train.on_save_error says" in capfd.readouterr().err
    assert [state.name for state in (tmp_path / "skip/state").iterdir()] == ["step-000000006"]
    assert json.loads((tmp_path / "skip/chosen.json").read_text())["step"] == 6


def test_checkpoints_are_uploaded(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, url = tmp_path / "run", "memory://bucket/run"
    pretrain([shards], recipe("train.keep=1"), run, quiet=True, upload=url)
    there = fsspec.filesystem("memory")
    found = {path.removeprefix("/bucket/run/") for path in there.find("/bucket/run")}
    wanted = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}
    states = {f"state/step-000000006/{name}" for name in (*wanted, "training.safetensors", "state.json")}
    assert found == wanted | {"chosen.json", "recipe.json", "reports.safetensors"} | states
    assert all(there.cat_file(f"/bucket/run/{name}") == (run / name).read_bytes() for name in found)
    there.get("/bucket/run", str(tmp_path / "back"), recursive=True)  # what was uploaded can be gone on with
    with pytest.raises(CheckpointError, match="change its numbers"):
        pretrain([shards], recipe("train.seed=1"), tmp_path / "back", resume=True, quiet=True)
    assert pretrain([shards], recipe(), tmp_path / "back", resume=True, quiet=True)["steps"] == 6
    with pytest.raises(InputError, match="no place that fsspec knows"):
        pretrain([shards], recipe(), tmp_path / "new", quiet=True, upload="nowhere://x")

    def down(*_: object) -> None:
        raise InputError("memory://bucket cannot be reached")

    monkeypatch.setattr("cmelt.remote.Remote.put", down)
    with pytest.raises(OutputError, match="cannot upload: memory://bucket"):
        pretrain([shards], recipe(), tmp_path / "down", quiet=True, upload=url)
    assert pretrain([shards], recipe("train.on_save_error='skip'"), tmp_path / "skip", quiet=True, upload=url)["steps"] == 6
    assert len(list((tmp_path / "skip/state").iterdir())) == 2
