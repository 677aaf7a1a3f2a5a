"""A vote in which a verifier's score is the weight of a sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import Action, Basis, Evidence, Needs, Stop
from samplewise.policies.evidence import Judgement
from samplewise.policies.fixed import Quorum, at_least, draw_all, why_voted
from samplewise.policies.ranking import ranked
from samplewise.verifiers.base import Sample, Status

__all__ = ["WeightedVote", "class_weights", "heaviest"]


def class_weights(evidence: Evidence, score: str) -> dict[str, float]:
    """Return the sum of scores per answer class. Failed, cut and unparsed samples weigh nothing."""
    weights: dict[str, float] = defaultdict(float)
    for judgement in evidence.judgements.values():
        if _votes(judgement):
            weights[judgement.answer_class or ""] += judgement.score(score) or 0.0
    return dict(weights)


def heaviest(
    evidence: Evidence, sample: Sample, weights: dict[str, float], score: str
) -> tuple[float, ...]:
    """Return a sort key: the heaviest answer first, in it the sample with the best score."""
    judgement = evidence.judgements.get(sample.id)
    if judgement is None or judgement.answer_class not in weights:
        return (0.0, 0.0)
    return (-weights[judgement.answer_class], -(judgement.score(score) or 0.0))


def _votes(judgement: Judgement) -> bool:
    return (
        judgement.answer_class is not None
        and judgement.sample.complete
        and judgement.status is not Status.FAIL
    )


@dataclass(frozen=True, slots=True)
class WeightedVote:
    """Draw `samples` at once and return the answer with the largest sum of scores.

    `score` names the verifier whose score in [0, 1] weighs; a sample without a score weighs 0.
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
        weights = class_weights(evidence, self.score)
        reason = why_voted(evidence, evidence.votes.total, self.quorum)
        details = {"weights": {a: round(w, 6) for a, w in sorted(weights.items())[:20]}}
        ranking = ranked(evidence, lambda sample: heaviest(evidence, sample, weights, self.score))
        return [Stop(ranking, reason, Basis.VOTES, details)]
