"""What a loss needs of the other processes of a run: rows joined with their gradients, and counts summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes among which a batch is divided; one process alone by default."""

    def __init__(self, sizes: Sequence[int] = ()) -> None:
        """Take how many rows each rank of the default process group holds; () = this process alone."""
        self.sizes = tuple(sizes)
        self.count = len(self.sizes) or 1

    def rows(self, x: Tensor) -> Tensor:
        """Return `x` (b, …) of all ranks joined along axis 0, (B, …); gradients of every rank's use flow back to the owner, summed."""
        if not self.sizes:
            return x
        return _Joined.apply(x, self.sizes) if x.requires_grad else _gather(x, self.sizes)

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """Return this rank's share of a mean over all ranks: `total` over the summed `count`, times the number of ranks.

        The average over ranks, of the value as of the gradient, is then the mean over the joined batch; 0 where nothing counts.
        """
        count = count.to(total.dtype)
        if self.sizes:
            count = count.clone()
            dist.all_reduce(count)
        return total * self.count / count.clamp(min=1)


def _gather(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return every rank's rows of `x` (b, …), in the order of ranks; shorter parts travel padded, for gathered parts must be alike."""
    most = max(sizes)
    padded = torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])]).contiguous()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Joined(torch.autograd.Function):
    """All-gather whose backward pass sums the ranks' gradients and returns this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        return _gather(x, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None
