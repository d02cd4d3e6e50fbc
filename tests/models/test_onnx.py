"""The exported graph is the ECG encoder, and says what it must be given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cmelt.config import SignalSettings
from cmelt.errors import CheckpointError, MissingExtra, OutputError
from cmelt.models import onnx as module
from cmelt.models.cmelt import CMELT
from cmelt.models.onnx import export_onnx
from cmelt.record import LEADS
from tests.pairs import small_model

SAMPLES = 160


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["conv", "residual", "lead-wise"])
def test_the_graph_is_the_encoder(tmp_path: Path, encoder: str) -> None:
    model = small_model(SAMPLES, ecg_encoder=encoder)
    settings = {"leads": LEADS[::-1], "signal": SignalSettings(highpass_hz=0.67)}
    CMELT(model.config.model_copy(update=settings), model.tokenizer).save_pretrained(tmp_path / "run")
    summary = export_onnx(tmp_path / "run", tmp_path / "ecg.onnx")
    assert summary["difference"] <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "ecg.onnx", providers=["CPUExecutionProvider"])
    loaded, rng = CMELT.from_pretrained(tmp_path / "run"), np.random.default_rng(1)
    for count in (1, 2, 5):
        ecg = rng.normal(size=(count, 12, SAMPLES)).astype(np.float32)
        ecg[:, 3] = 0  # a lead that is not there
        found = session.run(None, {"ecg_mv": ecg})
        for mine, theirs in zip(found, loaded.ecg_features(ecg), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
    told = session.get_modelmeta().custom_metadata_map
    assert told["leads"].split(",") == list(LEADS), "leads come in our order, and are permuted inside"
    assert (told["fs_hz"], told["samples"], told["unit"]) == ("100", "160", "mV")
    conditioning = SignalSettings.model_validate(json.loads(told["conditioning"]))
    assert (conditioning.highpass_hz, conditioning.fs_hz, conditioning.duration_s) == (0.67, 100, 1.6)


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"name the file \*.onnx"):
        export_onnx(tmp_path, tmp_path / "ecg.pb")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        export_onnx(tmp_path, tmp_path / "ecg.onnx")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'cmelt\[onnx\]'"):
        export_onnx(tmp_path, tmp_path / "ecg.onnx")
