"""A published checkpoint comes in, by name, and goes out again bit for bit; what does not fit is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cmelt.errors import CheckpointError, OutputError
from cmelt.models.cmelt import CMELT
from cmelt.models.published import PUBLISHED_LEADS, export_published, import_published, parse_layers, published_tensors, t5_sizes
from cmelt.record import LEADS
from tests.pairs import small_model

CONFIG = {
    "encoder_layers": 1,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_feature_layers": "[(8, 4, 4)] + [(8, 4, 4)]",
    "conv_pos": 4,
    "conv_pos_groups": 2,
    "hidden_dim": 16,
    "num_heads": 2,
    "num_top_layer": 2,
    "mem_layer": 1,
    "mem_prob": 0.75,
    "mem_decoder_hidden_dim": 12,
    "mem_decoder_num_layers": 1,
    "mem_decoder_num_heads": 2,
}

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmelt.text.tokenizer.hub_is_away", lambda: True)
    monkeypatch.setattr("cmelt.models.text_encoder.hub_is_away", lambda: True)


@pytest.fixture(scope="module")
def model() -> CMELT:
    return small_model(seed=3)


@pytest.fixture
def write(tmp_path: Path, model: CMELT) -> Write:
    """Return a function that writes the model as a published file, with tensors changed, and CONFIG beside it."""

    def write(name: str = "published.pt", nested: bool = True, **changes: torch.Tensor | None) -> Path:
        tensors = published_tensors(model) | {
            "ecg_encoder.mask_emb": torch.zeros(16),
            "mim_head.decoder_pos_embed.pe": torch.zeros(1, 512, 12),
        }
        tensors |= {key.replace("__", "."): value for key, value in changes.items() if value is not None}
        for key, value in changes.items():
            if value is None:
                del tensors[key.replace("__", ".")]
        file = tmp_path / name
        if file.suffix == ".pt":
            torch.save({"model": tensors}, file)
        else:
            save_file(tensors, file)
        (tmp_path / "config.json").write_text(json.dumps({"model": CONFIG} if nested else CONFIG))
        return file

    return write


@pytest.mark.parametrize(("name", "nested"), [("published.pt", True), ("published.safetensors", False)])
def test_there_and_back(write: Write, tmp_path: Path, model: CMELT, name: str, nested: bool) -> None:
    summary = import_published(write(name, nested), tmp_path / "config.json", tmp_path / "run")
    assert summary["ignored"] == ["ecg_encoder.mask_emb", "mim_head.decoder_pos_embed.pe"]
    run = CMELT.from_pretrained(tmp_path / "run")
    assert run.config.leads == PUBLISHED_LEADS
    ecg = torch.randn(2, 12, 160, generator=torch.Generator().manual_seed(0))
    order = [LEADS.index(lead) for lead in PUBLISHED_LEADS]
    torch.testing.assert_close(run.encode_ecg(ecg), model.encode_ecg(ecg[:, order]))  # the small model knows no lead names
    for out in (tmp_path / "back.safetensors", tmp_path / "back.pt"):
        export_published(tmp_path / "run", out)
        back = load_file(out) if out.suffix == ".safetensors" else torch.load(out, weights_only=True)["model"]
        want = published_tensors(model)
        assert back.keys() == want.keys()
        assert all(torch.equal(back[key], want[key]) for key in want)


def test_what_does_not_fit_is_named(write: Write, tmp_path: Path) -> None:
    config = tmp_path / "config.json"

    def refused(message: str, file: Path) -> None:
        with pytest.raises(CheckpointError, match=message):
            import_published(file, config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused(r"missing: class_embedding, itm_head\.fc\.bias", write(class_embedding=None, itm_head__fc__bias=None))
    refused(r"unknown: extra\.weight", write(extra__weight=torch.zeros(2)))
    refused(r"class_embedding is \(17,\), but its config says \(16,\)", write(class_embedding=torch.zeros(17)))
    refused("one matrix", write(language_encoder__shared__weight=torch.zeros(120, 24)[: small_vocabulary(write())]))
    file = write()
    config.write_text(json.dumps({**CONFIG, "encoder_layers": 2}))
    refused("missing: ecg_encoder.encoder.layers.1", file)
    config.write_text(json.dumps({**CONFIG, "layer_norm_first": True}))
    refused("layer_norm_first", file)
    config.write_text(json.dumps({key: value for key, value in CONFIG.items() if key != "mem_layer"}))
    refused("no 'mem_layer'", file)
    config.write_text(json.dumps({**CONFIG, "conv_feature_layers": "__import__('os').getcwd()"}))
    refused("conv_feature_layers", file)
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    refused("does not load", tmp_path / "bad.pt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="already there"):
        import_published(write(), config, tmp_path / "run")


def small_vocabulary(file: Path) -> int:
    return len(torch.load(file, weights_only=True)["model"]["language_encoder.shared.weight"])


def test_layers_are_parsed_not_evaluated() -> None:
    assert parse_layers("[(256, 2, 2)] * 4") == [(256, 2, 2)] * 4
    assert parse_layers("[(8, 3, 2)] + 2 * [(16, 2, 2)]") == [(8, 3, 2), (16, 2, 2), (16, 2, 2)]
    with pytest.raises(CheckpointError):
        parse_layers("[(8, 3)]")


def test_t5_sizes_come_from_the_tensors(model: CMELT) -> None:
    told = t5_sizes(published_tensors(model))
    assert told == {key: model.config.text[key] for key in told}
