"""A vote that stops as soon as the leader is far enough ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

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
from samplewise.policies.ranking import by_votes, vote_details, why_ended

__all__ = ["AdaptiveVote", "beta_confidence", "beta_table"]


def beta_confidence(lead: int, second: int) -> float:
    """Return P(p1 > p2) under a uniform prior on the share of the leader: 1 - I_0.5(v1+1, v2+1).

    It is a statement about two answers under that prior, not a promise about being right.
    Source: Aggarwal et al. 2023, arXiv:2305.11860, sec. 3 (Beta stopping criterion).
    """
    # With whole counts the incomplete beta function is a binomial tail.
    n = lead + second + 1
    term = tail = 1
    for j in range(second):
        term = term * (n - j) // (j + 1)
        tail += term
    return float(1 - Fraction(tail, 2**n))


def beta_table(confidence: float, cap: int) -> tuple[int, ...]:
    """Return, per count of the runner-up, the fewest votes of the leader that stop the run.

    Worked out once, so that a decision is a look-up. Entries end where `cap` votes cannot stop.
    """
    needed: list[int] = []
    lead = 1
    for second in range(cap):
        while lead + second <= cap and beta_confidence(lead, second) < confidence:
            lead += 1
        if lead + second > cap:
            break
        needed.append(lead)
    return tuple(needed)


@dataclass(frozen=True, slots=True)
class AdaptiveVote:
    """Keep `window` samples in flight, or draw in `waves`, until rule or cap stops it.

    Rule margin: stop when the leader is `margin` votes ahead (a two-answer sequential test).
    Rule beta: stop when `beta_confidence` reaches `confidence`; a unanimous run stops at 3, 4 and 6
    for .90, .95 and .99. It never stops with fewer samples than the client wants answers. Judged in
    order of arrival, which favours short samples a little.
    """

    rule: Literal["margin", "beta"] = "margin"
    margin: int = 3
    confidence: float = 0.95
    max_samples: int = 24
    window: int | None = None
    waves: tuple[int, ...] = ()
    min_ok: int = 1
    _needed: tuple[int, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        """Refuse settings that never stop or contradict each other; prepare the Beta table."""
        for name in ("margin", "max_samples", "min_ok"):
            at_least(name, getattr(self, name), 1)
        if self.rule not in ("margin", "beta"):
            raise PolicyError(f"rule: must be margin or beta, got {self.rule!r}")
        if not 0.5 < self.confidence < 1.0:
            raise PolicyError(f"confidence: must lie between 0.5 and 1, got {self.confidence}")
        if self.window is not None and self.waves:
            raise PolicyError("waves: give either window or waves, not both")
        if self.window is not None:
            at_least("window", self.window, 1)
        if any(wave < 1 for wave in self.waves) or sum(self.waves) > self.max_samples:
            raise PolicyError(
                f"waves: must be at least 1 each and not more than max_samples={self.max_samples} "
                f"in sum, got {list(self.waves)}"
            )
        if self.rule == "beta":
            object.__setattr__(self, "_needed", beta_table(self.confidence, self.max_samples))

    @property
    def needs(self) -> Needs:
        """Answers to vote with, and calls that can be cancelled one by one."""
        return Needs(
            max_samples=self.max_samples,
            min_ok=self.min_ok,
            cancel=True,
            answers=True,
            min_samples=self._least(),
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Stop when the rule is met, else refill."""
        if self._met(evidence) and evidence.good >= evidence.answers:
            return [self._stop(evidence, StopReason.AGREED)]
        pending = evidence.pending
        draw = self._next(evidence, pending) if evidence.may_draw else None
        if draw is not None and draw.key not in evidence.rounds:
            return (draw,)
        if pending:
            return WAIT
        return [self._stop(evidence, why_ended(evidence))]

    def _least(self) -> int:
        """Return how many are drawn when all votes agree: whole waves, or at least the window."""
        wanted = self.margin if self.rule == "margin" else self._unanimous()
        drawn = 0 if self.waves else (self.window or 3)
        for wave in range(self.max_samples if self.waves else 0):
            if drawn >= wanted:
                break
            drawn += self.waves[min(wave, len(self.waves) - 1)]
        return min(max(drawn, wanted), self.max_samples)

    def _unanimous(self) -> int:
        return self._needed[0] if self._needed else self.max_samples

    def _met(self, evidence: Evidence) -> bool:
        votes = evidence.votes
        lead, second = votes.lead, votes.second
        if self.rule == "margin":
            return lead - second >= self.margin
        return second < len(self._needed) and lead >= self._needed[second]

    def _next(self, evidence: Evidence, pending: int) -> Draw | None:
        left = self.max_samples - evidence.drawn
        if self.waves:
            if pending:
                return None
            wave = evidence.waves
            size = self.waves[min(wave, len(self.waves) - 1)]
            n = evidence.fitting(min(size, left))
            return Draw(f"wave-{wave}", n) if left > 0 else None
        n = evidence.fitting(min((self.window or 3) - pending, left))
        # Samples that were granted name the refill, so a refused one is not asked for again.
        return Draw(f"window-{evidence.drawn}", n) if n > 0 else None

    def _stop(self, evidence: Evidence, reason: StopReason) -> Stop:
        lead, second = evidence.votes.lead, evidence.votes.second
        details = {**vote_details(evidence), "rule": self.rule, "margin": lead - second}
        if self.rule == "beta":
            details["posterior"] = beta_confidence(lead, second)
            details["threshold"] = self.confidence
        else:
            details["threshold"] = self.margin
        return Stop(by_votes(evidence), reason, Basis.VOTES, details)
