"""Each loss is what its formula says, and its gradient is the slope of its value."""

import math

import pytest
import torch
import torch.nn.functional as F

from cmelt.config import ObjectiveSettings
from cmelt.models.batch import IGNORE
from cmelt.models.cmelt import CMELT
from cmelt.objectives import OBJECTIVES, total_loss, wanted
from cmelt.objectives.contrastive import pair_target, sigmoid_contrast, soft_cross_entropy
from cmelt.objectives.masked_ecg import mem_target
from cmelt.text.entities import entity_matrix
from tests.pairs import small_batch, small_model, some_reports

REPORTS = some_reports()


def only(name: str, **forms: str | float) -> ObjectiveSettings:
    """Return settings in which loss `name` alone is on."""
    return ObjectiveSettings.model_validate({other: float(other == name) for other in OBJECTIVES} | forms)


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("mlm", {}),
        ("mem", {"mem_target": "original"}),
        ("mem", {"mem_target": "input"}),
        ("etm", {}),
        ("ets", {"ets_form": "published"}),
        ("ets", {"ets_form": "siglip"}),
        ("ets", {"ets_form": "infonce"}),
        ("entities", {}),
    ],
)
@pytest.mark.parametrize("encoder", ["conv", "residual", "lead-wise"])
def test_gradients_are_finite_differences(name: str, forms: dict[str, str], encoder: str) -> None:
    model = small_model(reports=REPORTS, ecg_encoder=encoder, entity_heads=2 * (name == "entities")).double().eval()
    batch = small_batch(model, REPORTS, 6)
    batch.ecg, batch.ecg_target = batch.ecg.double(), batch.ecg_target.double()
    settings = only(name, **forms)

    def value() -> torch.Tensor:
        return total_loss(model, model(batch, wanted(settings)), batch, settings)[0]

    value().backward()
    generator = torch.Generator().manual_seed(0)
    checked = 0
    for key, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.abs().max() > 1e-8:
            continue
        # One random direction a parameter: the slope of the loss along it, by central differences in double precision.
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope = float((parameter.grad * direction).sum())
        step = 1e-4 / float(direction.norm())
        with torch.no_grad():
            parameter += step * direction
            above = float(value())
            parameter -= 2 * step * direction
            below = float(value())
            parameter += step * direction
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=5e-3, abs=2e-5 * float(direction.norm())), key
        checked += 1
    assert checked > 15


def test_weights_scale_and_switch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(reports=REPORTS).eval()
    batch = small_batch(model, REPORTS)
    with torch.no_grad():
        total, parts = total_loss(model, model(batch), batch, ObjectiveSettings())
        assert float(total) == pytest.approx(sum(map(float, parts.values())), rel=1e-6)
        half = ObjectiveSettings(mlm=0.5, mem=0.0, etm=2.0, ets=0.0)
        out = model(batch, wanted(half))
        assert out.mem_patches is None
        assert out.ecg_pooled is None
        total, parts = total_loss(model, out, batch, half)
    assert list(parts) == ["mlm", "etm"]
    assert float(total) == pytest.approx(0.5 * float(parts["mlm"]) + 2 * float(parts["etm"]), rel=1e-6)


def test_nothing_to_score_is_zero_not_nan() -> None:
    model = small_model(reports=REPORTS)
    batch = small_batch(model, REPORTS)
    batch.is_aligned = torch.full_like(batch.is_aligned, IGNORE)
    batch.mlm_labels = torch.full_like(batch.mlm_labels, IGNORE)
    total, parts = total_loss(model, model(batch), batch, ObjectiveSettings())
    assert float(parts["etm"]) == 0
    assert float(parts["mlm"]) == 0
    total.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_mem_target_is_standardised_patches() -> None:
    ecg = torch.randn(2, 12, 50, generator=torch.Generator().manual_seed(0)) * 3 + 1
    encoder = small_model().ecg_encoder
    target = mem_target(encoder, ecg)  # 48 of 50 samples
    assert target.shape == (2, 3, 12 * 16)
    window = ecg[:, :, :48]
    want = (window - window.mean(-1, keepdim=True)) / (window.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(target[1, 2, 5 * 16 : 6 * 16], want[1, 5, 32:48])  # lead-major inside a patch
    torch.testing.assert_close(encoder.unpatched(target), want)
    assert torch.isfinite(mem_target(encoder, torch.zeros(1, 12, 48))).all()  # a flat lead


def test_mem_reads_the_target_that_is_asked_for() -> None:
    model = small_model(reports=REPORTS).eval()
    batch = small_batch(model, REPORTS)
    with torch.no_grad():
        out = model(batch)
        original, masked = (float(total_loss(model, out, batch, only("mem", mem_target=target))[0]) for target in ("original", "input"))
        batch.ecg_target = batch.ecg
        assert float(total_loss(model, out, batch, only("mem", mem_target="original"))[0]) == masked
    assert original != masked


def test_pairs_by_report_and_by_diagonal() -> None:
    report, text = torch.tensor([1, 2, 1, 3]), torch.tensor([1, 3, 1, 3])  # row 1 reads a wrong report: row 3's own
    aligned = torch.tensor([1, 0, IGNORE, 1])
    by_report = pair_target(report, text, aligned, "report")
    assert by_report.int().tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]
    assert pair_target(report, text, aligned, "diagonal").diagonal().tolist() == [True, False, True, True]
    assert int(pair_target(report, text, aligned, "diagonal").sum()) == 3


def test_contrastive_forms() -> None:
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    positive = torch.eye(4, dtype=torch.bool)
    want = sum(math.log1p(math.exp(-(1 if i == j else -1) * float(scores[i, j]))) for i in range(4) for j in range(4))
    assert float(sigmoid_contrast(scores, positive)) == pytest.approx(want / 16, rel=1e-5)
    assert float(soft_cross_entropy(scores, positive)) == pytest.approx(float(F.cross_entropy(scores, torch.arange(4))), rel=1e-6)
    two = positive.clone()
    two[0, 1] = True  # two positives share the target
    want = -(scores.log_softmax(1)[0, :2].mean() + scores.log_softmax(1).diagonal()[1:].sum()) / 4
    assert float(soft_cross_entropy(scores, two)) == pytest.approx(float(want), rel=1e-6)
    none = positive.clone()
    none[3] = False  # a row whose own report is not in the batch does not count
    assert float(soft_cross_entropy(scores, none)) == pytest.approx(float(F.cross_entropy(scores[:3], torch.arange(3))), rel=1e-6)


def test_findings_are_asked_by_what_the_true_report_says() -> None:
    model = small_model(reports=REPORTS, entity_heads=2).eval()
    batch = small_batch(model, REPORTS)
    assert (batch.report_id != batch.text_report_id).any()
    said = entity_matrix([REPORTS[report] for report in batch.report_id])
    assert batch.entities.numpy().tolist() == said.tolist()
    batch.entities[0, :4] = torch.tensor([1, 0, 2, -1], dtype=torch.int8)  # stated, denied, hedged, unsaid
    forms = {"entities_uncertain": 0.6, "entities_unsaid": 0.25}
    with torch.no_grad():
        out = model(batch, {"entities"})
        loss = float(total_loss(model, out, batch, only("entities", **forms))[0])
    assert out.entity_logits is not None
    target = {1: (1.0, 1.0), 0: (0.0, 1.0), 2: (0.6, 1.0), -1: (0.0, 0.25)}
    want = 0.0
    for logit, value in zip(out.entity_logits.flatten().tolist(), batch.entities.flatten().tolist(), strict=True):
        probable, weight = target[value]
        want += weight * (probable * math.log1p(math.exp(-logit)) + (1 - probable) * math.log1p(math.exp(logit)))
    assert loss == pytest.approx(want / len(batch), rel=1e-5)


def test_normalised_forms_learn_their_temperature() -> None:
    model: CMELT = small_model(reports=REPORTS)
    batch = small_batch(model, REPORTS)
    for form, bias in (("siglip", True), ("infonce", False), ("published", False)):
        model.zero_grad(set_to_none=True)
        settings = only("ets", ets_form=form)
        total_loss(model, model(batch, wanted(settings)), batch, settings)[0].backward()
        assert (model.contrast.log_scale.grad is not None) == (form != "published")
        assert (model.contrast.bias.grad is not None) == bias


@pytest.mark.parametrize("form", ["published", "siglip", "infonce"])
def test_losses_are_precise_whatever_the_model_was_computed_in(form: str) -> None:
    model = small_model(reports=REPORTS, entity_heads=2).eval()
    batch, settings = small_batch(model, REPORTS, 8), ObjectiveSettings.model_validate({"entities": 1, "ets_form": form})
    with torch.no_grad():
        outputs = model(batch)
        plain = total_loss(model, outputs, batch, settings)[1]
        with torch.autocast("cpu", torch.bfloat16):
            found = total_loss(model, outputs, batch, settings)[1]
    assert {name: float(value) for name, value in found.items()} == {name: float(value) for name, value in plain.items()}
