"""A vote in which samples weigh by their rank in the model's own certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import Action, Evidence, Needs, PolicyError
from samplewise.policies.fixed import at_least, draw_all, why_voted
from samplewise.policies.weighing import confidence, voters, weighed

__all__ = ["SelfCertainty"]

_TOP = 20
# The mean over all places needs no groups; the smallest is the cheapest.
_GROUP = 1


@dataclass(frozen=True, slots=True)
class SelfCertainty:
    """Draw `samples` at once, rank those that vote by certainty, and weigh rank r of N (N-r+1)^p.

    With `power` 0 it is a plain vote, with a large one the surest sample decides.
    Source: Kang et al. 2025, arXiv:2502.18581 (self-certainty with Borda voting). Deviation: the
    mean goes over the likeliest 20 tokens of a place, because no API tells all of them.
    """

    samples: int = 8
    power: float = 0.5
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no vote."""
        at_least("samples", self.samples, 2)
        at_least("min_ok", self.min_ok, 1)
        if not 0.0 <= self.power <= 100.0:
            raise PolicyError(f"power: must lie between 0 and 100, got {self.power}")

    @property
    def needs(self) -> Needs:
        """Answers, and the likeliest tokens of every place."""
        return Needs(
            self.samples,
            self.min_ok,
            logprobs=True,
            top_logprobs=_TOP,
            group_tokens=_GROUP,
            answers=True,
            min_samples=self.samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all, rank, weigh."""
        actions = draw_all(evidence, self.samples)
        if actions:
            return actions
        reason = why_voted(evidence, evidence.votes.lead)
        return [weighed(evidence, self.weights(evidence), reason, rule="self_certainty")]

    def weights(self, evidence: Evidence) -> dict[str, float]:
        """Return the weight of every sample that votes and has a certainty."""
        voted = [judgement.sample for judgement in voters(evidence)]
        sure = {s.id: value for s in voted if (value := confidence(s, "mean")) is not None}
        known = [s for s in voted if s.id in sure]
        known.sort(key=lambda sample: (-sure[sample.id], sample.index))
        return {s.id: float(len(known) - rank) ** self.power for rank, s in enumerate(known)}
