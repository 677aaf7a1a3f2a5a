"""What a replay came to, as numbers with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.price import usd
from samplewise.policies.replay.fast import Played
from samplewise.policies.replay.fixed import Fixed
from samplewise.policies.replay.run import Run

__all__ = ["Estimate", "Match", "Summary", "estimate", "frontier", "played", "summarise"]

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval, from resampling the problems."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Match:
    """The least n whose one call is at least as accurate as the policy, and its price."""

    n: int
    usd: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A policy over all problems and passes; figures are per problem, shares between 0 and 1.

    `coverage`: a right sample was among those that ended. `difference` is accuracy minus that of
    the baseline on the same orders, `baseline_usd` the price of that. `usd` is by call for policies
    that may cut samples, for others by wave, as the proxy sends them. `match` is None when no n up
    to the baseline's is as accurate.
    """

    name: str
    accuracy: Estimate
    difference: Estimate
    samples: float
    waves: float
    tokens: float
    usd: float
    usd_by_call: float
    usd_by_wave: float
    seconds: float
    coverage: float
    usd_per_solved: float | None
    baseline_n: int
    baseline_usd: float
    baseline_seconds: float
    match: Match | None

    @property
    def gap(self) -> float:
        """Coverage minus accuracy: what a better choice among the same samples could gain."""
        return self.coverage - self.accuracy.value

    @property
    def share(self) -> float:
        """Dollars against the baseline's."""
        return self.usd / self.baseline_usd if self.baseline_usd else float("nan")


def played(runs: Sequence[Run]) -> Played:
    """Return runs, problem by problem and pass by pass, as arrays."""
    return Played(
        chosen=np.array([-1 if run.chosen is None else run.chosen for run in runs]),
        right=np.array([run.right for run in runs]),
        covered=np.array([run.covered for run in runs]),
        samples=np.array([run.samples for run in runs]),
        waves=np.array([run.waves for run in runs]),
        tokens=np.array([run.tokens for run in runs]),
        nano_by_call=np.array([run.nano_by_call for run in runs]),
        nano_by_wave=np.array([run.nano_by_wave for run in runs]),
        seconds=np.array([run.seconds for run in runs]),
    )


def estimate(by_problem: NDArray[np.float64]) -> Estimate:
    """Return the mean over problems with its interval; `by_problem` has one entry a problem."""
    n = len(by_problem)
    # Counts of each problem in a resample, so that memory stays small for many problems.
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    low, high = np.quantile(weights @ by_problem / n, [0.025, 0.975])
    return Estimate(float(by_problem.mean()), float(low), float(high))


def summarise(
    name: str, found: Played, fixed: Fixed, n: int, passes: int, *, cuts: bool
) -> Summary:
    """Sum up one policy; `n` is the baseline's number of samples, a column of `fixed`.

    `cuts` says whether the policy may cut samples, which takes one call for each.
    """
    right = found.right.reshape(-1, passes)
    base = fixed.right[:, n - 1].reshape(-1, passes)
    accuracy = estimate(right.mean(1))
    by_call = usd(1) * float(found.nano_by_call.mean())
    by_wave = usd(1) * float(found.nano_by_wave.mean())
    paid = by_call if cuts else by_wave
    curve = fixed.right[:, :n].mean(0)
    enough = np.flatnonzero(curve >= accuracy.value - 1e-12)
    match = None
    if len(enough):
        least = int(enough[0])
        match = Match(least + 1, usd(1) * float(fixed.nano[:, least].mean()))
    return Summary(
        name=name,
        accuracy=accuracy,
        difference=estimate(right.mean(1) - base.mean(1)),
        samples=float(found.samples.mean()),
        waves=float(found.waves.mean()),
        tokens=float(found.tokens.mean()),
        usd=paid,
        usd_by_call=by_call,
        usd_by_wave=by_wave,
        seconds=float(found.seconds.mean()),
        coverage=float(found.covered.mean()),
        usd_per_solved=paid / accuracy.value if accuracy.value else None,
        baseline_n=n,
        baseline_usd=usd(1) * float(fixed.nano[:, n - 1].mean()),
        baseline_seconds=float(fixed.seconds[:, n - 1].mean()),
        match=match,
    )


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which (cost, accuracy) points no other beats in both, cheapest first."""
    best, kept = float("-inf"), []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[place][1] > best:
            best = points[place][1]
            kept.append(place)
    return kept
