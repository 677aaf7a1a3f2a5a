"""What a route has learnt of its verifiers: how often they are wrong, and what an attempt is worth.

Pure. Source: Stroebl et al. 2024, arXiv:2411.17501, sec. 3. Deviation: the accuracy of a sample is
not one number but differs between requests, else every further attempt would be worth the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["PRIOR_KEY", "Prior", "Tally", "prior_of", "share", "wilson"]

# Under this name it stands in `Evidence.prior`.
PRIOR_KEY = "verdicts"
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Tally:
    """How samples of one kind were judged; `other`: no judgement. Errors are not counted."""

    passed: int = 0
    failed: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """Samples with any verdict but an error."""
        return self.passed + self.failed + self.other


@dataclass(frozen=True, slots=True)
class Prior:
    """Verdicts on samples that were known to be right or wrong, and how often samples are right.

    `accuracy` is a distribution over requests: pairs of the share of right samples, in [0, 1], and
    its weight, which is positive.
    """

    right: Tally
    wrong: Tally
    accuracy: tuple[tuple[float, float], ...]

    @property
    def spread(self) -> bool:
        """Whether requests are known to differ; without it no number of attempts is best."""
        return len(self.accuracy) > 1

    def p_right(self, failed: int) -> float:
        """Return how likely a sample that passes is right, after so many that failed."""
        accept = share(self.right.passed, self.right.total)
        mistake = share(self.wrong.passed, self.wrong.total)
        good = bad = 0.0
        for r, weight in self._after(failed):
            good += weight * r * accept
            bad += weight * (1 - r) * mistake
        return good / (good + bad)

    def gain(self, failed: int, right: float, wrong: float) -> float:
        """Return what one more attempt is worth after so many that failed, before its price.

        `right` is what an accepted right answer is worth, `wrong` what an accepted wrong one costs,
        both beside no answer. Never grows with `failed` while right answers pass more often than
        wrong ones: every fail makes a hard request more likely.
        """
        accept = share(self.right.passed, self.right.total)
        mistake = share(self.wrong.passed, self.wrong.total)
        atoms = self._after(failed)
        total = sum(weight for _, weight in atoms)
        value = sum(w * (r * accept * right - (1 - r) * mistake * wrong) for r, w in atoms)
        return value / total

    def _after(self, failed: int) -> Sequence[tuple[float, float]]:
        """Return the accuracy's distribution given so many fails, its weights not normed."""
        if not failed:
            return self.accuracy
        of_right = share(self.right.failed, self.right.total)
        of_wrong = share(self.wrong.failed, self.wrong.total)
        # As powers of shares of the largest, so that a thousand fails do not come to nothing.
        fails = [r * of_right + (1 - r) * of_wrong for r, _ in self.accuracy]
        most = max(fails)
        return [
            (r, weight * (fail / most) ** failed)
            for (r, weight), fail in zip(self.accuracy, fails, strict=True)
        ]


def prior_of(learnt: Mapping[str, Any]) -> Prior | None:
    """Return what the route has learnt of its verifiers; None when nothing."""
    found = learnt.get(PRIOR_KEY)
    return found if isinstance(found, Prior) else None


def share(count: int, total: int) -> float:
    """Return a share as expected from few trials: its mean under a uniform prior, never 0 or 1."""
    return (count + 1) / (total + 2)


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share. Source: Wilson 1927; (0, 1) without trials."""
    if not total:
        return 0.0, 1.0
    rate, square = count / total, _Z * _Z / total
    middle = rate + square / 2
    half = _Z * math.sqrt(rate * (1 - rate) / total + square / (4 * total))
    # The ends are exact where the formula only comes close.
    low = 0.0 if count == 0 else (middle - half) / (1 + square)
    high = 1.0 if count == total else (middle + half) / (1 + square)
    return low, high
