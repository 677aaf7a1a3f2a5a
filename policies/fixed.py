"""A fixed number of samples drawn at once: the part that votes and best-of-n share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from samplewise.policies.base import WAIT, Action, Draw, Evidence, PolicyError

__all__ = ["at_least", "draw_all", "positive"]


def draw_all(evidence: Evidence, samples: int) -> Sequence[Action]:
    """Draw up to `samples` in one round and wait for them; empty when there is no more to do."""
    if "all" not in evidence.rounds and evidence.drawn < samples and evidence.may_draw:
        return [Draw("all", samples - evidence.drawn)]
    return WAIT if evidence.pending else []


def at_least(field: str, value: float, least: float) -> None:
    """Raise `PolicyError` when a number is too small."""
    if value < least:
        raise PolicyError(f"{field}: must be at least {least}, got {value}")


def positive(field: str, value: float) -> None:
    """Raise `PolicyError` when a number is not a finite one above 0."""
    if not 0 < value < math.inf:
        raise PolicyError(f"{field}: must be greater than 0, got {value}")
