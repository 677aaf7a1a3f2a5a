"""How results grow with the number of samples: unbiased estimators, from counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samplewise.policies.price import Price
from samplewise.policies.replay.fixed import votes_of
from samplewise.policies.replay.records import Problem, right
from samplewise.policies.replay.summary import Estimate, estimate
from samplewise.policies.replay.table import Table

__all__ = ["Counts", "Curve", "curves", "log_spaced", "pass_all", "pass_at"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Right samples of each problem, and how many it has: two arrays, one entry a problem."""

    right: NDArray[np.int64]
    samples: NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> Counts:
        """Return counts from (right, samples) of each problem."""
        array = np.array(pairs, np.int64).reshape(-1, 2)
        return cls(array[:, 0], array[:, 1])

    @property
    def least(self) -> int:
        """The largest k that every problem has samples for."""
        return int(self.samples.min())


def pass_at(counts: Counts, k: int) -> NDArray[np.float64]:
    """Return for each problem the chance that one of k samples is right, without bias.

    Source: Chen et al. 2021, arXiv:2107.03374, sec. 2.1, for any number of samples per problem.
    """
    return 1.0 - _none(counts.samples - counts.right, counts.samples, k)


def pass_all(counts: Counts, k: int) -> NDArray[np.float64]:
    """Return for each problem the chance that all of k samples are right (pass^k).

    Source: Yao et al. 2024, arXiv:2406.12045, sec. 4 (tau-bench).
    """
    return _none(counts.right, counts.samples, k)


def _none(inside: NDArray[np.int64], all_: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return C(inside, k) / C(all, k): the chance that k drawn without replacement lie inside."""
    chance = np.ones(len(all_))
    for i in range(k):
        chance *= np.maximum(inside - i, 0) / (all_ - i)
    return chance


@dataclass(frozen=True, slots=True)
class Curve:
    """One backend and prompt: counts of right samples, and the curves at some k."""

    name: str
    counts: Counts
    ks: tuple[int, ...]
    any_right: tuple[Estimate, ...]
    all_right: tuple[Estimate, ...]
    majority: tuple[Estimate, ...] | None


def curves(problems: Sequence[Problem], passes: int = 100, seed: int = 0) -> list[Curve]:
    """Return a curve for each backend and variant that every problem has samples of.

    Votes are over `passes` random orders of each problem; all else is exact.
    """
    kinds = sorted(
        {(s.backend, s.variant) for p in problems for s in p.samples if s.source == "fresh"}
    )
    found = [_curve(problems, backend, variant, passes, seed) for backend, variant in kinds]
    return [curve for curve in found if curve is not None]


def _curve(
    problems: Sequence[Problem], backend: str, variant: str, passes: int, seed: int
) -> Curve | None:
    mine = [
        [s for s in p.samples if (s.source, s.backend, s.variant) == ("fresh", backend, variant)]
        for p in problems
    ]
    counts = Counts.of(
        [
            (sum(bool(right(p, s)) for s in samples), len(samples))
            for p, samples in zip(problems, mine, strict=True)
        ]
    )
    if not counts.least:
        return None
    ks = _round_counts(counts.least)
    votes = None
    if any(s.answer is not None for samples in mine for s in samples):
        table = Table.build(
            problems, ks[-1], passes, prices={backend: Price(0, 0, 0)}, backend=backend,
            variant=variant, seed=seed,
        )  # fmt: skip
        by_problem = votes_of(table).right.reshape(len(problems), passes, -1).mean(1)
        votes = tuple(estimate(by_problem[:, k - 1]) for k in ks)
    return Curve(
        name=" ".join(filter(None, (backend, variant))) or "samples",
        counts=counts,
        ks=ks,
        any_right=tuple(estimate(pass_at(counts, k)) for k in ks),
        all_right=tuple(estimate(pass_all(counts, k)) for k in ks),
        majority=votes,
    )


def _round_counts(most: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, ... and `most` itself."""
    steps = [m * 10**p for p in range(6) for m in (1, 2, 5)]
    return (*(k for k in steps if k < most), most)


def log_spaced(most: int, points: int = 40) -> list[int]:
    """Return whole numbers from 1 to `most`, evenly spaced in the logarithm, each once."""
    return sorted({round(float(k)) for k in np.geomspace(1, most, points)})
