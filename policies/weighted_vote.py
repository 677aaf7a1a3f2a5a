"""A vote in which a verifier's score is the weight of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import Action, Evidence, Needs
from samplewise.policies.fixed import Quorum, at_least, draw_all, why_voted
from samplewise.policies.weighing import scores, weighed

__all__ = ["WeightedVote"]


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Draw `samples` at once and return the answer with the largest sum of scores.

    `score` names the verifier whose score in [0, 1] weighs; a sample without a score weighs 0, so a
    vote without any is a plain one.
    Source: Wu et al. 2024, arXiv:2408.00724, sec. 3 (weighted majority voting).
    """

    score: str
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
        """Answers, and a verifier that scores."""
        return Needs(
            max_samples=self.samples,
            min_ok=self.min_ok,
            cancel=self.quorum is not None,
            answers=True,
            scores=(self.score,),
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, weigh."""
        actions = draw_all(evidence, self.samples, self.quorum)
        if actions:
            return actions
        reason = why_voted(evidence, evidence.votes.lead, self.quorum)
        return [weighed(evidence, scores(evidence, self.score), reason, rule="weighted_vote")]
