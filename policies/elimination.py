"""One budget for many open problems: those that are solved leave, the others share what is left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from samplewise.policies.base import Evidence, PolicyError, rng
from samplewise.policies.fixed import at_least
from samplewise.policies.votes import Votes

__all__ = ["Elimination", "Spread"]

Spread = Literal["all", "margin", "gap", "entropy", "ucb"]
# Of the open problems, the part that gets samples in a round when the least sure come first.
_PART = 4


@dataclass(frozen=True, slots=True)
class Elimination:
    """Give open problems `each` samples a round; what passed its verifiers leaves.

    With `lead` a problem leaves, too, whose leading answer is ahead by so many votes, with `score`
    one that has a sample with such a score. With spread
    `all` every open problem gets samples, and the last round, which is too small for all, goes to
    problems by chance. With the others each problem gets samples once, then in every round the
    quarter that is least sure: the smallest margin of votes, the smallest gap between the shares of
    the two leading answers, or the highest entropy of the shares. Shares count one vote more, for
    an answer that was not seen, else one sample would make sure. `ucb` is for problems that scores
    decide: the quarter with the highest upper confidence bound on its mean score, so that what has
    shown promise or was hardly looked at goes first; without scores, the fewest draws.
    Source: arXiv:2506.12721, the elimination rule; UCB1 (Auer et al. 2002) for scores in [0, 1].
    Deviation: the spreads only share the first source's names; rounds of a quarter are ours, so
    that problems can be asked at once.
    """

    each: int = 1
    seed: int = 0
    spread: Spread = "all"
    lead: int | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        """Refuse rounds of nothing."""
        at_least("each", self.each, 1)
        if self.spread not in get_args(Spread):
            raise PolicyError(
                f"spread: must be {' or '.join(get_args(Spread))}, got {self.spread!r}"
            )
        if self.lead is not None:
            at_least("lead", self.lead, 1)
        if self.score is not None and not math.isfinite(self.score):
            raise PolicyError(f"score: must be a number, got {self.score}")

    def allocate(self, problems: Mapping[str, Evidence], left: int) -> Mapping[str, int]:
        """Return how many samples each open problem gets next; the sum never exceeds `left`."""
        open_ = {
            id_: evidence
            for id_, evidence in problems.items()
            if evidence.best_passed is None
            and evidence.left_samples > 0
            and not self._won(evidence)
        }
        names = list(open_) if self.spread == "all" else self._least_sure(open_)
        sizes = {id_: min(self.each, open_[id_].left_samples) for id_ in names}
        if sum(sizes.values()) <= left:
            return sizes
        if self.spread == "all":
            rng(self.seed, f"last-{left}").shuffle(names)
        chosen: dict[str, int] = {}
        for id_ in names:
            if size := min(sizes[id_], left):
                chosen[id_] = size
                left -= size
        return chosen

    def _won(self, evidence: Evidence) -> bool:
        if self.lead is not None and evidence.votes.margin >= self.lead:
            return True
        return self.score is not None and max(_scores(evidence), default=-math.inf) >= self.score

    def _least_sure(self, open_: Mapping[str, Evidence]) -> list[str]:
        """Return who gets samples, the least sure first; of equals the one with fewer draws."""
        # Lines that keep failing stay new: they must not hold up the others.
        new = [id_ for id_, evidence in open_.items() if not evidence.drawn]
        known = [id_ for id_, evidence in open_.items() if evidence.drawn]
        drawn = sum(evidence.drawn for evidence in open_.values())
        known.sort(key=lambda id_: (self._sure(open_[id_], drawn), open_[id_].drawn))
        return new + known[: math.ceil(len(known) / _PART)]

    def _sure(self, evidence: Evidence, drawn: int) -> float:
        """Return a number that is higher for problems that can wait; `drawn` are those of all."""
        if self.spread == "ucb":
            scores = _scores(evidence)
            mean = sum(scores) / len(scores) if scores else 0.0
            return -mean - math.sqrt(2 * math.log(drawn) / evidence.drawn)
        return self._sure_of_votes(evidence.votes)

    def _sure_of_votes(self, votes: Votes) -> float:
        if self.spread == "margin":
            return votes.margin
        total = votes.total + 1
        if self.spread == "gap":
            return (votes.lead - max(votes.second, 1)) / total if votes.lead else 0.0
        shares = [1 / total, *(found.count / total for found in votes.classes.values())]
        return sum(share * math.log(share) for share in shares)


def _scores(evidence: Evidence) -> list[float]:
    found = (judgement.score() for judgement in evidence.judgements.values())
    return [score for score in found if score is not None]
