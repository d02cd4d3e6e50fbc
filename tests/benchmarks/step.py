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
from collections.abc import Callable

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


def our_step(model: CMELT, batch: Batch, autocast: bool) -> Callable[[], None]:
    """Return one training step of ours."""
    optimizer = adamw(model, OptimSettings())
    device = batch.ecg.device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss, _ = total_loss(model, model(batch), batch, PUBLISHED)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def baseline_step(model: CMELT, batch: Batch) -> Callable[[], None]:
    """Return one training step of the baseline, on copies of the model's weights."""
    config = {"strides": [2] * 4, "conv_pos_groups": 16, "encoder_layers": 8, "encoder_attention_heads": 12, "num_heads": 12}
    config |= {"num_top_layer": 6, "mem_layer": 3, "mem_prob": 0.75, "mem_decoder_num_layers": 4, "mem_decoder_num_heads": 6}
    weights = {name: tensor.requires_grad_() for name, tensor in published_tensors(model).items()}
    second = Baseline(weights, config, model.config.text, 16, train=True)
    optimizer = torch.optim.AdamW(weights.values(), lr=5e-5)

    def step() -> None:
        second.kept.clear()
        out = second(batch.ecg, batch.text_ids, batch.text_padding, batch.mask_noise)
        losses(out, batch.mlm_labels, batch.is_aligned)["total"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def saved_bytes(step: Callable[[], None], parameters: set[int]) -> int:
    """Return how many bytes one step keeps for its backward pass, parameters excepted, each storage counted once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(seen.values())


def flops(step: Callable[[], None]) -> float:
    """Return the floating-point operations of one step, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def matmul_peak(dtype: torch.dtype, device: str, size: int = 2048) -> float:
    """Return the FLOP/s of the best of ten square matrix products."""
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


def measure(size: int, length: int, rounds: int, compare: bool, device: str) -> dict[str, float]:
    """Return samples/s, ratios to the baseline, saved bytes and achieved shares of the matmul peak."""
    model = base_model().to(device).train()
    batch = noise_batch(model, size, length).to(device)
    steps = {"fp32": our_step(model, batch, False), "bf16": our_step(model, batch, True)}
    if compare:
        steps = {"baseline": baseline_step(model, batch), **steps}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    best = {name: statistics.median(values) for name, values in times.items()}
    told: dict[str, float] = {"batch": size, "tokens": length, "threads": torch.get_num_threads()}
    told |= {f"samples_per_s_{name}": size / value for name, value in best.items()}
    told |= {f"seconds_{name}": value for name, value in best.items()}
    if device == "cpu":
        peaks = {"fp32": matmul_peak(torch.float32, device), "bf16": matmul_peak(torch.bfloat16, device)}
        count = flops(steps["fp32"])
        told |= {"gflop_ours": count / 1e9, "peak_gflops_fp32": peaks["fp32"] / 1e9, "peak_gflops_bf16": peaks["bf16"] / 1e9}
        told |= {f"share_of_peak_{name}": count / best[name] / peaks[name] for name in peaks}
        parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        told |= {f"saved_mb_{name}": saved_bytes(steps[name], parameters) / 1e6 for name in ("fp32", "bf16")}
        told["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    else:
        told["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    if compare:
        told |= {f"ratio_{name}": best["baseline"] / best[name] for name in ("fp32", "bf16")}
        if device == "cpu":
            told["gflop_baseline"] = flops(steps["baseline"]) / 1e9
            told["saved_mb_baseline"] = saved_bytes(steps["baseline"], set()) / 1e6
            told["saved_share_fp32"] = told["saved_mb_fp32"] / told["saved_mb_baseline"]
    return told


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-baseline", action="store_true", help="time ours alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    told = measure(arguments.batch, arguments.tokens, arguments.rounds, not arguments.no_baseline, device)
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in told.items()}))
    else:
        print("\n".join(f"{name:24s} {value:12.3f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
