"""A policy for `type: python`: two samples, and a third only when their answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import WAIT, Action, Basis, Draw, Evidence, Needs, Stop, StopReason
from samplewise.policies.ranking import by_votes, vote_details, why_ended


@dataclass(frozen=True, slots=True)
class TieBreak:
    """Draw `first` samples; when they do not all agree, draw one more."""

    first: int = 2

    @property
    def needs(self) -> Needs:
        """One sample more than the first draw, and answers to vote with."""
        return Needs(max_samples=self.first + 1, answers=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, wait for all, and draw again only when that can change the vote."""
        if evidence.drawn < self.first and "first" not in evidence.rounds and evidence.may_draw:
            # `drawn` is 1 already when a request with tools was looked at before (see on_tools).
            return [Draw("first", self.first - evidence.drawn)]
        if evidence.pending:
            return WAIT
        if evidence.votes.lead < self.first and evidence.may_draw:
            return [Draw("tie-break", 1)]
        reason = why_ended(evidence)
        if reason is StopReason.EXHAUSTED and evidence.votes.lead > 1:
            reason = StopReason.AGREED
        return [Stop(by_votes(evidence), reason, Basis.VOTES, vote_details(evidence))]
