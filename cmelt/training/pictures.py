"""Pictures of what a model makes of validation records: masked leads rebuilt, and reports retrieved for ECGs.

S samples, T ECG tokens, P numbers of a patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmelt.models.batch import IGNORE, Batch
from cmelt.models.cmelt import CMELT
from cmelt.objectives.masked_ecg import mem_target
from cmelt.plots import plot_reconstruction, plot_retrieved, save
from cmelt.record import LEADS
from cmelt.training.corpus import Corpus

EXAMPLES, GALLERY, NEAREST = 6, 1000, 3
"""ECGs drawn, spread over the validation split; distinct reports searched for the nearest ones; reports shown for each."""


def draw(model: CMELT, corpus: Corpus, folder: Path, step: int) -> list[Path]:
    """Draw what `model` makes of the same few records of `corpus` at every `step`; returns the files. Raises OutputError."""
    rows = np.linspace(0, len(corpus) - 1, min(EXAMPLES, len(corpus))).astype(np.int64)
    ecg_mv = corpus.ecg_mv(rows)
    own = [corpus.reports[i] for i in corpus.report_id[rows]]
    gallery = list(dict.fromkeys([*own, *corpus.reports]))[:GALLERY]
    similarity = cosine(model.encode_ecg(ecg_mv).float().cpu().numpy(), model.encode_text(gallery).float().cpu().numpy())
    found = []
    for scores, text in zip(similarity, own, strict=True):
        order = np.argsort(-scores, kind="stable")
        best = [*order[:NEAREST], *(i for i in order[NEAREST:] if gallery[i] == text)]  # its own comes last where it is not near
        found.append([(float(scores[i]), gallery[i], gallery[i] == text) for i in best])
    drawn = {"retrieved": plot_retrieved(ecg_mv, corpus.fs_hz, found)}
    if model.config.mem_prob:  # else nothing is ever removed
        drawn["rebuilt"] = plot_reconstruction(*rebuild(model, ecg_mv[0], own[0]), corpus.fs_hz)
        drawn["rebuilt"].set_facecolor("white")
    return [save(figure, folder / f"step-{step:09d}-{name}.png") for name, figure in drawn.items()]


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the cosine of every row of `a` (N, D) with every row of `b` (M, D): (N, M)."""
    a, b = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


@torch.inference_mode()
def rebuild(model: CMELT, ecg_mv: NDArray[np.float32], report: str, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Hide the model's share of one ECG, (12, S) mV, and let the model fill it in, reading the report.

    Returns the true and the rebuilt ECG, each lead standardised as in training, and which samples were hidden, all (12, whole patches);
    what was seen is in the rebuilt ECG as it was.
    """
    ecg = torch.from_numpy(np.ascontiguousarray(ecg_mv))[None]
    ids, _ = model.require_tokenizer().encode_padded([report])
    text = torch.from_numpy(ids.astype(np.int64))
    count = model.ecg_token_count(ecg.shape[-1])
    noise = torch.rand((1, count), generator=torch.Generator().manual_seed(seed))
    one = torch.ones(1, dtype=torch.int64)
    batch = Batch(ecg, ecg, text, torch.zeros_like(text, dtype=torch.bool), torch.full_like(text, IGNORE), noise, one, one, one)
    was_training = model.training
    model.eval()
    out = model(batch.to(model.etm_head.weight.device), {"mem"})
    model.train(was_training)
    assert out.mem_patches is not None
    assert out.removed is not None
    patches, removed = out.mem_patches.float().cpu(), out.removed.cpu()
    target = mem_target(model.ecg_encoder, model.permuted(ecg))  # (1, T, P)
    places = removed[:, :, None].expand_as(patches)
    filled, hidden = target.scatter(1, places, patches), torch.zeros_like(target).scatter(1, places, 1.0)
    back = [model.config.leads.index(lead) for lead in LEADS]
    true, rebuilt, gone = (model.ecg_encoder.unpatched(x)[0, back].numpy() for x in (target, filled, hidden))
    return true, rebuilt, gone > 0
