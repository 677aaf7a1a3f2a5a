"""A policy for judges of pairs: samples meet two by two until one is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Compare,
    Draw,
    Evidence,
    Needs,
    Stop,
    StopReason,
)


@dataclass(frozen=True)
class Knockout:
    """Draw `samples`, then let the winners of each round meet; ties go to the earlier draw."""

    samples: int = 4

    @property
    def needs(self) -> Needs:
        """Some samples, and a route with a comparator."""
        return Needs(self.samples, comparator=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, compare round by round, and rank those last that were beaten first."""
        if "all" not in evidence.rounds and evidence.drawn < self.samples and evidence.may_draw:
            # `drawn` is 1 already when a request with tools was looked at before (see on_tools).
            return [Draw("all", self.samples - evidence.drawn)]
        if evidence.pending:
            return WAIT
        left = sorted(evidence.samples, key=lambda id_: evidence.samples[id_].index)
        beaten: list[str] = []
        number = 0
        while len(left) > 1:
            pairs = tuple(zip(left[::2], left[1::2], strict=False))
            compared = evidence.comparisons.get(f"round-{number}")
            if compared is None:
                return [Compare(f"round-{number}", pairs), *WAIT]
            odd = left[2 * len(pairs) :]
            winners = [comparison.winner or comparison.a for comparison in compared]
            beaten = [id_ for id_ in left if id_ not in (*winners, *odd)] + beaten
            left = [*winners, *odd]
            number += 1
        return [Stop((*left, *beaten), StopReason.EXHAUSTED, Basis.SCORE)]
