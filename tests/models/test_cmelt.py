"""The model: padding is invisible, losses ask for no more than they read, embeddings come from any lead order and rate."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cmelt.config import ModelSettings, ObjectiveSettings, SignalSettings, load_recipe
from cmelt.errors import CheckpointError, InputError, RecipeError
from cmelt.models.batch import IGNORE, Batch
from cmelt.models.cmelt import CMELT, LOSSES
from cmelt.objectives import total_loss
from cmelt.record import LEADS
from cmelt.signal.condition import condition
from cmelt.signal.decode import Decoded
from tests.pairs import FINDINGS, SMALL, small_batch, small_model, some_reports

REPORTS = some_reports()
BERT = {
    "model_type": "bert",
    "vocab_size": 120,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def model() -> CMELT:
    return small_model(reports=REPORTS).eval()


def bert_model(**changes: object) -> CMELT:
    """Return a small model whose text encoder is a BERT."""
    made = small_model(reports=REPORTS, **changes)
    text = BERT | {"vocab_size": made.config.text["vocab_size"]}
    return CMELT(made.config.model_copy(update={"text": text}), made.tokenizer).eval()


def padded(batch: Batch, by: int) -> Batch:
    """Return `batch` with every text longer by `by` padding tokens, whose ids are of no account."""
    rows = len(batch)
    ids = torch.cat([batch.text_ids, torch.full((rows, by), 7)], 1)
    padding = torch.cat([batch.text_padding, torch.ones(rows, by, dtype=torch.bool)], 1)
    labels = torch.cat([batch.mlm_labels, torch.full((rows, by), IGNORE)], 1)
    return dataclasses.replace(batch, text_ids=ids, text_padding=padding, mlm_labels=labels)


@pytest.mark.parametrize("make", [small_model, bert_model, lambda: small_model(pool="mean", mem_layer=-1)], ids=["t5", "bert", "mean"])
@torch.no_grad()
def test_padding_a_text_changes_nothing(make: object) -> None:
    model = make().eval()  # type: ignore[operator]
    batch = small_batch(model, REPORTS)
    mine, longer = model(batch), model(padded(batch, 9))
    for name in ("ecg_pooled", "text_pooled", "mlm_logits", "mem_patches", "etm_logits"):
        torch.testing.assert_close(getattr(longer, name), getattr(mine, name), rtol=1e-4, atol=1e-5)
    alone = model.encode_text([REPORTS[0]])
    together = model.encode_text([REPORTS[0], max(REPORTS, key=len)])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mem_layer", [-1, 0, 1])
@torch.no_grad()
def test_each_loss_alone_is_what_it_is_among_all(mem_layer: int) -> None:
    model = small_model(reports=REPORTS, mem_layer=mem_layer, entity_heads=2).eval()
    batch = small_batch(model, REPORTS)
    whole = total_loss(model, model(batch), batch, ObjectiveSettings(entities=1))[1]
    for name in LOSSES:
        settings = ObjectiveSettings(**{other: float(other == name) for other in LOSSES})
        alone = total_loss(model, model(batch, {name}), batch, settings)[1]
        assert alone.keys() == {name}
        assert float(alone[name]) == pytest.approx(float(whole[name]), rel=1e-5), name


def test_weights_are_drawn_by_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = small_model(seed=1), small_model(seed=1), small_model(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert len(a.unique()) == 1 or not torch.equal(a, c), name


def test_presets_have_their_sizes() -> None:
    for name, least, most in (("tiny", 2e6, 4e6), ("small", 2e7, 5e7)):
        made = CMELT.create(load_recipe("pretrain", name).model, 500.0, 5000, REPORTS)
        assert least <= sum(p.numel() for p in made.parameters()) <= most, name
    base = load_recipe("pretrain", "base").model
    assert (base.ecg_layers, base.ecg_width, base.fusion_pairs, base.text_encoder) == (8, 768, 6, "google/flan-t5-base")


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_save_and_load_round_trip(tmp_path: Path, pool: str) -> None:
    model = small_model(reports=REPORTS, pool=pool).eval()
    model.save_pretrained(tmp_path / "run")
    loaded = CMELT.from_pretrained(tmp_path / "run")
    assert loaded.config == model.config
    assert not loaded.training
    ecg = np.random.default_rng(0).normal(size=(3, 12, 160)).astype(np.float32)
    assert torch.equal(loaded.encode_ecg(ecg), model.encode_ecg(ecg))
    assert torch.equal(loaded.encode_text(REPORTS[:5]), model.encode_text(REPORTS[:5]))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "from_pretrained" in card
    assert "random weights" in card


def test_damaged_checkpoints_are_named(tmp_path: Path, model: CMELT) -> None:
    run = tmp_path / "run"
    model.save_pretrained(run)
    weights, config = (run / "model.safetensors").read_bytes(), (run / "config.json").read_text()
    fewer = load_file(run / "model.safetensors")
    fewer.pop("ecg_encoder.cls")

    def broken(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            CMELT.from_pretrained(run)
        (run / "model.safetensors").write_bytes(weights)
        (run / "config.json").write_text(config)

    (run / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    broken("damaged")
    save_file(fewer, run / "model.safetensors")
    broken("ecg_encoder.cls")
    (run / "model.safetensors").unlink()
    broken("not whole")
    (run / "config.json").write_text(config[:100])
    broken("damaged")
    (run / "config.json").write_text(json.dumps(json.loads(config) | {"ecg_width": 32}))
    broken("does not fit")
    (run / "config.json").write_text(json.dumps(json.loads(config) | {"ecg_widht": 32}))
    broken("ecg_widht")
    (run / "tokenizer.json").write_text("{}")
    broken("not a tokenizer")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        CMELT.from_pretrained(tmp_path / "nowhere")


def test_ecgs_come_in_any_lead_order_and_rate(model: CMELT) -> None:
    rng = np.random.default_rng(1)
    time = np.arange(160) / 100
    ecg = (np.sin(2 * np.pi * rng.uniform(1, 4, (2, 12, 1)) * time) * rng.normal(size=(2, 12, 1))).astype(np.float32)
    mine = model.encode_ecg(ecg)
    assert mine.shape == (2, 16)
    torch.testing.assert_close(model.encode_ecg(torch.from_numpy(ecg[0])), mine[:1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.encode_ecg(ecg, batch=1), mine, rtol=1e-5, atol=1e-6)
    shuffled = list(rng.permutation(12))
    torch.testing.assert_close(model.encode_ecg(ecg[:, shuffled], leads=[LEADS[i].upper() for i in shuffled]), mine)
    twice = np.sin(2 * np.pi * 2.0 * np.arange(320) / 200)[None].repeat(12, 0).astype(np.float32)
    once = np.sin(2 * np.pi * 2.0 * time)[None].repeat(12, 0).astype(np.float32)
    assert float((model.encode_ecg(twice, fs_hz=200) - model.encode_ecg(once)).abs().max()) < 0.02
    model.train()
    assert torch.equal(model.encode_ecg(ecg), mine)  # evaluation mode, whatever the model is in
    assert model.training
    model.eval()


def test_raw_ecgs_are_conditioned_as_the_shards_were() -> None:
    signal = SignalSettings(fs_hz=100, duration_s=1.6, highpass_hz=0.5, lowpass_hz=40, notch_hz="mains")
    model = CMELT.create(ModelSettings.model_validate(SMALL), 100.0, 160, REPORTS, signal=signal).eval()
    raw = np.random.default_rng(2).normal(0, 0.1, (12, 1250)).cumsum(1).astype(np.float32)  # 5 s at 250 Hz
    raw[2] = raw[1] - raw[0]
    window = condition(Decoded(raw.copy(), set(range(12)), 250.0, ""), signal, 60.0)[0]
    mine = model.encode_ecg(raw, fs_hz=250, mains_hz=60)
    torch.testing.assert_close(mine, model.encode_ecg(window))
    assert not torch.allclose(mine, model.encode_ecg(raw, fs_hz=250, mains_hz=50), atol=1e-6)
    without = [row for row in range(12) if row != 2]  # III follows from I and II
    torch.testing.assert_close(model.encode_ecg(raw[without], 250, [LEADS[row] for row in without], 60), mine, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_arrays_come_as_users_have_them(model: CMELT) -> None:
    ecg = np.random.default_rng(3).normal(size=(12, 500)).astype(np.float32)  # 5 s at 100 Hz, or 2 s at 250 Hz
    mine = model.encode_ecg(ecg, fs_hz=250)
    locked = ecg.copy()
    locked.setflags(write=False)
    for same in (ecg.astype(">f4"), locked, ecg.astype(np.float64), np.repeat(ecg, 2, axis=1)[:, ::2], ecg.tolist(), torch.from_numpy(ecg)):
        torch.testing.assert_close(model.encode_ecg(same, fs_hz=250), mine)
    assert torch.equal(model.encode_ecg(ecg, 250, ", ".join(LEADS)), mine), "names may be one string"
    assert model.encode_ecg(np.zeros((0, 12, 500), np.float32), fs_hz=250).shape == (0, 16)
    assert model.encode_text([]).shape == (0, 16)
    with pytest.warns(UserWarning, match="is this ECG in µV"):
        model.encode_ecg(1000 * ecg, fs_hz=250)


@torch.no_grad()
def test_bad_ecgs_are_refused_by_name(model: CMELT) -> None:
    ecg = np.zeros((3, 12, 160), np.float32)
    ecg[1, 4, 7] = np.nan
    for fs_hz in (0, -500, float("nan"), float("inf"), 1e9):
        with pytest.raises(InputError, match="samples a second"):
            model.encode_ecg(np.zeros((12, 500), np.float32), fs_hz=fs_hz)
    with pytest.raises(InputError, match="not one whole beat"):
        model.encode_ecg(np.zeros((12, 100), np.float32), fs_hz=500)
    with pytest.raises(InputError, match="leads come first"):
        model.encode_ecg(np.zeros((500, 12), np.float32), fs_hz=100)
    with pytest.raises(InputError, match="ECG 1 holds NaN"):
        model.encode_ecg(ecg)
    with pytest.raises(InputError, match="12 leads"):
        model.encode_ecg(ecg[:1, :8])
    with pytest.raises(InputError, match="missing V6"):
        model.encode_ecg(ecg[:1], leads=[*LEADS[:11], "X"])
    with pytest.raises(InputError, match="floating-point mV"):
        model.encode_ecg(np.zeros((12, 160), np.int16))
    with pytest.raises(InputError, match="too short"):
        model.encode_ecg(ecg[:1, :, :10])


def test_a_checkpoint_with_another_lead_order_gets_its_leads_by_name(model: CMELT) -> None:
    order = tuple(reversed(LEADS))
    other = CMELT(model.config.model_copy(update={"leads": order}), model.tokenizer).eval()
    state = model.state_dict()
    state["ecg_encoder.convs.0.weight"] = state["ecg_encoder.convs.0.weight"].flip(1)
    for name in ("mem_decoder.predict.weight", "mem_decoder.predict.bias"):
        state[name] = state[name].unflatten(0, (12, -1)).flip(0).flatten(0, 1)
    other.load_state_dict(state)
    batch = small_batch(model, REPORTS)
    with torch.no_grad():
        mine, theirs = (total_loss(m, m(batch), batch, ObjectiveSettings())[1] for m in (model, other))
    for name in mine:
        assert float(theirs[name]) == pytest.approx(float(mine[name]), rel=1e-5), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ecg_heads": 3}, "ecg_heads"),
        ({"mem_layer": 2}, "mem_layer"),
        ({"mem_prob": 0.95}, "keeps none"),
        ({"text_config": {"d_modle": 3}}, "d_model"),
        ({"tokenizer": "reports", "text_encoder": "google/flan-t5-base"}, "does not fit a pre-trained"),
        ({"ecg_encoder": "vit"}, "unknown"),
    ],
)
def test_sizes_that_do_not_fit_are_recipe_errors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small_model(**changes)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cmelt.text.tokenizer", "cmelt.models.text_encoder", "cmelt.models.store"):
        monkeypatch.setattr(f"{module}.hub_is_away", lambda: True)


@pytest.mark.usefixtures("no_hub")
def test_a_text_encoder_that_is_not_here_is_one_clear_line() -> None:
    settings = ModelSettings.model_validate(SMALL | {"text_encoder": "nobody/no-such-encoder", "text_config": {}})
    with pytest.raises(CheckpointError, match=r"nobody/no-such-encoder.*local path.*text_init=random.*cache") as caught:
        CMELT.create(settings, 100.0, 160, REPORTS)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_hub")
def test_flan_t5_starts_at_random_without_a_file() -> None:
    small = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    changes = {"text_encoder": "google/flan-t5-base", "text_init": "random", "tokenizer": "reports", "text_config": small}
    model = small_model(reports=REPORTS, **changes)
    assert model.config.text["feed_forward_proj"] == "gated-gelu"
    assert model.config.text["vocab_size"] == 32128
    assert model.config.text_init == "random"


def test_a_local_hugging_face_encoder_serves(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", *sorted({w for f in FINDINGS for w in f.replace(",", "").split()})]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    bert = BertModel(BertConfig(**{**BERT, "vocab_size": len(words)})).eval()  # type: ignore[arg-type]
    bert.save_pretrained(tmp_path)
    model = small_model(text_encoder=str(tmp_path), text_config={}, tokenizer="").eval()
    assert model.require_tokenizer().mask == "[MASK]"
    ids = torch.tensor(model.require_tokenizer().encode(["Sinus  rhythm."]))
    assert ids[0, 0] == 2
    assert 1 not in ids
    with torch.no_grad():
        mine = model.text_encoder(ids, torch.zeros_like(ids, dtype=torch.bool))
        torch.testing.assert_close(mine, bert(ids).last_hidden_state)
    batch = small_batch(model, REPORTS)
    assert torch.isfinite(total_loss(model, model(batch), batch, ObjectiveSettings())[0])


@pytest.mark.parametrize("make", [small_model, bert_model], ids=["t5", "bert"])
def test_recomputed_layers_give_the_same_gradients(make: object) -> None:
    def gradients(again: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = make().train()  # type: ignore[operator]
        model.recompute_layers(again)
        batch = small_batch(model, REPORTS)
        torch.manual_seed(0)  # the same dropout
        total_loss(model, model(batch), batch, ObjectiveSettings())[0].backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    kept, again = gradients(False), gradients(True)
    assert kept.keys() == again.keys()
    for name in kept:
        torch.testing.assert_close(again[name], kept[name], msg=name)


@pytest.mark.parametrize(("frozen", "trained"), [(0, 3), (1, 1), (-1, 0)])
def test_a_text_encoder_can_be_frozen_in_part(frozen: int, trained: int) -> None:
    two_blocks = SMALL["text_config"] | {"num_layers": 2}  # type: ignore[operator]
    model = small_model(reports=REPORTS, text_frozen=frozen, text_config=two_blocks)
    batch = small_batch(model, REPORTS)
    total_loss(model, model(batch), batch, ObjectiveSettings())[0].backward()
    stack = model.text_encoder.model
    parts = [stack.embed_tokens, *stack.block]  # type: ignore[misc, list-item]
    assert sum(any(p.grad is not None for p in part.parameters()) for part in parts) == trained
    assert model.text_project.weight.grad is not None
    with pytest.raises(RecipeError, match="has 2 blocks"):
        small_model(text_frozen=3, text_config=two_blocks)


def test_autocast_keeps_losses_in_float32_and_close() -> None:
    model = small_model(reports=REPORTS).eval()
    batch = small_batch(model, REPORTS)
    with torch.autocast("cpu", torch.bfloat16):
        total, coarse = total_loss(model, model(batch), batch, ObjectiveSettings())
    total.backward()
    assert total.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    fine = total_loss(model, model(batch), batch, ObjectiveSettings())[1]
    for name, value in fine.items():
        assert float(coarse[name]) == pytest.approx(float(value), rel=0.03), name


@pytest.mark.parametrize(("norms", "seen"), [({}, 0), ({"conv_norm": "none"}, 0.01), ({"conv_norm": "none", "input_norm": "none"}, 1)])
@torch.no_grad()
def test_how_large_a_lead_is_is_seen_without_the_norms_alone(norms: dict[str, str], seen: float) -> None:
    encoder = small_model(**norms).eval().ecg_encoder
    ecg = torch.randn(3, 12, 160, generator=torch.Generator().manual_seed(0))
    before, after = encoder.tokens(ecg), encoder.tokens(ecg * 3)
    difference = (after - before).norm() / before.norm()
    assert difference > seen if seen else difference < 1e-3
