"""The leader is probably the most frequent of the five leading answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nlargest

from samplewise.policies.rules.dominance import Dominance
from samplewise.policies.votes import Votes

__all__ = ["Dirichlet"]

_ANSWERS = 5


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Stop when P(p1 > all others) reaches `confidence`, for runs of at most `cap` samples.

    Uniform prior over the five leading answers; a run with one answer has a second with no votes.
    Source: Aggarwal et al. 2023, arXiv:2305.11860, sec. 3 (Dirichlet stopping criterion).
    Deviation: by quadrature, where the source draws random numbers.
    """

    confidence: float
    cap: int
    _dominance: Dominance = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the tables."""
        object.__setattr__(self, "_dominance", Dominance(self.cap + 1))

    @property
    def whole(self) -> bool:
        """Up to five counts are read."""
        return True

    def met(self, votes: Votes) -> bool:
        """Say whether the posterior is high enough."""
        return votes.lead > votes.second and self._posterior(votes) >= self.confidence

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the posterior, which is no promise about being right, and the threshold."""
        return {"posterior": self._posterior(votes), "threshold": self.confidence}

    def _posterior(self, votes: Votes) -> float:
        counts = nlargest(_ANSWERS, (voted.count for voted in votes.classes.values()))
        counts += [0] * (2 - len(counts))
        return self._dominance.leads([count + 1 for count in counts])
