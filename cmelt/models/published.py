"""The published checkpoint, both ways: a two-column table of names, sizes from its config and tensors.

Published weights come with their own licence (see their source); importing does not change it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cmelt.errors import CheckpointError, OutputError, RecipeError
from cmelt.files import whole
from cmelt.models.cmelt import CMELT, ModelConfig
from cmelt.models.store import save_tensors
from cmelt.models.t5 import DEFAULTS
from cmelt.models.text_encoder import load_tokenizer
from cmelt.models.text_encoder import t5_sizes as whole_t5
from cmelt.record import LEADS

PUBLISHED_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
"""The lead order of the published weights: MIMIC-IV-ECG's."""

TABLE: tuple[tuple[str, str], ...] = (
    # published name, our name. {i} a number, {w} weight or bias, * anything, [n] the n-th third of the rows
    ("ecg_encoder.feature_extractor.conv_layers.{i}.0.weight", "ecg_encoder.convs.{i}.weight"),
    ("ecg_encoder.feature_extractor.conv_layers.0.2.{w}", "ecg_encoder.conv_norm.{w}"),
    ("ecg_encoder.layer_norm.{w}", "ecg_encoder.input_norm.{w}"),
    ("ecg_encoder.post_extract_proj.{w}", "ecg_encoder.project.{w}"),
    ("ecg_encoder.conv_pos.pos_conv.0.weight_g", "ecg_encoder.position.g"),
    ("ecg_encoder.conv_pos.pos_conv.0.weight_v", "ecg_encoder.position.v"),
    ("ecg_encoder.conv_pos.pos_conv.0.bias", "ecg_encoder.position.bias"),
    ("class_embedding", "ecg_encoder.cls"),
    ("ecg_encoder.encoder.layer_norm.{w}", "ecg_encoder.norm.{w}"),
    ("ecg_encoder.encoder.layers.{i}.self_attn.q_proj.{w}", "ecg_encoder.layers.{i}.attention.in_proj.{w}[0]"),
    ("ecg_encoder.encoder.layers.{i}.self_attn.k_proj.{w}", "ecg_encoder.layers.{i}.attention.in_proj.{w}[1]"),
    ("ecg_encoder.encoder.layers.{i}.self_attn.v_proj.{w}", "ecg_encoder.layers.{i}.attention.in_proj.{w}[2]"),
    ("ecg_encoder.encoder.layers.{i}.self_attn.out_proj.{w}", "ecg_encoder.layers.{i}.attention.out_proj.{w}"),
    ("ecg_encoder.encoder.layers.{i}.self_attn_layer_norm.{w}", "ecg_encoder.layers.{i}.attention_norm.{w}"),
    ("ecg_encoder.encoder.layers.{i}.fc1.{w}", "ecg_encoder.layers.{i}.ffn_in.{w}"),
    ("ecg_encoder.encoder.layers.{i}.fc2.{w}", "ecg_encoder.layers.{i}.ffn_out.{w}"),
    ("ecg_encoder.encoder.layers.{i}.final_layer_norm.{w}", "ecg_encoder.layers.{i}.ffn_norm.{w}"),
    ("language_encoder.shared.weight", "text_encoder.model.embed_tokens.weight"),
    ("language_encoder.encoder.*", "text_encoder.model.*"),
    ("multi_modal_ecg_proj.{w}", "ecg_project.{w}"),
    ("multi_modal_language_proj.{w}", "text_project.{w}"),
    ("unimodal_ecg_pooler.dense.{w}", "ecg_pooler.dense.{w}"),
    ("unimodal_language_pooler.dense.{w}", "text_pooler.dense.{w}"),
    ("modality_type_embeddings.weight", "fusion.modality.weight"),
    *(
        (f"multi_modal_{theirs}_layers.{{i}}.{there}", f"fusion.{ours}.{{i}}.{here}")
        for theirs, ours in (("language", "text"), ("ecg", "ecg"))
        for there, here in (
            ("attention.self.query.{w}", "attention.in_proj.{w}[0]"),
            ("attention.self.key.{w}", "attention.in_proj.{w}[1]"),
            ("attention.self.value.{w}", "attention.in_proj.{w}[2]"),
            ("attention.output.dense.{w}", "attention.out_proj.{w}"),
            ("attention.output.LayerNorm.{w}", "attention_norm.{w}"),
            ("crossattention.self.query.{w}", "cross.in_proj.{w}[0]"),
            ("crossattention.self.key.{w}", "cross.in_proj.{w}[1]"),
            ("crossattention.self.value.{w}", "cross.in_proj.{w}[2]"),
            ("crossattention.output.dense.{w}", "cross.out_proj.{w}"),
            ("crossattention.output.LayerNorm.{w}", "cross_norm.{w}"),
            ("intermediate.dense.{w}", "ffn_in.{w}"),
            ("output.dense.{w}", "ffn_out.{w}"),
            ("output.LayerNorm.{w}", "ffn_norm.{w}"),
        )
    ),
    ("multi_modal_language_pooler.dense.{w}", "fused_text_pooler.dense.{w}"),
    ("multi_modal_ecg_pooler.dense.{w}", "fused_ecg_pooler.dense.{w}"),
    ("mlm_head.transform.dense.{w}", "mlm_head.dense.{w}"),
    ("mlm_head.transform.LayerNorm.{w}", "mlm_head.norm.{w}"),
    ("mlm_head.decoder.weight", "mlm_head.decoder.weight"),
    ("mlm_head.bias", "mlm_head.decoder.bias"),
    ("mim_head.mask_token", "mem_decoder.mask_token"),
    ("mim_head.decoder_embed.{w}", "mem_decoder.embed.{w}"),
    ("mim_head.decoder.resblocks.{i}.ln_1.{w}", "mem_decoder.blocks.{i}.attention_norm.{w}"),
    ("mim_head.decoder.resblocks.{i}.attn.in_proj_{w}", "mem_decoder.blocks.{i}.attention.in_proj.{w}"),
    ("mim_head.decoder.resblocks.{i}.attn.out_proj.{w}", "mem_decoder.blocks.{i}.attention.out_proj.{w}"),
    ("mim_head.decoder.resblocks.{i}.ln_2.{w}", "mem_decoder.blocks.{i}.ffn_norm.{w}"),
    ("mim_head.decoder.resblocks.{i}.mlp.c_fc.{w}", "mem_decoder.blocks.{i}.ffn_in.{w}"),
    ("mim_head.decoder.resblocks.{i}.mlp.c_proj.{w}", "mem_decoder.blocks.{i}.ffn_out.{w}"),
    ("mim_head.decoder_norm.{w}", "mem_decoder.norm.{w}"),
    ("mim_head.decoder_pred.{w}", "mem_decoder.predict.{w}"),
    ("itm_head.fc.{w}", "etm_head.{w}"),
)

TOLERATED = ("ecg_encoder.mask_emb", "mim_head.decoder_pos_embed.pe")
"""Tensors of a published file that the model has no use for: the first is never read, the second is computed."""
OURS_ONLY = ("contrast.",)
"""Parts of ours that the published model has not; they keep their initial values."""

FIXED = {
    "layer_norm_first": False,
    "extractor_mode": "default",
    "conv_bias": False,
    "encoder_layerdrop": 0.0,
    "in_d": 12,
}
"""Published keys of which one value alone is this model."""


def _pattern(name: str) -> re.Pattern[str]:
    """Return the regular expression of one side of a table row; a third's [n] is matched literally."""
    text = re.escape(name).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{w\}", "(?P<w>weight|bias)").replace(r"\*", "(?P<rest>.+)")
    return re.compile(text)


BACKWARD = [(_pattern(ours), theirs) for theirs, ours in TABLE]


def _translate(name: str, rows: Iterable[tuple[re.Pattern[str], str]]) -> list[str]:
    """Return every name on the other side of the table for `name`."""
    found = []
    for pattern, other in rows:
        match = pattern.fullmatch(name)
        if match:
            groups = match.groupdict()
            found.append(other.replace("{i}", groups.get("i", "")).replace("{w}", groups.get("w", "")).replace("*", groups.get("rest", "")))
    return found


def slots(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's `state`, as views, under the published names: writing into them is importing, reading exporting."""
    views: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(OURS_ONLY):
            continue
        whole = _translate(name, BACKWARD)
        views |= dict.fromkeys(whole, value)
        for number, third in enumerate(value.chunk(3) if not whole else ()):
            (theirs,) = _translate(f"{name}[{number}]", BACKWARD)
            views[theirs] = third
    return views


@torch.no_grad()
def load_published(model: CMELT, tensors: Mapping[str, Tensor], where: str = "the published weights") -> None:
    """Copy published `tensors` into `model` by name; raises CheckpointError naming unknown, missing and ill-sized ones."""
    views = slots(model.state_dict())
    unknown = sorted(set(tensors) - set(views) - set(TOLERATED))
    missing = sorted(set(views) - set(tensors))
    if unknown or missing:
        told = [f"{what}: {', '.join(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
        raise CheckpointError(f"{where}: {'; '.join(told)}; take the config that belongs to these weights")
    for name, view in views.items():
        if tensors[name].shape != view.shape:
            raise CheckpointError(f"{where}: {name} is {tuple(tensors[name].shape)}, but its config says {tuple(view.shape)}")
    shared, embedded = "language_encoder.shared.weight", "language_encoder.encoder.embed_tokens.weight"
    if not torch.equal(tensors[shared], tensors[embedded]):
        raise CheckpointError(f"{where}: {shared} and {embedded} differ; they are one matrix in this model")
    for name, view in views.items():
        view.copy_(tensors[name])


def published_tensors(model: CMELT) -> dict[str, Tensor]:
    """Return the model's weights under the published names; bit-equal to what was imported."""
    return {name: view.detach().cpu().clone(memory_format=torch.contiguous_format) for name, view in slots(model.state_dict()).items()}


def published_config(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], t5: Mapping[str, Any] | None = None, samples: int = 5000, **changes: Any
) -> ModelConfig:
    """Return our config for a published `config` (flat, or under ``model``) and the sizes in `tensors`; `changes` override.

    `t5`, where known, is the text encoder's own config; else its sizes come from the tensors. Raises CheckpointError for a
    missing key or a value that this model does not have.
    """
    config = config["model"] if isinstance(config.get("model"), Mapping) else config
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"published config: {key} = {config[key]!r}, but this model has {value!r} only")
    try:
        settings = {
            "conv_layers": parse_layers(str(config["conv_feature_layers"])),
            "ecg_width": config["encoder_embed_dim"],
            "ecg_layers": config["encoder_layers"],
            "ecg_heads": config["encoder_attention_heads"],
            "ecg_ffn": config["encoder_ffn_embed_dim"],
            "position_kernel": config["conv_pos"],
            "position_groups": config["conv_pos_groups"],
            "ecg_dropout": config.get("dropout", 0.1),
            "ecg_attention_dropout": config.get("attention_dropout", 0.1),
            "width": config["hidden_dim"],
            "fusion_pairs": config["num_top_layer"],
            "fusion_heads": config["num_heads"],
            "fusion_dropout": config.get("drop_rate", 0.1),
            "decoder_width": config["mem_decoder_hidden_dim"],
            "decoder_blocks": config["mem_decoder_num_layers"],
            "decoder_heads": config["mem_decoder_num_heads"],
            "mem_layer": config["mem_layer"],
            "mem_prob": config["mem_prob"],
        }
    except KeyError as error:
        raise CheckpointError(f"published config: no {error.args[0]!r}; give the config that came with the weights") from None
    text = whole_t5({key: value for key, value in (t5 or t5_sizes(tensors)).items() if key in DEFAULTS})
    mlm = {"mlm_vocab": len(tensors["mlm_head.bias"])} if "mlm_head.bias" in tensors else {}
    return ModelConfig(**settings | mlm | {"fs_hz": 500.0, "samples": samples, "leads": PUBLISHED_LEADS, "text": text} | changes)


def parse_layers(text: str) -> list[tuple[int, int, int]]:
    """Return the convolutions that a Python expression like ``[(256, 2, 2)] * 4`` lists; nothing is evaluated but + and *."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
            left, right = value(node.left), value(node.right)
            return left + right if isinstance(node.op, ast.Add) else left * right
        return ast.literal_eval(node)

    try:
        return [(int(channels), int(kernel), int(stride)) for channels, kernel, stride in value(ast.parse(text, mode="eval").body)]
    except (SyntaxError, ValueError, TypeError):
        raise CheckpointError(f"published config: conv_feature_layers = {text!r} is not a list of (channels, kernel, stride)") from None


def t5_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the T5 config that the shapes of published `tensors` tell; what they do not tell is Flan-T5's."""
    block = "language_encoder.encoder.block.{}.layer.{}."
    try:
        vocab_size, d_model = tensors["language_encoder.shared.weight"].shape
        buckets, heads = tensors[block.format(0, 0) + "SelfAttention.relative_attention_bias.weight"].shape
        inner = tensors[block.format(0, 0) + "SelfAttention.q.weight"].shape[0]
        d_ff = tensors[block.format(0, 1) + "DenseReluDense.wo.weight"].shape[1]
    except KeyError as error:
        raise CheckpointError(f"the published weights: missing: {error.args[0]}") from None
    layers = {name.split(".")[3] for name in tensors if name.startswith("language_encoder.encoder.block.")}
    gated = block.format(0, 1) + "DenseReluDense.wi_0.weight" in tensors
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_kv": inner // heads,
        "d_ff": d_ff,
        "num_layers": len(layers),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def import_published(file: Path, config_file: Path, out: Path, tokenizer: str = "") -> dict[str, Any]:
    """Turn a published checkpoint (.pt or .safetensors) and its JSON config into a cmelt checkpoint folder; return a summary.

    `tokenizer` is a hub name or local path; by default Flan-T5's, and none where that is not to be had. Raises
    CheckpointError for files that do not load or do not fit each other, OutputError where `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: already there; take another folder")
    tensors = read_tensors(file)
    try:
        table = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config_file}: not a JSON config ({error})") from None
    words = None
    try:
        words = load_tokenizer(tokenizer or "google/flan-t5-base", 128)
    except CheckpointError:
        if tokenizer:
            raise
    try:
        model = CMELT(published_config(table, tensors), words)
    except (RecipeError, ValueError) as error:
        raise CheckpointError(f"{config_file}: these sizes do not make a model ({' '.join(str(error).split())[:200]})") from None
    load_published(model, tensors, str(file))
    part = out.with_name(out.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(part)
    if out.exists():
        out.rmdir()
    part.rename(out)
    ignored = sorted(set(tensors) & set(TOLERATED))
    parameters = sum(p.numel() for p in model.parameters())
    return {"out": str(out), "tensors": len(tensors), "parameters": parameters, "ignored": ignored, "tokenizer": words is not None}


def export_published(run: Path, out: Path) -> dict[str, Any]:
    """Write the checkpoint in folder `run` under the published names to `out` (.safetensors, or .pt: a dict with key ``model``)."""
    if out.suffix not in (".safetensors", ".pt"):
        raise OutputError(f"{out}: name the file *.safetensors or *.pt")
    model = CMELT.from_pretrained(run)
    if model.config.ecg_encoder != "conv":
        raise CheckpointError(f"{run}: its ECG encoder is {model.config.ecg_encoder!r}; the published model has 'conv' only")
    if model.config.text["model_type"] != "t5":
        raise CheckpointError(f"{run}: its text encoder is a {model.config.text['model_type']}; the published model has a T5")
    tensors = published_tensors(model)
    with whole(out) as part:
        if out.suffix == ".pt":
            torch.save({"model": tensors}, part)
        else:
            save_tensors(tensors, part, leads=" ".join(model.config.leads))
    return {"out": str(out), "tensors": len(tensors), "lead_order": list(model.config.leads), "permuted": model.config.leads != LEADS}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a published .pt (a dict, maybe under ``model``; nothing is unpickled but tensors) or .safetensors."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, ModuleNotFoundError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: does not load ({reason}); give a published .pt or .safetensors file") from None
    tensors = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{file}: holds no table of tensors under the key 'model'")
    return tensors
