"""How many attempts are worth it when the verifier can be wrong.

A pass is accepted at the first attempt that gets one. With one accuracy for all problems each
attempt is worth the same and the best number is 0 or without end; only the spread of accuracy over
problems, as `samplewise curve` fits it, makes it finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Class", "Stakes", "best_attempts", "reward"]


@dataclass(frozen=True, slots=True)
class Class:
    """A share of all problems whose samples are right with the same chance; both in [0, 1]."""

    share: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Stakes:
    """What outcomes are worth where a right answer is worth 1.

    `completeness`: the share of right answers that pass, `soundness`: of wrong ones that fail.
    `wrong`: value of a wrong answer accepted (0 or less), `none`: of no answer, `attempt`: price of
    one attempt in the same unit.
    """

    completeness: float
    soundness: float
    wrong: float
    none: float
    attempt: float


def reward(classes: Sequence[Class], stakes: Stakes, attempts: int) -> float:
    """Return the expected value of accepting the first pass among so many attempts.

    Source: Stroebl et al. 2024, arXiv:2411.17501, sec. 4; the price of an attempt is added.
    """
    return _rewards(classes, stakes, attempts)[attempts]


def best_attempts(classes: Sequence[Class], stakes: Stakes, cap: int) -> tuple[int, float]:
    """Return the number of attempts, at most `cap`, with the highest reward, and that reward."""
    rewards = _rewards(classes, stakes, cap)
    best = max(range(cap + 1), key=rewards.__getitem__)
    return best, rewards[best]


def _rewards(classes: Sequence[Class], stakes: Stakes, cap: int) -> list[float]:
    """Return the reward of 0, 1, ... `cap` attempts."""
    totals = [0.0] * (cap + 1)
    for each in classes:
        right, wrong = each.accuracy, 1 - each.accuracy
        accepted = stakes.completeness * right + (1 - stakes.soundness) * wrong
        gain = stakes.completeness * right + stakes.wrong * (1 - stakes.soundness) * wrong
        total, open_ = 0.0, 1.0
        for attempts in range(cap + 1):
            totals[attempts] += each.share * (total + open_ * stakes.none)
            total += open_ * (gain - stakes.attempt)
            open_ *= 1 - accepted
    return totals
