"""The sample a scoring verifier likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from samplewise.policies.base import Action, Basis, Evidence, Needs, PolicyError, Stop
from samplewise.policies.fixed import Quorum, at_least, draw_all, why_all_ended
from samplewise.policies.ranking import by_score
from samplewise.policies.weighing import by_weight, scores
from samplewise.verifiers.base import Sample

__all__ = ["BestOfN"]


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Draw `samples` at once and return the one with the highest score.

    `score` names the verifier (empty: the last that gives one). `rule` naive takes the best single
    sample; weighted first takes the answer with the largest sum of scores, then its best sample.
    With `steps`, step scores become one by that: last, min or prod. Without it the verifier's own
    score counts, and the last step's where it has none. Source: Snell et al. 2024,
    arXiv:2408.03314, app. E (aggregation of step scores).
    """

    samples: int = 8
    score: str = ""
    rule: Literal["naive", "weighted"] = "naive"
    steps: Literal["last", "min", "prod"] | None = None
    min_ok: int = 1
    quorum: Quorum | None = None

    def __post_init__(self) -> None:
        """Refuse numbers and words that mean nothing."""
        at_least("samples", self.samples, 1)
        at_least("min_ok", self.min_ok, 1)
        if self.quorum is not None:
            self.quorum.check(self.samples, self.min_ok)
        if self.rule not in ("naive", "weighted"):
            raise PolicyError(f"rule: must be naive or weighted, got {self.rule!r}")
        if self.steps not in (None, "last", "min", "prod"):
            raise PolicyError(f"steps: must be last, min or prod, got {self.steps!r}")

    @property
    def needs(self) -> Needs:
        """A verifier that scores; answers too when the rule is weighted."""
        return Needs(
            max_samples=self.samples,
            min_ok=self.min_ok,
            cancel=self.quorum is not None,
            answers=self.rule == "weighted",
            verdicts=not self.score,
            scores=(self.score,) if self.score else (),
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, take the best."""
        actions = draw_all(evidence, self.samples, self.quorum)
        if actions:
            return actions
        if self.rule == "weighted":
            ranking = by_weight(evidence, scores(evidence, self.score))
        else:
            ranking = by_score(evidence, lambda sample: self._score(evidence, sample))
        return [
            Stop(
                ranking,
                why_all_ended(evidence, self.quorum),
                Basis.SCORE,
                self._details(evidence, ranking),
            )
        ]

    def _score(self, evidence: Evidence, sample: Sample) -> float | None:
        judgement = evidence.judgements.get(sample.id)
        if judgement is None:
            return None
        own, steps = judgement.score(self.score), judgement.step_scores(self.score)
        if not steps or (self.steps is None and own is not None):
            return own
        match self.steps:
            case "min":
                return min(steps)
            case "prod":
                return math.prod(steps)
            case _:
                return steps[-1]

    def _details(self, evidence: Evidence, ranking: tuple[str, ...]) -> dict[str, object]:
        score = self._score(evidence, evidence.samples[ranking[0]]) if ranking else None
        return {"rule": self.rule, "score": score}
