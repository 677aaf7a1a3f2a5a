"""One sample, returned as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import WAIT, Action, Basis, Draw, Evidence, Needs, Stop
from samplewise.policies.ranking import by_order, why_ended

__all__ = ["Single"]


@dataclass(frozen=True, slots=True)
class Single:
    """Draw one sample. Verifiers still run, so the answer can say that it was verified."""

    @property
    def needs(self) -> Needs:
        """One sample, nothing else."""
        return Needs(max_samples=1)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw once, then stop."""
        if not evidence.drawn and "only" not in evidence.rounds and evidence.may_draw:
            return [Draw("only", 1)]
        if evidence.pending:
            return WAIT
        return [Stop(by_order(evidence), why_ended(evidence), Basis.ORDER)]
