"""The text encoder: any T5- or BERT-style Hugging Face encoder, by name, by path, or made here from sizes.

B batch, L tokens. Padding: True = hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cmelt.config import ModelSettings, did_you_mean
from cmelt.errors import CheckpointError, RecipeError
from cmelt.models.t5 import ACTIVATIONS, DEFAULTS, T5Encoder, activation_name
from cmelt.text.tokenizer import ReportTokenizer, hub_is_away, tokenizer_files
from cmelt.text.tokenizer import not_found as tokenizer_not_found

FLAN_T5 = {"feed_forward_proj": "gated-gelu", "vocab_size": 32128, "d_kv": 64}
KNOWN: dict[str, dict[str, Any]] = {
    "google/flan-t5-small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, **FLAN_T5},
    "google/flan-t5-base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12, **FLAN_T5},
    "google/flan-t5-large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16, **FLAN_T5},
}
"""Sizes of encoders that a random start needs no file for."""

T5_KINDS = ("t5", "mt5")
"""Model types that our own T5 encoder serves; it needs no transformers, and keeps less in training."""
NOT_SIZES = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "_attn_implementation")


class TextEncoder(nn.Module):
    """Token ids in, hidden states out: our T5 encoder, or a Hugging Face model of another kind."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Make a randomly initialised encoder of `config`: a Hugging Face config as a table, with its ``model_type``."""
        super().__init__()
        self.model: nn.Module
        if config["model_type"] in T5_KINDS:
            self.model = T5Encoder(config)
            self.width: int = config["d_model"]
            return
        from transformers import AutoConfig, AutoModelForTextEncoding

        sizes = AutoConfig.for_model(**config)
        self.model = _encoder(AutoModelForTextEncoding.from_config(sizes, attn_implementation="sdpa"))
        self.width = sizes.hidden_size

    def freeze(self, blocks: int) -> None:
        """Take the embedding and the first `blocks` blocks out of training; 0 = nothing, -1 = everything."""
        if blocks == -1:
            self.requires_grad_(False)
        elif blocks:
            lists = [part for part in self.modules() if isinstance(part, nn.ModuleList)]
            layers = max(lists, key=len) if lists else nn.ModuleList()
            if blocks > len(layers):
                raise RecipeError(f"model.text_frozen = {blocks}, but the text encoder has {len(layers)} blocks; -1 = all of it")
            trained = {id(parameter) for layer in layers[blocks:] for parameter in layer.parameters()}
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(id(parameter) in trained or "final_layer_norm" in name)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Return hidden states (B, L, width) of `ids` (B, L) with `padding` (B, L)."""
        if isinstance(self.model, T5Encoder):
            hidden: Tensor = self.model(ids, padding)
        else:
            hidden = self.model(input_ids=ids, attention_mask=(~padding).long(), return_dict=True).last_hidden_state
        return hidden


def _encoder(model: Any) -> nn.Module:
    """Return the bare encoder of a Hugging Face model: T5's stack (its embedding then has one name), BERT without its pooler."""
    stack: Any = model.encoder if hasattr(model, "shared") else model
    if getattr(stack, "pooler", None) is not None:
        stack.pooler = None
    encoder: nn.Module = stack
    return encoder


def resolve_sizes(settings: ModelSettings, vocab_size: int = 0) -> dict[str, Any]:
    """Return the Hugging Face config, as a table, of the text encoder that `settings` name.

    A randomly started encoder embeds at least `vocab_size` tokens; ``t5`` just that many.
    Raises CheckpointError where the encoder is not to be had, RecipeError for an unknown size.
    """
    name, changes = settings.text_encoder, settings.text_config
    if name == "t5" or (name in KNOWN and settings.text_init == "random"):
        sizes = t5_sizes(KNOWN.get(name, {"vocab_size": vocab_size}) | changes)
    else:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(name, local_files_only=hub_is_away(), **changes)
        except (OSError, ValueError):
            raise CheckpointError(not_found(name)) from None
        if config.model_type in T5_KINDS:
            sizes = t5_sizes({key: getattr(config, key) for key in DEFAULTS})
        else:
            sizes = {"model_type": config.model_type}
            sizes |= {key: value for key, value in config.to_diff_dict().items() if key not in NOT_SIZES}
            sizes["vocab_size"] = config.vocab_size
    if settings.text_init == "random":
        sizes["vocab_size"] = max(vocab_size, sizes["vocab_size"])
    return sizes


def t5_sizes(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole T5 config from one that leaves keys unsaid; raises RecipeError for keys and activations that T5 has not."""
    for key in table:
        if key not in DEFAULTS:
            raise RecipeError(f"model.text_config: T5 has no {key!r}{did_you_mean(key, DEFAULTS)}")
    sizes = {"model_type": "t5"} | DEFAULTS | dict(table)
    if activation_name(sizes) not in ACTIVATIONS:
        raise RecipeError(f"model.text_config: feed_forward_proj = {sizes['feed_forward_proj']!r} is unknown; try 'gated-gelu' or 'relu'")
    return sizes


def load_pretrained(encoder: TextEncoder, name: str) -> None:
    """Fill `encoder` with the pre-trained weights of a hub name or local path; raises CheckpointError where that fails."""
    from transformers import AutoModelForTextEncoding

    try:
        model = _encoder(AutoModelForTextEncoding.from_pretrained(name, attn_implementation="sdpa", local_files_only=hub_is_away()))
    except (OSError, ValueError):
        raise CheckpointError(not_found(name)) from None
    if isinstance(encoder.model, T5Encoder):
        encoder.model.load_state_dict(model.state_dict())
    else:
        encoder.model = model


def load_tokenizer(name: str, max_tokens: int) -> ReportTokenizer:
    """Return the tokenizer of a hub name or local path; one without a tokenizer.json (an older BERT's) is converted by transformers."""
    if tokenizer_files(name)[0] is not None:
        return ReportTokenizer.load(name, max_tokens)
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, local_files_only=hub_is_away())
    except (OSError, ValueError, KeyError):
        raise CheckpointError(tokenizer_not_found(name)) from None
    return ReportTokenizer.wrap(
        name, loaded.backend_tokenizer, {key: getattr(loaded, f"{key}_token") for key in ("pad", "mask", "eos")}, max_tokens
    )


def not_found(name: str) -> str:
    """Return the error text for a text encoder that is neither here nor on the hub, with the ways out."""
    what = (
        "is not a text encoder's folder"
        if Path(name).is_dir()
        else "is neither a local folder nor in the Hugging Face cache, and the hub cannot be reached"
    )
    return (
        f"text encoder {name!r} {what}; give model.text_encoder a local path, or set model.text_init=random, or model.text_encoder=t5, "
        "or fill the Hugging Face cache (hf download)"
    )
