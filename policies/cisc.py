"""A vote in which samples weigh by how confident the model is of each beside the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import Action, Evidence, Needs
from samplewise.policies.evidence import Judgement
from samplewise.policies.fixed import at_least, draw_all, positive, why_voted
from samplewise.policies.weighing import voters, weighed

__all__ = ["Cisc"]


@dataclass(frozen=True, slots=True)
class Cisc:
    """Draw `samples` at once and weigh each vote by the softmax of its confidence / `temperature`.

    The confidence is the score of the verifier `score`, P(True) where that is a `generative` one;
    without it the geometric mean of the sample's token probabilities. A small temperature trusts
    the surest sample alone, a large one makes a plain vote.
    Source: Taubenfeld et al. 2025, arXiv:2502.06233 (confidence-informed self-consistency).
    """

    score: str = ""
    samples: int = 8
    temperature: float = 0.1
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no vote."""
        at_least("samples", self.samples, 2)
        at_least("min_ok", self.min_ok, 1)
        positive("temperature", self.temperature)

    @property
    def needs(self) -> Needs:
        """Answers, and a score or the model's own log-probabilities."""
        return Needs(
            self.samples,
            self.min_ok,
            logprobs=not self.score,
            answers=True,
            scores=(self.score,) if self.score else (),
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, weigh."""
        actions = draw_all(evidence, self.samples)
        if actions:
            return actions
        reason = why_voted(evidence, evidence.votes.lead)
        return [weighed(evidence, self.weights(evidence), reason, rule="cisc")]

    def weights(self, evidence: Evidence) -> dict[str, float]:
        """Return the weight of every sample that votes and has a confidence; they add up to 1."""
        sure = {
            judgement.sample.id: value
            for judgement in voters(evidence)
            if (value := self._confidence(judgement)) is not None
        }
        most = max(sure.values(), default=0.0)
        shares = {id_: math.exp((value - most) / self.temperature) for id_, value in sure.items()}
        total = sum(shares.values())
        return {id_: share / total for id_, share in shares.items()}

    def _confidence(self, judgement: Judgement) -> float | None:
        if self.score:
            return judgement.score(self.score)
        logprobs = judgement.sample.logprobs
        return math.exp(min(logprobs.mean, 0.0)) if logprobs else None
