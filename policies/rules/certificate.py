"""A proof, valid whenever one looks, that the leader is the model's most frequent answer."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from samplewise.policies.rules.beta import beta_confidence
from samplewise.policies.votes import Votes

__all__ = ["Certificate", "evidence_value"]


def evidence_value(ahead: int, behind: int) -> float:
    """Return the e-value of `ahead` votes against `behind`, if the first were not more frequent.

    The mean of the wealth (2q)^ahead (2(1-q))^behind over uniform bets q in (1/2, 1]. While the
    first answer is not the more frequent one, its expectation is at most 1 at any stopping time.
    """
    n = ahead + behind
    log = (n + 1) * math.log(2) + math.lgamma(ahead + 1) + math.lgamma(behind + 1)
    return math.exp(log - math.lgamma(n + 2)) * beta_confidence(ahead, behind)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Stop when the leader is certified as the mode with error at most 1 - `confidence`.

    An intersection-union test: the leader must be shown more frequent than every other answer; the
    runner-up is the hardest to beat, and answers not seen yet are beaten with it. Nothing is
    assumed about how many answers there are. The test holds for an answer named beforehand, so the
    j-th answer to appear is tested on the votes after its first one, at the error
    (1 - confidence) / 2^j; these sum to 1 - confidence. It speaks of the mode, not of being right,
    and only for votes that are counted in launch order.
    Source: the construction of CITE, arXiv:2605.05873 (from its abstract); naming the answer by the
    votes is our addition.
    """

    confidence: float

    @property
    def whole(self) -> bool:
        """The order of votes is read."""
        return True

    def met(self, votes: Votes) -> bool:
        """Say whether the leader is certified."""
        leader = votes.leader
        if leader is None or votes.lead <= votes.second:
            return False
        threshold = self._threshold(votes)
        # The votes after the first can only be fewer: most looks end here.
        return evidence_value(votes.lead - 1, 0) >= threshold and self.value(votes) >= threshold

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the leader's e-value and what it must reach."""
        if votes.leader is None:
            return {}
        return {"e_value": self.value(votes), "threshold": self._threshold(votes)}

    def value(self, votes: Votes) -> float:
        """Return the e-value of the leader against its hardest rival, after its first vote."""
        if votes.leader is None:
            return 0.0
        answer = votes.leader.answer
        later = Counter(votes.order[votes.order.index(answer) + 1 :])
        ahead = later.pop(answer, 0)
        later.pop("", None)  # samples without an answer
        return evidence_value(ahead, max(later.values(), default=0))

    def _threshold(self, votes: Votes) -> float:
        assert votes.leader is not None
        appeared = list(votes.classes).index(votes.leader.answer) + 1
        return float(2**appeared) / (1 - self.confidence)
