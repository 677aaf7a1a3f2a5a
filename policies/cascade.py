"""Cheap backend first, a dearer one when nothing was verified and the gates do not hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Fresh,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_order, ranked, why_ended
from samplewise.policies.tiers import Beside, Tier, enough, tier_of, votes_of
from samplewise.verifiers.base import Sample

__all__ = ["Beside", "Cascade", "Tier"]

_TOP = 2


@dataclass(frozen=True, slots=True)
class Cascade:
    """Draw tier after tier until one is good enough; the last tier that was drawn answers.

    Source: Chen et al. 2023, arXiv:2305.05176, sec. 3 (LLM cascade); agreement, and two prompts
    whose answers are compared: Yue et al. 2023, arXiv:2310.03094, sec. 3; first-token margin with a
    quantile found online: Ramirez et al. 2024, arXiv:2405.02134. Deviation: tiers are fixed by the
    operator, not learnt.
    """

    tiers: tuple[Tier, ...]
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse tiers that cannot decide."""
        at_least("tiers", len(self.tiers), 2)
        for number, tier in enumerate(self.tiers):
            try:
                tier.check(last=number == len(self.tiers) - 1)
            except PolicyError as error:
                raise PolicyError(f"tiers.{number}.{error}") from None

    @property
    def needs(self) -> Needs:
        """The backends of its tiers, and what their gates read; verdicts where there is none."""
        gates = self.tiers[:-1]
        panels: list[Tier | Beside] = [*self.tiers]
        panels += [tier.beside for tier in self.tiers if tier.beside is not None]
        told = tuple(tier.backend for tier in gates if tier.escalate is not None)
        return Needs(
            max_samples=sum(tier.drawn for tier in self.tiers),
            min_ok=self.min_ok,
            cancel=True,
            verdicts=any(not tier.gated for tier in gates),
            answers=any(tier.votes for tier in self.tiers),
            backends=tuple(panel.backend for panel in panels if panel.backend),
            variants=tuple(panel.prompt for panel in panels if panel.prompt),
            scores=tuple(tier.score for tier in self.tiers if tier.score),
            min_samples=self.tiers[0].drawn,
            logprobs=bool(told),
            top_logprobs=_TOP if told else 0,
            logprobs_of=told,
            margins=bool(told),
            params_bytes=max(
                (len(json.dumps(dict(tier.params))) for tier in self.tiers if tier.params),
                default=0,
            ),
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Accept the tier that was drawn, or go on to the next."""
        drawn = self._drawn(evidence)
        if evidence.best_passed is not None and evidence.good >= evidence.answers:
            details = {"tier": drawn}
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED, details)]
        if evidence.pending:
            return WAIT
        held = enough(evidence, self.tiers[drawn - 1], drawn - 1) if drawn else ()
        if held and evidence.good >= evidence.answers:
            votes = self.tiers[drawn - 1].votes
            reason = StopReason.AGREED if votes else StopReason.NOT_WORTH_IT
            return [self._stop(evidence, drawn, reason, held)]
        if drawn < len(self.tiers) and evidence.may_draw:
            return self._draws(evidence, drawn)
        return [self._stop(evidence, drawn, why_ended(evidence))]

    def _draws(self, evidence: Evidence, number: int) -> list[Action]:
        """Return the draws of a tier; of the first, without what was drawn before the cascade."""
        tier, key = self.tiers[number], f"tier-{number}"
        n = tier.samples - evidence.drawn if number == 0 else tier.samples
        draws: list[Action] = []
        if n > 0:
            draws.append(Draw(key, n, tier.backend, Fresh(tier.prompt), tier.params))
        if tier.beside is not None:
            beside, source = tier.beside, Fresh(tier.beside.prompt)
            backend = beside.backend or tier.backend
            draws.append(Draw(f"{key}.beside", beside.samples, backend, source, tier.params))
        return draws

    def _drawn(self, evidence: Evidence) -> int:
        keys = [key.partition(".")[0] for key in evidence.rounds if key.startswith("tier-")]
        # A sample drawn before the cascade began (see `ToolsFirst`) counts for the first tier.
        before = evidence.drawn >= self.tiers[0].drawn
        return max((int(key[5:]) + 1 for key in keys), default=int(before))

    def _stop(
        self, evidence: Evidence, drawn: int, reason: StopReason, held: Sequence[str] = ()
    ) -> Stop:
        votes = [votes_of(evidence, tier) for tier in range(drawn)]

        def key(sample: Sample) -> tuple[float, ...]:
            tier = tier_of(sample)
            judgement = evidence.judgements.get(sample.id)
            answer = judgement.answer_class if judgement else None
            name = self.tiers[tier].score
            score = judgement.score(name) if judgement and name else None
            voted = votes[tier][answer] if answer is not None and votes else 0
            return (-tier, -voted, -(score or 0.0))

        agreed = bool(votes) and any(votes[-1].values())
        details = {
            "tier": drawn,
            "votes": max(votes[-1].values(), default=0) if votes else 0,
            "gates": list(held),
        }
        basis = Basis.VOTES if agreed else Basis.ORDER
        return Stop(ranked(evidence, key), reason, basis, details)
