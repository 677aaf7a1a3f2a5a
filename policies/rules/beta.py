"""The leader is probably the more frequent of the two leading answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from samplewise.policies.votes import Votes

__all__ = ["Beta", "beta_confidence", "beta_table"]


def beta_confidence(lead: int, second: int) -> float:
    """Return P(p1 > p2) under a uniform prior on the share of the leader: 1 - I_0.5(v1+1, v2+1).

    It is a statement about two answers under that prior, not a promise about being right.
    Source: Aggarwal et al. 2023, arXiv:2305.11860, sec. 3 (Beta stopping criterion).
    """
    # With whole counts the incomplete beta function is a binomial tail.
    n = lead + second + 1
    term = tail = 1
    for j in range(second):
        term = term * (n - j) // (j + 1)
        tail += term
    return float(1 - Fraction(tail, 2**n))


def beta_table(confidence: float, cap: int) -> tuple[int, ...]:
    """Return, per count of the runner-up, the fewest votes of the leader that stop the run.

    Worked out once, so that a decision is a look-up. Entries end where `cap` votes cannot stop.
    """
    needed: list[int] = []
    lead = 1
    for second in range(cap):
        while lead + second <= cap and beta_confidence(lead, second) < confidence:
            lead += 1
        if lead + second > cap:
            break
        needed.append(lead)
    return tuple(needed)


@dataclass(frozen=True, slots=True)
class Beta:
    """Stop when `beta_confidence` reaches `confidence`, for runs of at most `cap` samples."""

    confidence: float
    cap: int
    _needed: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work the table out."""
        object.__setattr__(self, "_needed", beta_table(self.confidence, self.cap))

    @property
    def whole(self) -> bool:
        """Two counts are enough."""
        return False

    def met(self, votes: Votes) -> bool:
        """Say whether the leader has the votes that the table asks for."""
        return votes.second < len(self._needed) and votes.lead >= self._needed[votes.second]

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the posterior, which is no promise about being right, and the threshold."""
        posterior = beta_confidence(votes.lead, votes.second)
        return {"posterior": posterior, "threshold": self.confidence}
