"""What a loss needs of the other processes of a run: rows joined with their gradients, and counts summed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes among which a batch is divided; one process alone by default. Every rank holds equally many rows."""

    def __init__(self, distributed: bool = False) -> None:
        """Take the default process group where `distributed`, else this process alone."""
        self.distributed = distributed
        self.count = dist.get_world_size() if distributed else 1

    def rows(self, x: Tensor) -> Tensor:
        """Return `x` (B, …) of all ranks joined along axis 0; gradients of every rank's use flow back to the owner, summed."""
        if not self.distributed:
            return x
        return _Joined.apply(x) if x.requires_grad else _gather(x)

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """Return this rank's share of a mean over all ranks: `total` over the summed `count`, times the number of ranks.

        The average over ranks, of the value as of the gradient, is then the mean over the joined batch; 0 where nothing counts.
        """
        count = count.to(total.dtype)
        if self.distributed:
            count = count.clone()
            dist.all_reduce(count)
        return total * self.count / count.clamp(min=1)


def _gather(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Joined(torch.autograd.Function):
    """All-gather whose backward pass sums the ranks' gradients and returns this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]
