"""Tool-call turns pass through: look at one sample before drawing the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Draw,
    Evidence,
    Needs,
    Policy,
    Stop,
    StopReason,
)
from samplewise.policies.evidence import TOOLS_FIRST
from samplewise.policies.ranking import by_order
from samplewise.verifiers.base import Ended

__all__ = ["ToolsFirst"]


@dataclass(frozen=True, slots=True)
class ToolsFirst:
    """Draw one sample, or as many as answers are wanted; if the first calls a tool, that is all.

    Anything else leaves the rest to `policy`.
    An agent's turn that only calls a tool so costs one sample, and a turn that answers costs what
    the policy costs, one sample later.
    """

    policy: Policy

    @property
    def needs(self) -> Needs:
        """What the wrapped policy needs; a tool call can end it after one sample."""
        return replace(self.policy.needs, min_samples=1)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Let the first sample through, then decide as the wrapped policy does."""
        if not evidence.drawn:
            if TOOLS_FIRST in evidence.rounds or not evidence.may_draw:
                return self.policy.decide(evidence)
            # From where the policy itself would draw first: it counts as its first sample.
            backends = self.policy.needs.backends
            return [Draw(TOOLS_FIRST, evidence.answers, backend=backends[0] if backends else "")]
        if set(evidence.rounds) == {TOOLS_FIRST} and evidence.pending:
            return WAIT
        first = min(evidence.samples.values(), key=lambda sample: sample.index, default=None)
        if first is not None and first.ended is Ended.TOOL_CALL:
            return [
                Stop(by_order(evidence), StopReason.NOT_WORTH_IT, Basis.ORDER, {"rule": "tools"})
            ]
        return self.policy.decide(evidence)
