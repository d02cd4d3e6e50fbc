"""The model, with the weights and inputs of a parity file, gives that file's outputs: float32, CPU.

CMELT_PARITY is a glob of such files (default ../shared/parity/*.safetensors beside the checkout).
"""

import glob
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import Batch
from cmelt.models.cmelt import CMELT
from cmelt.models.published import load_published, published_config, published_tensors
from cmelt.objectives import total_loss
from cmelt.objectives.masked_ecg import mem_target
from cmelt.record import LEADS

DEFAULT = Path(__file__).parents[2].parent / "shared" / "parity" / "*.safetensors"
FILES = sorted(glob.glob(os.environ.get("CMELT_PARITY", str(DEFAULT))))  # noqa: PTH207 - the variable is a glob, maybe absolute
PUBLISHED = ObjectiveSettings(mem_target="input", ets_form="published", ets_target="diagonal")

pytestmark = pytest.mark.skipif(not FILES, reason="no parity files: set CMELT_PARITY to a glob of them")


class Fixture:
    """One parity file: the model that it makes, its inputs and its outputs."""

    def __init__(self, file: str) -> None:
        with safe_open(file, "pt") as opened:
            meta = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
        under = {
            part: {n.removeprefix(part): t for n, t in tensors.items() if n.startswith(part)}
            for part in ("weights.", "in.", "out.", "loss.")
        }
        self.weights, self.inputs, self.out, self.loss = under.values()
        t5 = json.loads(meta["t5_config"])
        # The fixture's ECGs stand in the order of its weights, whatever their names: nothing is to be permuted.
        config = published_config(json.loads(meta["config"]), self.weights, t5, self.inputs["ecg"].shape[2], leads=LEADS)
        self.model = CMELT(config).eval()
        load_published(self.model, self.weights)

    def batch(self, every_position: bool = False) -> Batch:
        """Return the inputs as a batch; with `every_position`, all text positions are scored, so that all logits are computed."""
        rows = torch.arange(len(self.inputs["ecg"]))
        labels = self.inputs["mlm_labels"]
        return Batch(
            ecg=self.inputs["ecg"],
            ecg_target=self.inputs["ecg"],
            text_ids=self.inputs["masked_text_ids"],
            text_padding=self.inputs["attention_mask"] == 0,
            mlm_labels=torch.zeros_like(labels) if every_position else labels,
            mask_noise=self.inputs["mask_noise"],
            is_aligned=self.inputs["is_aligned"].long(),
            report_id=rows,
            text_report_id=rows,
        )


@pytest.fixture(scope="module", params=FILES, ids=[Path(file).stem for file in FILES])
def fixture(request: pytest.FixtureRequest) -> Fixture:
    return Fixture(request.param)


def far(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    assert mine.shape == theirs.shape
    return float((mine - theirs).abs().max())


@torch.no_grad()
def test_outputs_without_masking(fixture: Fixture) -> None:
    model, inputs, out = fixture.model, fixture.inputs, fixture.out
    tokens = model.ecg_encoder.tokens(inputs["ecg"])
    encoded = model.ecg_encoder.encode(tokens)
    embedding = model.encode_ecg(inputs["ecg"])
    padding = inputs["attention_mask"] == 0
    ecg = model.ecg_project(encoded)
    text = model.text_project(model.text_encoder(inputs["text_ids"], padding))
    first = torch.zeros(len(ecg), 1, dtype=torch.long)
    fused = model.fusion(text, ecg, padding, first, first, -1, model.config.fusion_pairs)
    etm = model.etm_head(torch.cat([model.fused_text_pooler(fused[0][:, 0]), model.fused_ecg_pooler(fused[1][:, 0])], dim=-1))
    distances = {
        "ecg_tokens": far(tokens, out["ecg_tokens"]),
        "ecg_encoded": far(encoded, out["ecg_encoded"]),
        "ecg_embedding": far(embedding, out["ecg_embedding"]),
        "text_embedding": far(model.text_pooler(text[:, 0]), out["text_embedding"]),
        "unmasked.ecg_pooled": far(embedding, out["unmasked.ecg_pooled"]),
        "unmasked.etm_logits": far(etm, out["unmasked.etm_logits"]),
    }
    assert max(distances.values()) <= 1e-5, distances


@torch.no_grad()
def test_outputs_of_the_masked_pass(fixture: Fixture) -> None:
    model, out = fixture.model, fixture.out
    batch = fixture.batch(every_position=True)
    mine = model(batch)
    count = batch.mask_noise.shape[1]
    removed = torch.zeros(len(batch), count).scatter(1, mine.removed, 1.0)
    everywhere = torch.arange(count).expand(len(batch), -1)
    at = mine.removed[:, :, None].expand_as(mine.mem_patches)
    target = mem_target(model.ecg_encoder, batch.ecg)
    distances = {
        "mem_mask": far(removed, out["mem_mask"]),
        "masked.ecg_pooled": far(mine.ecg_pooled, out["masked.ecg_pooled"]),
        "masked.text_pooled": far(mine.text_pooled, out["masked.text_pooled"]),
        "masked.mlm_logits": far(mine.mlm_logits.view_as(out["masked.mlm_logits"]), out["masked.mlm_logits"]),
        "masked.mem_logits (removed)": far(mine.mem_patches, out["masked.mem_logits"].gather(1, at)),
        "masked.mem_logits (all)": far(all_patches(model, batch, everywhere), out["masked.mem_logits"]),
        "masked.mem_target": far(target, out["masked.mem_target"]),
        "masked.etm_logits": far(mine.etm_logits, out["masked.etm_logits"]),
    }
    told = {name.split(" ")[0] for name in distances} | {"ecg_tokens", "ecg_encoded", "ecg_embedding", "text_embedding"}
    assert told | {"unmasked.ecg_pooled", "unmasked.etm_logits"} >= set(fixture.out), "an output is not compared"
    assert max(distances.values()) <= 1e-5, distances


def all_patches(model: CMELT, batch: Batch, at: torch.Tensor) -> torch.Tensor:
    """Return the decoder's prediction at places `at`, kept ones too, of the masked pass (training asks for the removed ones only)."""
    held = {}
    hook = model.mem_decoder.register_forward_pre_hook(lambda _, arguments: held.update(arguments=arguments))
    model(batch, wanted={"mem"})
    hook.remove()
    tokens, keep, codes, *_ = held["arguments"]
    return model.mem_decoder(tokens, keep, codes, at)


@torch.no_grad()
def test_losses(fixture: Fixture) -> None:
    batch = fixture.batch()
    total, parts = total_loss(fixture.model, fixture.model(batch), batch, PUBLISHED)
    assert {*parts, "total"} == set(fixture.loss)
    for name, value in {**parts, "total": total}.items():
        assert float(value) == pytest.approx(float(fixture.loss[name]), rel=1e-5), name


def test_export_is_bit_equal(fixture: Fixture) -> None:
    exported = published_tensors(fixture.model)
    for name in set(fixture.weights) - {"ecg_encoder.mask_emb", "mim_head.decoder_pos_embed.pe"}:
        assert torch.equal(exported.pop(name), fixture.weights[name]), name
    assert not exported
