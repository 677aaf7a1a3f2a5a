"""Self-consistency: the answer that most samples gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import Action, Basis, Evidence, Needs, Stop
from samplewise.policies.fixed import Quorum, at_least, draw_all, why_voted
from samplewise.policies.ranking import by_votes, vote_details

__all__ = ["MajorityVote"]


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """Draw `samples` at once and return the plurality answer.

    Samples without a parsed answer do not vote but cost. A tie goes to the answer whose first
    sample has the lowest draw index. Source: Wang et al. 2022, arXiv:2203.11171, sec. 2.
    """

    samples: int = 8
    min_ok: int = 1
    quorum: Quorum | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no vote."""
        at_least("samples", self.samples, 1)
        at_least("min_ok", self.min_ok, 1)
        if self.quorum is not None:
            self.quorum.check(self.samples, self.min_ok)

    @property
    def needs(self) -> Needs:
        """Answers to vote with."""
        return Needs(
            max_samples=self.samples,
            min_ok=self.min_ok,
            cancel=self.quorum is not None,
            answers=True,
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, count."""
        actions = draw_all(evidence, self.samples, self.quorum)
        if actions:
            return actions
        reason = why_voted(evidence, evidence.votes.lead, self.quorum)
        return [Stop(by_votes(evidence), reason, Basis.VOTES, vote_details(evidence))]
