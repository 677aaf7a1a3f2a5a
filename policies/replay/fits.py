"""Two laws fitted to coverage: the distribution of difficulty, which forecasts, and a power law."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.replay.curve import Counts

__all__ = ["BetaFit", "PowerLaw", "fit_beta", "fit_power_law"]

_Point = NDArray[np.float64]
_HIGHEST = 0.9


@dataclass(frozen=True, slots=True)
class BetaFit:
    """Per-problem chances of a right sample follow Beta(alpha, beta).

    Source: arXiv:2502.17578, sec. 4 (forecast of coverage from the distribution of difficulty).
    """

    alpha: float
    beta: float

    def coverage(self, k: float) -> float:
        """Return the expected share of problems that k samples solve: 1 - B(a, b+k) / B(a, b)."""
        log = math.lgamma(self.beta + k) - math.lgamma(self.alpha + self.beta + k)
        return 1 - math.exp(log - math.lgamma(self.beta) + math.lgamma(self.alpha + self.beta))


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Coverage c = exp(a k^b) with a, b < 0: natural logarithm. `error`: mean absolute deviation.

    Source: Brown et al. 2024, arXiv:2407.21787, app. C.1.
    """

    a: float
    b: float
    error: float

    def coverage(self, k: float) -> float:
        """Return the coverage at k."""
        return math.exp(self.a * k**self.b)


def fit_beta(counts: Counts) -> BetaFit | None:
    """Fit alpha and beta by maximum likelihood of the counts; None if all or none are right."""
    right, wrong = counts.right.astype(float), (counts.samples - counts.right).astype(float)
    if not right.any() or not wrong.any():
        return None

    def loss(log: _Point) -> float:
        alpha, beta = np.exp(log)
        each = (
            _lgamma(right + alpha) + _lgamma(wrong + beta) - _lgamma(right + wrong + alpha + beta)
        )
        one = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
        return -float(each.sum() + one * len(right))

    # Between a millionth and a million: problems that are all alike have no finite maximum.
    log = _minimum(loss, np.zeros(2), low=-13.8, high=13.8)
    return BetaFit(float(np.exp(log[0])), float(np.exp(log[1])))


def fit_power_law(points: Sequence[tuple[int, float]]) -> PowerLaw | None:
    """Fit by least squares on the coverage itself; None without three points between 0 and 90 %.

    `log_spaced` gives the points their even weight. From 90 % on they are left out: a curve that is
    nearly full says nothing about the exponent.
    """
    kept = [(k, value) for k, value in points if 0 < value < _HIGHEST]
    if len(kept) < 3:
        return None
    k = np.array([point[0] for point in kept], float)
    value = np.array([point[1] for point in kept])

    def loss(logs: _Point) -> float:
        a, b = -np.exp(logs)
        return float(((np.exp(a * k**b) - value) ** 2).sum())

    start = np.log([max(-math.log(value[0]), 1e-3), 0.3])
    logs = _minimum(loss, start, low=-12.0, high=6.0)
    a, b = -np.exp(logs)
    error = float(np.abs(np.exp(a * k**b) - value).mean())
    return PowerLaw(float(a), float(b), error)


def _lgamma(values: _Point) -> _Point:
    return np.fromiter(map(math.lgamma, values), float, len(values))


def _minimum(loss: Callable[[_Point], float], start: _Point, *, low: float, high: float) -> _Point:
    """Return where a smooth function of two numbers is least, inside bounds.

    Source: Nelder and Mead 1965. Here, because scipy would weigh more than all the rest.
    """

    def held(point: _Point) -> _Point:
        return np.clip(point, low, high)

    corners = [held(start), *(held(start + step) for step in 0.5 * np.eye(2))]
    losses = [loss(corner) for corner in corners]
    for _ in range(500):
        order = np.argsort(losses)
        corners, losses = [corners[i] for i in order], [losses[i] for i in order]
        if max(float(np.abs(corner - corners[0]).max()) for corner in corners) < 1e-10:
            break
        middle = (corners[0] + corners[1]) / 2
        for reach in (2.0, 1.0, -0.5):
            tried = held(middle + reach * (middle - corners[2]))
            bar = losses[0] if reach == 2.0 else losses[1] if reach == 1.0 else losses[2]
            if (value := loss(tried)) < bar:
                corners[2], losses[2] = tried, value
                break
        else:
            corners = [corners[0], *((corner + corners[0]) / 2 for corner in corners[1:])]
            losses = [losses[0], *(loss(corner) for corner in corners[1:])]
    return corners[int(np.argmin(losses))]
