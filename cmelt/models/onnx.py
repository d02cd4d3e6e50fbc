"""The ECG encoder as an ONNX graph: millivolts in, embeddings out, for runtimes without torch; checked before it is written.

N ECGs, S samples, D embedding width, W encoder width.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmelt import __version__
from cmelt.errors import CheckpointError, MissingExtra, OutputError
from cmelt.files import write_whole
from cmelt.models.cmelt import CMELT
from cmelt.models.heads import mean_token
from cmelt.record import LEADS

INPUT, OUTPUTS = "ecg_mv", ("embedding", "token_mean")
"""(N, 12, S) float32 in mV, leads in the order of LEADS; what `CMELT.ecg_features` returns, (N, D) and (N, W)."""

TOLERANCE = 1e-4
"""The largest difference from torch that a graph may show."""


class Graph(nn.Module):
    """The part of a model that embeds ECGs, from an ECG in the order of LEADS."""

    def __init__(self, model: CMELT) -> None:
        super().__init__()
        self.model = model

    def forward(self, ecg_mv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (N, D) and the mean of the tokens (N, W) of `ecg_mv` (N, 12, S)."""
        encoded, hidden = self.model.encoded(ecg_mv)
        return self.model.pool_ecg(self.model.ecg_project(encoded), hidden), mean_token(encoded, hidden)


def export_onnx(run: str | Path, out: Path) -> dict[str, Any]:
    """Write the ECG encoder of checkpoint `run` as `out` (.onnx), any number of ECGs at a time; returns a summary.

    Its metadata say what it must be given: leads and their order, rate, samples, and how raw ECGs are conditioned. Before it is
    written onnxruntime runs it beside torch. Raises MissingExtra, OutputError or CheckpointError.
    """
    for library in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(library) is None:
            raise MissingExtra(library, "onnx")
    if out.suffix != ".onnx":
        raise OutputError(f"{out}: name the file *.onnx")
    model = CMELT.from_pretrained(run)
    graph = Graph(model).eval()
    example = torch.zeros(2, len(LEADS), model.config.samples)
    with quietly(), torch.no_grad():
        count = torch.export.Dim("ecgs", min=1)
        program = torch.onnx.export(
            graph, (example,), input_names=[INPUT], output_names=OUTPUTS, dynamic_shapes=({0: count},), dynamo=True, verbose=False
        )
    assert program is not None
    facts = metadata(model)
    program.model.metadata_props.update(facts)
    data = program.model_proto.SerializeToString()
    difference = compare(data, graph, model.config.samples)
    if not difference <= TOLERANCE:  # NaN neither
        raise CheckpointError(f"{run}: onnxruntime differs from torch by {difference:.2g}, more than {TOLERANCE:g}; nothing was written")
    write_whole(out, data)
    return {"out": str(out), "bytes": len(data), "difference": difference, "metadata": facts}


def metadata(model: CMELT) -> dict[str, str]:
    """Return what the graph says of itself, as strings."""
    config = model.config
    return {
        "cmelt_version": __version__,
        "leads": ",".join(LEADS),
        "unit": "mV",
        "fs_hz": f"{config.fs_hz:g}",
        "samples": str(config.samples),
        "embedding_width": str(config.width),
        "conditioning": json.dumps(config.conditioning.model_dump(mode="json")),
        "use": "for research; no medical device",
    }


def compare(data: bytes, graph: Graph, samples: int) -> float:
    """Return the largest difference between what onnxruntime and torch make of noise, alone and three at a time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    for count in (1, 3):
        ecg = rng.normal(0, 0.3, (count, len(LEADS), samples)).astype(np.float32)
        with torch.no_grad():
            expected = graph(torch.from_numpy(ecg))
        found = session.run(OUTPUTS, {INPUT: ecg})
        worst = max(worst, *(float(np.abs(mine - theirs.numpy()).max()) for mine, theirs in zip(found, expected, strict=True)))
    return worst


@contextmanager
def quietly() -> Iterator[None]:
    """Leave unsaid what torch's exporter warns of in itself: functions of its own that it calls, and torchvision's absence."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
