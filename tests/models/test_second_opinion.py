"""Models of other shapes than the parity files' agree with the straightforward second implementation, and so do their gradients."""

import dataclasses

import pytest
import torch

from cmelt.config import ObjectiveSettings
from cmelt.models.cmelt import CMELT
from cmelt.models.ecg_encoder import token_samples
from cmelt.models.published import published_tensors, slots
from cmelt.objectives import total_loss
from tests.benchmarks.baseline import Baseline, losses
from tests.pairs import small_batch, small_model, some_reports

PUBLISHED = ObjectiveSettings(mem_target="input", ets_target="diagonal")
REPORTS = some_reports()
RELU = {"d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "relu"}


def baseline(model: CMELT) -> Baseline:
    """Return the second implementation on copies of the model's weights."""
    c = model.config
    config = {
        "strides": [stride for _, _, stride in c.conv_layers],
        "conv_pos_groups": c.position_groups,
        "encoder_layers": c.ecg_layers,
        "encoder_attention_heads": c.ecg_heads,
        "num_heads": c.fusion_heads,
        "num_top_layer": c.fusion_pairs,
        "mem_layer": c.mem_layer,
        "mem_prob": c.mem_prob,
        "mem_decoder_num_layers": c.decoder_blocks,
        "mem_decoder_num_heads": c.decoder_heads,
    }
    weights = {name: tensor.requires_grad_() for name, tensor in published_tensors(model).items()}
    return Baseline(weights, config, c.text, token_samples(c.conv_layers))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mem_layer": -1, "mem_prob": 0.6, "position_kernel": 5, "decoder_blocks": 3},
        {"samples": 1107, "conv_layers": [[6, 2, 2]]},  # more tokens than the 512 positions that the published decoder stored
        {"mem_layer": 0, "fusion_pairs": 1, "ecg_layers": 3, "ecg_heads": 4, "text_config": RELU},
        {"conv_layers": [[6, 3, 2], [8, 2, 2], [10, 2, 2]], "ecg_width": 24, "width": 18, "fusion_heads": 3, "decoder_width": 14},
    ],
)
def test_outputs_losses_and_gradients_agree(changes: dict[str, object]) -> None:
    model = small_model(reports=REPORTS, **changes).eval()
    batch = small_batch(model, REPORTS)
    second = baseline(model)
    out = second(batch.ecg, batch.text_ids, batch.text_padding, batch.mask_noise)
    mine = model(dataclasses.replace(batch, mlm_labels=torch.zeros_like(batch.mlm_labels)))
    for name in ("ecg_pooled", "text_pooled", "etm_logits"):
        torch.testing.assert_close(getattr(mine, name), out[name], rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(mine.mlm_logits, out["mlm_logits"].flatten(0, 1), rtol=1e-4, atol=1e-5)
    removed = out["mem_logits"].gather(1, mine.removed[:, :, None].expand_as(mine.mem_patches))
    torch.testing.assert_close(mine.mem_patches, removed, rtol=1e-4, atol=1e-5)
    plain = second(batch.ecg, batch.text_ids, batch.text_padding, None)
    torch.testing.assert_close(model.encode_ecg(batch.ecg), plain["ecg_pooled"], rtol=1e-4, atol=1e-5)

    want = losses(out, batch.mlm_labels, batch.is_aligned)
    total, parts = total_loss(model, model(batch), batch, PUBLISHED)
    for name, value in parts.items():
        assert float(value) == pytest.approx(float(want[name].detach()), rel=2e-5), name
    total.backward()
    want["total"].backward()
    gradients = slots({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()})
    read = {name for name, weight in second.w.items() if weight.grad is not None}
    assert read == set(second.w) - {"language_encoder.encoder.embed_tokens.weight"}  # it has no weight of its own accord
    for name in read:
        torch.testing.assert_close(gradients[name], second.w[name].grad, rtol=1e-3, atol=2e-6, msg=name)
