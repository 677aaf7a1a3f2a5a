"""Draw many samples and choose none: how recordings are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import WAIT, Action, Draw, Evidence, Needs, Stop
from samplewise.policies.ranking import by_order, why_ended

__all__ = ["Oversample"]

_TOP = 20


@dataclass(frozen=True, slots=True)
class Oversample:
    """Draw `samples` from every backend, in calls with `n`, or one call each if `timed`.

    With `group_tokens` their confidence is measured, in groups of so many tokens.
    """

    samples: int
    backends: tuple[str, ...]
    timed: bool = False
    group_tokens: int = 0

    @property
    def needs(self) -> Needs:
        """The backends; calls of one sample where each needs a time of its own."""
        total = self.samples * len(self.backends)
        return Needs(
            total,
            cancel=self.timed,
            backends=self.backends,
            min_samples=total,
            logprobs=self.group_tokens > 0,
            top_logprobs=_TOP if self.group_tokens else 0,
            group_tokens=self.group_tokens,
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw all, wait for all."""
        draws = [Draw(f"all-{name}", self.samples, backend=name) for name in self.backends]
        new = [draw for draw in draws if draw.key not in evidence.rounds]
        if new and evidence.may_draw:
            return new
        return WAIT if evidence.pending else [Stop(by_order(evidence), why_ended(evidence))]
