"""Measure one full-size training step against the straightforward baseline: ``python -m tests.benchmarks.step [--json]``.

Both have the published sizes, a random Flan-T5-base text encoder, dropout on, and take forward, backward and an AdamW step. The
baseline (tests/benchmarks/baseline.py) is fp32; ours is timed in fp32 and in bf16 autocast. Runs are interleaved, medians told.
On a machine with a GPU all of it runs there.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmelt.config import ModelSettings, ObjectiveSettings, OptimSettings
from cmelt.models.batch import Batch
from cmelt.models.cmelt import CMELT, ModelConfig
from cmelt.models.published import published_tensors
from cmelt.models.text_encoder import resolve_sizes
from cmelt.objectives import total_loss
from cmelt.rates import noise_batch
from cmelt.training.optim import adamw
from tests.benchmarks.baseline import Baseline, losses
from tests.benchmarks.results import options, peak_mb, tell

PUBLISHED = ObjectiveSettings(mem_target="input", ets_target="diagonal")


def base_model() -> CMELT:
    """Return the full-size model with random weights; it has no tokenizer, and none is needed."""
    settings = ModelSettings.model_validate({"text_init": "random"})
    config = ModelConfig(**settings.model_dump(), fs_hz=500.0, samples=5000, text=resolve_sizes(settings))
    torch.manual_seed(0)
    return CMELT(config)


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


@dataclass
class Step:
    """One training step: forward, backward, optimiser."""

    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    weights: list[Tensor]

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


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
    """Return the floating-point operations of one step, forward and backward, in matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def convolution_backward(gradient: Any, x: Any, weight: Any, *others: Any, out_shape: Any) -> int:
        # PyTorch's own formula forgets the groups in the gradient of the weight.
        wanted = sum(map(bool, others[-1][:2]))
        return int(wanted * 2 * math.prod(gradient) * math.prod(weight[1:]))

    def attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    aten = torch.ops.aten
    known = {
        aten.convolution_backward: convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
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


def training_steps(names: Sequence[str], size: int, length: int, device: str, compiled: bool = False) -> dict[str, Step]:
    """Return the steps called `names`, of fp32, bf16 (ours) and baseline, with random weights."""
    model = base_model().to(device).train()
    batch = noise_batch(model, size, length).to(device)
    made: dict[str, Step] = {}
    if "baseline" in names:
        weights = {name: tensor.to(device).requires_grad_() for name, tensor in published_tensors(model).items()}
        loss = baseline_loss(weights, model.config.text, batch)
        made["baseline"] = Step(loss, torch.optim.AdamW(weights.values(), lr=5e-5), list(weights.values()))
    if compiled:
        model.compile()
    optimizer = adamw(model, OptimSettings())
    for name in set(names) & {"fp32", "bf16"}:
        made[name] = Step(our_loss(model, batch, name == "bf16"), optimizer, list(model.parameters()))
    return {name: made[name] for name in names}


def measure(size: int, length: int, rounds: int, compare: bool, compiled: bool, device: str) -> dict[str, float]:
    """Return samples/s, ratios to the baseline, bytes kept for the backward pass and achieved shares of the matmul peak."""
    steps = training_steps(["fp32", "bf16", *(["baseline"] if compare else [])], size, length, device, compiled)
    told = {"batch": float(size), "tokens": float(length), "threads": float(torch.get_num_threads())}
    for name, step in steps.items():
        step()  # the first makes the optimiser's state, and is no measure
        told[f"saved_mb_{name}"] = saved_bytes(step.loss, step.weights) / 1e6
    told |= {f"gflop_{name}": flops(steps[name]) / 1e9 for name in steps if name != "bf16" and not compiled}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):  # in turn, so that what else the machine does falls on all alike
        for name, step in steps.items():
            times[name].append(seconds(step))
    for name, values in times.items():
        median = statistics.median(values)
        told |= {f"seconds_{name}": median, f"samples_per_s_{name}": size / median}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        peak = matmul_peak(kind, device)
        told[f"peak_gflops_{name}"] = peak / 1e9
        if not compiled:
            told[f"mfu_{name}"] = told["gflop_fp32"] * 1e9 / told[f"seconds_{name}"] / peak  # of the measured peak, not the data sheet's
        if compare:
            told[f"ratio_{name}"] = told["seconds_baseline"] / told[f"seconds_{name}"]
            told[f"saved_share_{name}"] = told[f"saved_mb_{name}"] / told["saved_mb_baseline"]
    for name in steps:
        told[f"peak_memory_mb_{name}"] = float(in_its_own_process(["--peak", name, "--batch", str(size), "--tokens", str(length)]))
    return told


def in_its_own_process(arguments: Sequence[str]) -> str:
    """Return what this benchmark prints with `arguments`, alone in a new process: a peak of memory is a whole process's."""
    command = [sys.executable, "-m", "tests.benchmarks.step", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def peak_memory(name: str, size: int, length: int, device: str) -> float:
    """Return the most memory, in MB, that two steps take: of the GPU, or of the process."""
    (step,) = training_steps([name], size, length, device).values()
    step()
    step()
    return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak_mb()


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-baseline", action="store_true", help="time ours alone")
    parser.add_argument("--compile", action="store_true", help="time ours compiled")
    parser.add_argument("--peak", choices=["fp32", "bf16", "baseline"], help="print the peak memory of one kind of step, and nothing else")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.peak:
        print(peak_memory(arguments.peak, arguments.batch, arguments.tokens, device))
        return
    told = measure(arguments.batch, arguments.tokens, arguments.rounds, not arguments.no_baseline, arguments.compile, device)
    told = {name: round(value, 4) for name, value in told.items()}
    tell("step" if device == "cpu" else f"step-{device}", told, arguments)


if __name__ == "__main__":
    main()
