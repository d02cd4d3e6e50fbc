"""Our T5 encoder is transformers' T5 encoder, weights and outputs; unknown sizes and activations are refused."""

from pathlib import Path

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from cmelt.errors import RecipeError
from cmelt.models.t5 import T5Encoder
from cmelt.models.text_encoder import t5_sizes
from tests.pairs import small_model, some_reports

SIZES = {"vocab_size": 60, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 3, "num_heads": 2}


@pytest.mark.parametrize("kind", ["gated-gelu", "relu", "gated-silu"])
@torch.no_grad()
def test_outputs_equal_the_library(kind: str) -> None:
    torch.manual_seed(0)
    theirs = T5EncoderModel(T5Config(**SIZES, feed_forward_proj=kind)).eval()  # type: ignore[arg-type]
    mine = T5Encoder(SIZES | {"feed_forward_proj": kind}).eval()
    mine.load_state_dict(theirs.encoder.state_dict())
    ids = torch.randint(0, 60, (3, 150))  # farther apart than the buckets tell
    padding = torch.zeros(3, 150, dtype=torch.bool)
    padding[1, 40:] = padding[2, 3:] = True
    want = theirs(input_ids=ids, attention_mask=(~padding).long()).last_hidden_state
    torch.testing.assert_close(mine(ids, padding)[~padding], want[~padding], rtol=1e-4, atol=1e-5)


def test_random_weights_have_the_librarys_spread() -> None:
    sizes = SIZES | {"vocab_size": 400, "d_model": 64, "d_ff": 128}
    torch.manual_seed(0)
    mine = dict(T5Encoder(sizes).named_parameters())
    for name, parameter in T5EncoderModel(T5Config(**sizes)).encoder.named_parameters():  # type: ignore[arg-type]
        if parameter.numel() > 500:
            assert float(mine[name].detach().std()) == pytest.approx(float(parameter.detach().std()), rel=0.15), name


def test_a_local_t5_is_loaded_with_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizer = small_model().require_tokenizer()
    theirs = T5EncoderModel(T5Config(**SIZES | {"vocab_size": tokenizer.vocab_size}, feed_forward_proj="gated-gelu")).eval()  # type: ignore[arg-type]
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    model = small_model(reports=some_reports(), text_encoder=str(tmp_path), text_config={}, tokenizer="").eval()
    assert model.config.text["feed_forward_proj"] == "gated-gelu"
    assert model.config.text_init == "pretrained"
    ids = torch.tensor(model.require_tokenizer().encode(["sinus rhythm."]))
    with torch.no_grad():
        mine = model.text_encoder(ids, torch.zeros_like(ids, dtype=torch.bool))
        torch.testing.assert_close(mine, theirs(ids).last_hidden_state, rtol=1e-4, atol=1e-5)


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(RecipeError, match="num_layers"):
        t5_sizes({"num_layer": 3})
    with pytest.raises(RecipeError, match="gated-gelu"):
        t5_sizes({"feed_forward_proj": "gated-maxout"})
