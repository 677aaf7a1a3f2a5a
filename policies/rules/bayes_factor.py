"""The votes speak for the leader as the mode, by a Bayes factor."""

from __future__ import annotations

from dataclasses import dataclass, field

from samplewise.policies.rules.dominance import Dominance
from samplewise.policies.votes import Votes

__all__ = ["BayesFactor"]

_UNSEEN = 0.3


@dataclass(frozen=True, slots=True)
class BayesFactor:
    """Stop when the Bayes factor reaches `factor`, for runs of at most `cap` samples.

    s P / (1 - P) with s the number of distinct answers and P the chance that the leader's share is
    the largest under Dirichlet(votes, 0.3 for answers not seen yet). Unanimous runs of 1 to 5 have
    4.3, 14.2, 37.0, 88.8 and 204. Source: arXiv:2509.21091, stopping rule. Deviation: by
    quadrature, where the source draws 1,000 random vectors; counts as they are, as its text has it,
    without the one that its code adds.
    """

    factor: float
    cap: int
    _dominance: Dominance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the tables."""
        object.__setattr__(self, "_dominance", Dominance(self.cap, odd=_UNSEEN))

    @property
    def whole(self) -> bool:
        """All counts are read."""
        return True

    def met(self, votes: Votes) -> bool:
        """Say whether the factor is large enough."""
        return votes.lead > votes.second and self.value(votes) >= self.factor

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the factor and its threshold."""
        return {"bayes_factor": self.value(votes), "threshold": self.factor}

    def value(self, votes: Votes) -> float:
        """Return the Bayes factor for the leader as the mode; 0 without votes."""
        if votes.leader is None:
            return 0.0
        leader = votes.leader
        others = [voted.count for voted in votes.classes.values() if voted is not leader]
        chance = min(self._dominance.leads([votes.lead, *others]), 1 - 1e-12)
        return len(votes.classes) * chance / (1 - chance)
