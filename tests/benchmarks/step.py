"""Measure one full-size training step against the straightforward baseline: ``python -m tests.benchmarks.step [--json]``.

Both have the published sizes, a random Flan-T5-base text encoder, dropout on, and take forward, backward and an AdamW step. The
baseline (tests/benchmarks/baseline.py) is fp32; ours is timed in fp32 and in bf16 autocast. Runs are interleaved, medians told.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from cmelt.config import ModelSettings, ObjectiveSettings, OptimSettings
from cmelt.models.batch import IGNORE, Batch
from cmelt.models.cmelt import CMELT, ModelConfig
from cmelt.models.masking import mask_leads
from cmelt.models.published import published_tensors
from cmelt.models.text_encoder import resolve_sizes
from cmelt.objectives import total_loss
from cmelt.training.optim import adamw
from tests.benchmarks.baseline import Baseline, losses

PUBLISHED = ObjectiveSettings(mem_target="input", ets_target="diagonal")


def base_model() -> CMELT:
    """Return the full-size model with random weights; it has no tokenizer, and none is needed."""
    settings = ModelSettings.model_validate({"text_init": "random"})
    config = ModelConfig(**settings.model_dump(), fs_hz=500.0, samples=5000, text=resolve_sizes(settings))
    torch.manual_seed(0)
    return CMELT(config)


def noise_batch(model: CMELT, size: int, length: int, mlm: float = 0.15) -> Batch:
    """Return `size` pairs of noise: ECGs, texts of `length` tokens of which a share `mlm` is masked, half of the pairs aligned."""
    generator = torch.Generator().manual_seed(0)
    ecg = torch.randn(size, 12, 5000, generator=generator)
    ids = torch.randint(3, 32000, (size, length), generator=generator)
    scored = torch.rand(size, length, generator=generator) < mlm
    rows = torch.arange(size)
    return Batch(
        ecg=mask_leads(ecg, torch.rand(size, 12, generator=generator), 0.5),
        ecg_target=ecg,
        text_ids=torch.where(scored, 32099, ids),
        text_padding=torch.zeros(size, length, dtype=torch.bool),
        mlm_labels=torch.where(scored, ids, IGNORE),
        mask_noise=torch.rand(size, model.ecg_token_count(), generator=generator),
        is_aligned=rows % 2,
        report_id=rows,
        text_report_id=rows,
    )


def our_loss(model: CMELT, batch: Batch, autocast: bool) -> Callable[[], Tensor]:
    """Return a forward pass of ours, in bf16 where `autocast`."""

    def loss() -> Tensor:
        with torch.autocast(batch.ecg.device.type, torch.bfloat16, enabled=autocast):
            return total_loss(model, model(batch), batch, PUBLISHED)[0]

    return loss


def baseline_loss(weights: dict[str, Tensor], t5: dict[str, Any], batch: Batch) -> Callable[[], Tensor]:
    """Return a forward pass of the baseline on `weights` under their published names."""
    config = {"strides": [2] * 4, "conv_pos_groups": 16, "encoder_layers": 8, "encoder_attention_heads": 12, "num_heads": 12}
    config |= {"num_top_layer": 6, "mem_layer": 3, "mem_prob": 0.75, "mem_decoder_num_layers": 4, "mem_decoder_num_heads": 6}
    second = Baseline(weights, config, t5, 16, train=True)

    def loss() -> Tensor:
        second.kept.clear()
        out = second(batch.ecg, batch.text_ids, batch.text_padding, batch.mask_noise)
        return losses(out, batch.mlm_labels, batch.is_aligned)["total"]

    return loss


def training_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return one step: forward, backward, optimiser."""

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def saved_bytes(loss: Callable[[], Tensor], weights: Iterable[Tensor]) -> int:
    """Return how many bytes a forward pass keeps for the backward pass, `weights` excepted, each storage counted once."""
    own = {weight.untyped_storage().data_ptr() for weight in weights}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()  # held until the count is done, so that no storage is used twice
    del value
    return sum(seen.values())


def flops(step: Callable[[], None]) -> float:
    """Return the floating-point operations of one step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def matmul_peak(dtype: torch.dtype, device: str) -> float:
    """Return the FLOP/s of the best of ten square matrix products."""
    size = 2048 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    return max(2 * size**3 / seconds(lambda: a @ a) for _ in range(10))


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(size: int, length: int, rounds: int, compare: bool, compiled: bool, device: str) -> dict[str, float]:
    """Return samples/s, ratios to the baseline, bytes kept for the backward pass and achieved shares of the matmul peak."""
    model = base_model().to(device).train()
    batch = noise_batch(model, size, length).to(device)
    optimizer = adamw(model, OptimSettings())
    forward = {"fp32": our_loss(model, batch, False), "bf16": our_loss(model, batch, True)}
    steps = {name: training_step(loss, optimizer) for name, loss in forward.items()}
    count = flops(steps["fp32"])
    saved = {name: saved_bytes(loss, model.parameters()) for name, loss in forward.items()}
    told = {"batch": float(size), "tokens": float(length), "threads": float(torch.get_num_threads()), "gflop_ours": count / 1e9}
    if compare:
        weights = {name: tensor.to(device).requires_grad_() for name, tensor in published_tensors(model).items()}
        loss = baseline_loss(weights, model.config.text, batch)
        steps["baseline"] = training_step(loss, torch.optim.AdamW(weights.values(), lr=5e-5))
        told["gflop_baseline"] = flops(steps["baseline"]) / 1e9
        saved["baseline"] = saved_bytes(loss, weights.values())
    if compiled:
        model.compile()
        steps["fp32"]()
    steps["bf16"]()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):  # in turn, so that what else the machine does falls on all alike
        for name, step in steps.items():
            times[name].append(seconds(step))
    best = {name: statistics.median(values) for name, values in times.items()}
    peaks = {"fp32": matmul_peak(torch.float32, device), "bf16": matmul_peak(torch.bfloat16, device)}
    for name, value in best.items():
        told |= {f"seconds_{name}": value, f"samples_per_s_{name}": size / value, f"saved_mb_{name}": saved[name] / 1e6}
    for name, peak in peaks.items():
        told |= {f"peak_gflops_{name}": peak / 1e9, f"share_of_peak_{name}": count / best[name] / peak}
        if compare:
            told |= {f"ratio_{name}": best["baseline"] / best[name], f"saved_share_{name}": saved[name] / saved["baseline"]}
    peak_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3
    return told | {"peak_memory_mb": peak_bytes / 1e6}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-baseline", action="store_true", help="time ours alone")
    parser.add_argument("--compile", action="store_true", help="time ours compiled")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    told = measure(arguments.batch, arguments.tokens, arguments.rounds, not arguments.no_baseline, arguments.compile, device)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in told.items()}))
    else:
        print("\n".join(f"{name:24s} {value:12.3f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
