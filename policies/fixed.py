"""A fixed number of samples drawn at once: the part that votes and best-of-n share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from samplewise.policies.base import (
    WAIT,
    Action,
    Cancel,
    Draw,
    Evidence,
    PolicyError,
    StopReason,
    Wait,
)
from samplewise.policies.ranking import why_ended

__all__ = ["Quorum", "at_least", "draw_all", "positive", "why_all_ended", "why_voted"]


@dataclass(frozen=True, slots=True)
class Quorum:
    """Do not wait for stragglers: with `min` good samples in, the rest has `grace_s` more seconds.

    To ask for one sample more than is kept, draw k+1 with `min` k and no grace.
    """

    min: int
    grace_s: float = 0.0

    def check(self, samples: int, min_ok: int) -> None:
        """Raise `PolicyError` when it cannot be reached, or would not be enough."""
        if not min_ok <= self.min <= samples:
            wanted = f"must lie between min_ok {min_ok} and the {samples} samples"
            raise PolicyError(f"quorum.min: {wanted}, got {self.min}")
        if not self.grace_s >= 0:
            raise PolicyError(f"quorum.grace_s: must not be negative, got {self.grace_s}")

    def hurry(self, evidence: Evidence) -> Sequence[Action]:
        """Wait, or cut what still runs once the grace is over."""
        if evidence.good < self.min or not evidence.running:
            return WAIT
        until_s = evidence.good_at[self.min - 1] + self.grace_s
        if evidence.elapsed_s < until_s:
            return [Wait(until_s)]
        return [Cancel(tuple(evidence.running))]


def draw_all(evidence: Evidence, samples: int, quorum: Quorum | None = None) -> Sequence[Action]:
    """Draw up to `samples` in one round and wait for them; empty when there is no more to do."""
    if "all" not in evidence.rounds and evidence.drawn < samples and evidence.may_draw:
        return [Draw("all", samples - evidence.drawn)]
    if not evidence.pending:
        return []
    return WAIT if quorum is None else quorum.hurry(evidence)


def why_all_ended(evidence: Evidence, quorum: Quorum | None = None) -> StopReason:
    """Say why a round of `draw_all` is over."""
    reason = why_ended(evidence)
    if quorum is not None and reason is StopReason.EXHAUSTED:
        # Nothing else has samples cut before the run stops.
        return StopReason.QUORUM if evidence.good < len(evidence.samples) else reason
    return reason


def why_voted(evidence: Evidence, agreeing: int, quorum: Quorum | None = None) -> StopReason:
    """Say why a round of `draw_all` is over whose samples vote; `agreeing` of them decided it."""
    reason = why_all_ended(evidence, quorum)
    return StopReason.AGREED if reason is StopReason.EXHAUSTED and agreeing > 1 else reason


def at_least(field: str, value: float, least: float) -> None:
    """Raise `PolicyError` when a number is too small."""
    if value < least:
        raise PolicyError(f"{field}: must be at least {least}, got {value}")


def positive(field: str, value: float) -> None:
    """Raise `PolicyError` when a number is not a finite one above 0."""
    if not 0 < value < math.inf:
        raise PolicyError(f"{field}: must be greater than 0, got {value}")
