"""What the demo measures, as numbers: shares with intervals, coverage, and the table's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from samplewise.models.evaluate import pass_at

__all__ = ["Answered", "Point", "Row", "coverage", "share"]

_NORMAL_95 = 1.959964
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Point:
    """A share between 0 and 1 with its 95 % interval; `samples` is where it stands."""

    samples: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of the proxy as the demo judges it, and its bill."""

    right: bool
    samples: int
    tokens: int
    usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a policy over all problems of a family.

    `failed` are the messages of requests that got no answer.
    """

    family: str
    policy: str
    answers: tuple[Answered, ...]
    failed: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Point:
        """The share of problems that were solved; a request that failed solved nothing."""
        right = sum(answer.right for answer in self.answers)
        return share(right, len(self.answers) + len(self.failed), self.samples)

    @property
    def samples(self) -> float:
        """Samples per answer."""
        return _mean([answer.samples for answer in self.answers])

    @property
    def tokens(self) -> float:
        """Tokens per answer, of prompts and of all samples."""
        return _mean([answer.tokens for answer in self.answers])

    @property
    def usd(self) -> float:
        """Dollars per answer."""
        return _mean([answer.usd for answer in self.answers])

    @property
    def usd_per_solved(self) -> float | None:
        """Dollars per problem solved, all attempts paid; None when nothing was solved."""
        right = sum(answer.right for answer in self.answers)
        return sum(answer.usd for answer in self.answers) / right if right else None

    @property
    def p50_s(self) -> float:
        """Half of the answers took at most this long."""
        return median(answer.seconds for answer in self.answers) if self.answers else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def share(right: int, of: int, samples: float = 1) -> Point:
    """Return a share with its Wilson interval, which is sound for few problems and near 0 or 1."""
    if not of:
        return Point(samples, math.nan, 0.0, 1.0)
    p, z2 = right / of, _NORMAL_95**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _NORMAL_95 / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return Point(samples, p, max(0.0, middle - half), min(1.0, middle + half))


def coverage(right: Sequence[int], drawn: int, counts: Sequence[int]) -> list[Point]:
    """Return the share of problems that so many samples solve, without bias.

    `right`: how many of a problem's `drawn` samples are right, one entry a problem. Intervals are
    from 2,000 resamplings of the problems.
    """
    table = np.array([[pass_at(k, drawn, found) for k in counts] for found in right])
    chosen = np.random.default_rng(0).integers(len(right), size=(_RESAMPLES, len(right)))
    ends = np.quantile(table[chosen].mean(1), [0.025, 0.975], axis=0)
    means = table.mean(0)
    return [
        Point(k, float(means[i]), float(ends[0, i]), float(ends[1, i]))
        for i, k in enumerate(counts)
    ]
