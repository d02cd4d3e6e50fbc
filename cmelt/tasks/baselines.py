"""What a learnt encoder must beat: the same encoder before any learning, simple amplitudes, and random convolutions.

N recordings, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks, resample_poly

from cmelt.config import OptimSettings
from cmelt.config_tasks import FinetuneRecipe, TuneSettings
from cmelt.models.cmelt import CMELT
from cmelt.tasks.base import Cohort, encoder_features, on_device
from cmelt.tasks.features import Features
from cmelt.tasks.protocol import Fit, Folds, Rows

Ecg = NDArray[np.float32]

PERCENTILES = (1, 10, 90, 99)

KERNELS = 512
KERNEL_LENGTH = 9
MIXTURES = 32
"""Random mixtures of the leads; each is read by KERNELS / MIXTURES kernels."""
RATE_HZ = 100.0
"""What random convolutions read ECGs at."""


def random_init(model: CMELT, cohort: Cohort, seeds: Sequence[int], quiet: bool = False) -> list[Features]:
    """Return the features of `model`'s shape with fresh random weights, once for each seed."""
    out = []
    for number, seed in enumerate(seeds):
        out.append(encoder_features(fresh(model, seed), cohort, f"random init {number + 1} of {len(seeds)}", quiet=quiet))
    return out


def trivial(model: CMELT, cohort: Cohort, seeds: Sequence[int], quiet: bool = False) -> list[Features]:
    """Return simple amplitude features of `cohort`, once: nothing in them is random."""
    parts = [features_trivial(ecg, cohort.fs_hz) for ecg in cohort.batches(256, "trivial features", quiet)]
    return [{"trivial": np.concatenate(parts)}]


def random_conv(model: CMELT, cohort: Cohort, seeds: Sequence[int], quiet: bool = False) -> list[Features]:
    """Return random-convolution features of `cohort`, once for each seed."""
    out = []
    for number, seed in enumerate(seeds):
        batches = cohort.batches(256, f"random convolutions {number + 1} of {len(seeds)}", quiet)
        out.append({"random_conv": np.concatenate([features_random_conv(ecg, cohort.fs_hz, seed) for ecg in batches])})
    return out


BASELINES: dict[str, Callable[[CMELT, Cohort, Sequence[int], bool], list[Features]]] = {
    "random_init": random_init,
    "trivial": trivial,
    "random_conv": random_conv,
}
"""Baseline → its features, one set for each replicate."""

RIDGE = frozenset({"random_conv"})
"""Baselines that are fitted by ridge regression, whatever the protocol (as in ROCKET)."""

SUPERVISED = "supervised"
"""The baseline that learns all of the encoder from the drawn labels alone."""

SCRATCH = TuneSettings(epochs=40, patience=8, batch=32, head_rate=1.0)


def features_trivial(ecg_mv: Ecg, fs_hz: float) -> NDArray[np.float32]:
    """Return what needs no look at a wave's shape, (N, 85): per lead mean, sd, percentiles and RMS slope; and the mean RR interval (s).

    `ecg_mv` is (N, 12, S) in mV at `fs_hz`.
    """
    slope = np.diff(ecg_mv, axis=-1) * fs_hz  # mV/s
    per_lead = [ecg_mv.mean(-1), ecg_mv.std(-1), *np.percentile(ecg_mv, PERCENTILES, axis=-1), np.sqrt((slope**2).mean(-1))]
    return np.concatenate([*per_lead, mean_rr_s(ecg_mv, fs_hz)[:, None]], axis=1).astype(np.float32)


def mean_rr_s(ecg_mv: Ecg, fs_hz: float) -> NDArray[np.float64]:
    """Return the mean RR interval of each ECG (N,) in s, from peaks of the summed slope; the record's length where there is one beat."""
    smooth = uniform_filter1d(ecg_mv, max(1, round(0.03 * fs_hz)), axis=-1)  # else white noise, not the QRS, has the slopes
    energy = uniform_filter1d((np.diff(smooth, axis=-1) ** 2).sum(1), max(1, round(0.08 * fs_hz)), axis=-1)
    low, high = np.percentile(energy, [50, 98], axis=-1)
    out = np.full(len(ecg_mv), ecg_mv.shape[-1] / fs_hz)
    for number, one in enumerate(energy):
        level = low[number] + 0.25 * (high[number] - low[number])
        peaks, _ = find_peaks(one, height=level, distance=max(1, round(0.25 * fs_hz)))
        if len(peaks) > 1:
            out[number] = np.diff(peaks).mean() / fs_hz
    return out


def features_random_conv(ecg_mv: Ecg, fs_hz: float, seed: int) -> NDArray[np.float32]:
    """Return random-convolution features (N, 2 · KERNELS): of each kernel the share of time above its bias, and the maximum.

    After ROCKET (arXiv 1910.13051). `ecg_mv` is (N, 12, S) in mV at `fs_hz`, read at RATE_HZ. Kernels have zero mean, random dilations
    and random leads; they depend on `seed` and S alone, so batches may be joined.
    """
    if fs_hz != RATE_HZ:
        ratio = Fraction(RATE_HZ / fs_hz).limit_denominator(1000)
        ecg_mv = resample_poly(ecg_mv, ratio.numerator, ratio.denominator, axis=-1).astype(np.float32)
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(MIXTURES, 12)) * (rng.random((MIXTURES, 12)) < 0.3)
    mix[np.arange(MIXTURES), rng.integers(0, 12, MIXTURES)] += 1.0  # no mixture is empty
    longest = np.log2(max(2.0, (ecg_mv.shape[-1] - 1) / (KERNEL_LENGTH - 1) / 4))
    dilations = np.floor(2 ** rng.uniform(0, longest, 8)).astype(int)
    per_group = KERNELS // len(dilations) // MIXTURES
    x = torch.from_numpy(np.einsum("ml,nls->nms", mix.astype(np.float32), ecg_mv))  # (N, MIXTURES, S)
    out = []
    for dilation in dilations:
        kernel = rng.normal(size=(MIXTURES * per_group, 1, KERNEL_LENGTH))
        kernel -= kernel.mean(-1, keepdims=True)
        bias = rng.uniform(-0.5, 0.5, MIXTURES * per_group)
        pad = int(dilation) * (KERNEL_LENGTH // 2)
        weight, offset = torch.from_numpy(kernel.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))
        y = torch.nn.functional.conv1d(x, weight, offset, padding=pad, dilation=int(dilation), groups=MIXTURES)
        out += [(y > 0).float().mean(-1), y.amax(-1)]
    return torch.cat(out, dim=1).numpy()


def from_scratch(model: CMELT, cohort: Cohort, folds: Folds, usable: NDArray[np.bool_], drawn: Rows, seed: int) -> Fit:
    """Train an encoder of `model`'s shape from random weights on rows `drawn` alone, and return its scores."""
    from cmelt.tasks.tune import classifier, outputs, tune_classifier  # brings accelerate, which other baselines do without

    recipe = FinetuneRecipe(tune=SCRATCH.model_copy(update={"seed": seed}), optim=OptimSettings(lr=1e-3, schedule="cosine"))
    tuned = classifier(fresh(model, seed), len(cohort.classes), seed=seed)
    course = tune_classifier(tuned, cohort, drawn, folds.val, usable, recipe, quiet=True)
    val, test = (outputs(tuned, cohort.ecg_mv, rows, tuned.device) for rows in (folds.val, folds.test))
    told = {"features": SUPERVISED, "val_auc": round(course.value, 6), "best_epoch": course.best_epoch, "epochs": course.epochs}
    return Fit(test, val, told)


def fresh(model: CMELT, seed: int) -> CMELT:
    """Return a model of `model`'s shape with random weights drawn with `seed`, on the best device there is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return on_device(CMELT(model.config))
