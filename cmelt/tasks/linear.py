"""Linear classifiers on frozen features: every class in one batched fit, along a path of regularisation.

Letters: N recordings, F features, r = rank ≤ min(N, F), C classes, G strengths, K columns, one separate function of P numbers each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STRENGTHS: dict[str, tuple[float, ...]] = {
    "logistic": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "ridge": (1e5, 1e4, 1e3, 1e2, 1e1, 1e0),
}
"""What validation chooses from, strong first: C of the logistic loss (scikit-learn's: smaller = stronger), alpha of ridge."""


def fit(x: Floats, truth: NDArray[np.bool_], strengths: Sequence[float], loss: str = "logistic") -> tuple[Floats, Floats]:
    """Fit a classifier for each strength and class; returns weights (G, F, C) and biases (G, C), as `path` yields them."""
    weights, biases = zip(*path(x, truth, strengths, loss), strict=True)
    return np.stack(weights), np.stack(biases)


def path(x: Floats, truth: NDArray[np.bool_], strengths: Sequence[float], loss: str = "logistic") -> Iterator[tuple[Floats, Floats]]:
    """Yield for each strength, in the order given, weights (F, C) and biases (C,) fitted to standardised `x` (N, F) and `truth` (N, C).

    The bias is not penalised. A class without positives or negatives in the draw gets weights and bias 0: it cannot be learnt, and all
    its scores are equal. Each logistic fit starts from the last, so strengths are best given from strong to weak.
    """
    known = truth.any(0) & ~truth.all(0)
    z, basis, power = _principal(x)
    solve: Callable[[Floats, Floats, NDArray[np.bool_], Sequence[float]], Iterator[Floats]] = {"logistic": _logistic, "ridge": _ridge}[loss]
    mean = x.mean(0)
    for found in solve(z, power, truth[:, known], strengths):
        w = np.zeros((z.shape[1] + 1, truth.shape[1]))
        w[:, known] = found
        weights = basis @ w[:-1]  # (F, r) @ (r, C)
        yield weights, w[-1] - mean @ weights


def _principal(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Return `x` (N, F), centred, in principal coordinates: (N, r), their basis (F, r), and the sum of squares of each (r,).

    An L2 penalty does not mind the rotation, N < F costs no more than N, and the Hessian is all but diagonal.
    """
    x = x - x.mean(0)
    if len(x) < x.shape[1]:
        power, left = np.linalg.eigh(x @ x.T)
    else:
        power, left = np.linalg.eigh(x.T @ x)
    kept = power > max(power[-1], 1e-12) * 1e-10
    power, left = power[kept], left[:, kept]
    basis = left if len(x) >= x.shape[1] else x.T @ left / np.sqrt(power)
    return x @ basis, basis, power


def _ridge(z: Floats, power: Floats, truth: NDArray[np.bool_], strengths: Sequence[float]) -> Iterator[Floats]:
    """Solve ridge regression on ±1 targets in principal coordinates; yields (r + 1, C) for each strength, the bias last."""
    target = 2.0 * truth - 1
    moment, mean = z.T @ target, target.mean(0)
    for alpha in strengths:
        yield np.vstack([moment / (power[:, None] + alpha), mean])


def _logistic(z: Floats, power: Floats, truth: NDArray[np.bool_], strengths: Sequence[float]) -> Iterator[Floats]:
    """Minimise C · Σ log-loss + ½‖w‖² for each class; yields (r + 1, C) for each strength, the bias last.

    All classes share each matrix product of an L-BFGS that begins with the diagonal of the Hessian at the base rate.
    """
    target = truth.astype(float)  # (N, C)
    rate = target.mean(0)
    z = np.column_stack([z, np.ones(len(z))])
    penalty = np.append(np.ones(len(power)), 0.0)[:, None]  # (r + 1, 1)
    w = np.zeros((len(penalty), truth.shape[1]))
    w[-1] = np.log(rate / (1 - rate))

    def value_and_slope(w: Floats, columns: NDArray[np.intp], cost: float) -> tuple[Floats, Floats]:
        logit = z @ w
        small = np.exp(-np.abs(logit))
        chance = np.where(logit >= 0, 1.0, small) / (1 + small)
        loss = (np.log1p(small) + np.maximum(logit, 0) - target[:, columns] * logit).sum(0)
        slope = cost * (z.T @ (chance - target[:, columns])) + penalty * w
        return cost * loss + 0.5 * (penalty * w * w).sum(0), slope

    for cost in strengths:
        curve = cost * rate * (1 - rate) * np.append(power, len(z))[:, None] + penalty  # (r + 1, C)
        w = minimise(partial(value_and_slope, cost=cost), w, curve)
        yield w


def minimise(
    value_and_slope: Callable[[Floats, NDArray[np.intp]], tuple[Floats, Floats]],
    start: Floats,
    curve: Floats,
    tolerance: float = 1e-8,
    steps: int = 300,
    memory: int = 8,
) -> Floats:
    """Minimise K separate strictly convex functions at once by L-BFGS with backtracking; returns the (P, K) minimisers.

    `value_and_slope(w (P, k), columns (k,))` gives values (k,) and gradients (P, k) of the named columns; `curve` (P, K) is a guess of the
    Hessian's diagonal. A column is done when the fall still to be had, ½ gᵀH⁻¹g, is under `tolerance` of its value.
    """
    out = start.copy()
    live = np.arange(start.shape[1])
    w = start.copy()
    value, slope = value_and_slope(w, live)
    moves: list[tuple[Floats, Floats, Floats]] = []  # (s, y, 1 / sᵀy), newest last
    for _ in range(steps):
        todo = (slope * slope / curve).sum(0) / 2 > tolerance * np.maximum(value, 1e-12)
        if not todo.all():
            out[:, live[~todo]] = w[:, ~todo]
            live, w, value, slope, curve = live[todo], w[:, todo], value[todo], slope[:, todo], curve[:, todo]
            moves = [(s[:, todo], y[:, todo], rho[todo]) for s, y, rho in moves]
        if not len(live):
            return out
        direction = -_two_loops(slope, curve, moves)
        fall = (direction * slope).sum(0)
        step = np.ones(len(live))
        pending = np.arange(len(live))
        new_w, new_value, new_slope = w + direction, value.copy(), slope.copy()
        while len(pending):
            new_w[:, pending] = w[:, pending] + step[pending] * direction[:, pending]
            new_value[pending], new_slope[:, pending] = value_and_slope(new_w[:, pending], live[pending])
            short = new_value[pending] > value[pending] + 1e-4 * step[pending] * fall[pending] + 1e-13 * np.abs(value[pending])
            pending = pending[short & (step[pending] > 1e-8)]
            step[pending] *= 0.5
        s, y = new_w - w, new_slope - slope
        product = (s * y).sum(0)
        usable = product > 1e-300
        moves = [*moves[-memory + 1 :], (s, y, np.divide(1.0, product, out=np.zeros_like(product), where=usable))]
        w, value, slope = new_w, new_value, new_slope
    out[:, live] = w
    return out


def _two_loops(slope: Floats, curve: Floats, moves: list[tuple[Floats, Floats, Floats]]) -> Floats:
    """Return H⁻¹ · slope by the L-BFGS recursion, column by column, from the diagonal `curve` and the last moves."""
    q = slope.copy()
    steps = []
    for s, y, rho in reversed(moves):
        a = rho * (s * q).sum(0)
        q -= a * y
        steps.append(a)
    q /= curve
    for (s, y, rho), a in zip(moves, reversed(steps), strict=True):
        q += (a - rho * (y * q).sum(0)) * s
    return q
