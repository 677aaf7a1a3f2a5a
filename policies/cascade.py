"""Cheap backend first, a dearer one when nothing was verified or agreement is low."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_order, ranked, why_ended
from samplewise.verifiers.base import Sample

__all__ = ["Cascade", "Tier"]


@dataclass(frozen=True, slots=True)
class Tier:
    """One step of a cascade: `samples` drawn at once from `backend`.

    With `agreement`, the tier is good enough when that share (0 to 1) of its samples gives one
    answer; samples without an answer count as disagreeing. Without it only a verified sample is.
    `params` override request fields for these samples, so that tiers can differ by effort alone;
    then `backend` may be empty, for the route's own order.
    """

    backend: str
    samples: int = 1
    agreement: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cascade:
    """Draw tier after tier until one is good enough; the last tier that was drawn answers.

    Source: Chen et al. 2023, arXiv:2305.05176, sec. 3 (LLM cascade); agreement as the gate: Yue et
    al. 2023, arXiv:2310.03094, sec. 3. Deviation: tiers are fixed by the operator, not learnt.
    """

    tiers: tuple[Tier, ...]
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse tiers that cannot decide."""
        at_least("tiers", len(self.tiers), 2)
        for number, tier in enumerate(self.tiers):
            at_least(f"tiers.{number}.samples", tier.samples, 1)
            if tier.agreement is not None and tier.samples < 2 and number < len(self.tiers) - 1:
                raise PolicyError(
                    f"tiers.{number}.samples: agreement needs at least 2, got {tier.samples}"
                )
            if tier.agreement is not None and not 0.0 < tier.agreement <= 1.0:
                raise PolicyError(
                    f"tiers.{number}.agreement: must lie in (0, 1], got {tier.agreement}"
                )

    @property
    def needs(self) -> Needs:
        """The backends of its tiers; verdicts where a tier has no agreement to go by."""
        gates = self.tiers[:-1]
        return Needs(
            max_samples=sum(tier.samples for tier in self.tiers),
            min_ok=self.min_ok,
            cancel=True,
            verdicts=any(tier.agreement is None for tier in gates),
            answers=any(tier.agreement is not None for tier in self.tiers),
            backends=tuple(tier.backend for tier in self.tiers if tier.backend),
            min_samples=self.tiers[0].samples,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Accept the tier that was drawn, or go on to the next."""
        drawn = self._drawn(evidence)
        if evidence.best_passed is not None and evidence.good >= evidence.answers:
            details = {"tier": drawn}
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, details)]
        if evidence.pending:
            return WAIT
        if drawn and self._agreed(evidence, drawn - 1) and evidence.good >= evidence.answers:
            return [self._stop(evidence, drawn, StopReason.AGREED)]
        if drawn < len(self.tiers) and evidence.may_draw:
            tier = self.tiers[drawn]
            n = tier.samples - evidence.drawn if drawn == 0 else tier.samples
            return [Draw(f"tier-{drawn}", n, backend=tier.backend, params=tier.params)]
        return [self._stop(evidence, drawn, why_ended(evidence))]

    def _drawn(self, evidence: Evidence) -> int:
        numbers = [int(key[5:]) + 1 for key in evidence.rounds if key.startswith("tier-")]
        # A sample drawn before the cascade began (see `ToolsFirst`) counts for the first tier.
        return max(numbers, default=int(evidence.drawn >= self.tiers[0].samples))

    def _votes(self, evidence: Evidence, tier: int) -> Counter[str]:
        classes: Counter[str] = Counter()
        for sample in self._samples(evidence, tier):
            judgement = evidence.judgements.get(sample.id)
            if judgement and judgement.answer_class is not None and sample.complete:
                classes[judgement.answer_class] += 1
        return classes

    def _samples(self, evidence: Evidence, tier: int) -> list[Sample]:
        return [s for s in evidence.samples.values() if _tier(s) == tier]

    def _agreed(self, evidence: Evidence, tier: int) -> bool:
        wanted = self.tiers[tier].agreement
        if wanted is None:
            return False
        votes = self._votes(evidence, tier)
        return bool(votes) and max(votes.values()) >= wanted * self.tiers[tier].samples

    def _stop(self, evidence: Evidence, drawn: int, reason: StopReason) -> Stop:
        votes = [self._votes(evidence, tier) for tier in range(drawn)]

        def key(sample: Sample) -> tuple[float, ...]:
            tier = _tier(sample)
            judgement = evidence.judgements.get(sample.id)
            answer = judgement.answer_class if judgement else None
            return (-tier, -(votes[tier][answer] if answer is not None and votes else 0))

        agreed = bool(votes) and any(votes[-1].values())
        details = {"tier": drawn, "votes": max(votes[-1].values(), default=0) if votes else 0}
        basis = Basis.VOTES if agreed else Basis.ORDER
        return Stop(ranked(evidence, key), reason, basis, details)


def _tier(sample: Sample) -> int:
    return int(sample.key[5:]) if sample.key.startswith("tier-") else 0
