"""The chance that one share of a Dirichlet distribution is the largest, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dominance"]

_STEP = 0.05
_LOWEST, _HIGHEST = -16.0, 6.5


@dataclass(frozen=True, slots=True)
class Dominance:
    """P(X1 > all others) for X ~ Dirichlet(whole numbers, and one `odd` shape if given).

    Shares are independent gamma variables divided by their sum, so the chance is one integral of
    the leader's density times the others' distribution functions. The trapezoid rule on the
    logarithm of the variable is exact to about 1e-10 for shapes up to 300. Tables of at most
    `largest` shapes are made once.
    """

    largest: int
    odd: float | None = None
    _weights: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _below: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    _odd_below: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Tabulate densities (with the step of the rule) and distribution functions."""
        log_x = np.arange(_LOWEST, _HIGHEST, _STEP)
        x = np.exp(log_x)
        density = [np.exp(k * log_x - x - math.lgamma(k)) for k in range(1, self.largest + 1)]
        # P(Gamma(k + 1) <= x) = P(Gamma(k) <= x) - x^k e^-x / k!
        below = [-np.expm1(-x)]
        for k in range(1, self.largest):
            below.append(below[-1] - np.exp(k * log_x - x - math.lgamma(k + 1)))
        odd = np.ones_like(x) if self.odd is None else _gamma_below(self.odd, x)
        object.__setattr__(self, "_weights", np.array(density) * _STEP)
        object.__setattr__(self, "_below", np.clip(np.array(below), 0.0, 1.0))
        object.__setattr__(self, "_odd_below", odd)

    def leads(self, shapes: Sequence[int]) -> float:
        """Return the chance that the first share is the largest. Shapes are 1 to `largest`."""
        chance = self._weights[shapes[0] - 1] * self._odd_below
        for shape in shapes[1:]:
            chance = chance * self._below[shape - 1]
        return float(chance.sum())


def _gamma_below(shape: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return P(Gamma(shape) <= x) for a shape below 1, by its series (x up to some 30, then 1)."""
    near = np.minimum(x, 30.0)
    term = np.full_like(near, 1 / shape)
    total = term.copy()
    for k in range(1, 200):
        term = term * near / (shape + k)
        total += term
    log = shape * np.log(near) - near - math.lgamma(shape)
    return np.where(x > 30.0, 1.0, np.minimum(total * np.exp(log), 1.0))
