"""A policy of an operator's own that goes wrong in one way, once its samples are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from samplewise.policies.base import (
    WAIT,
    Action,
    Combine,
    Compare,
    Continue,
    Draw,
    Evidence,
    Fresh,
    Needs,
    Stop,
    StopReason,
    Verify,
    Wait,
)
from samplewise.policies.ranking import fallback


def _raising() -> Sequence[Any]:
    raise RuntimeError("own trouble")


# The types are wrong on purpose: nobody checks an operator's.
_WRONG: dict[str, Callable[[], Any]] = {
    "raises": _raising,
    "nothing": lambda: None,
    "no action": lambda: ["stop"],
    "backend": lambda: [Draw("more", 1, "elsewhere")],
    "half": lambda: [Draw("more", 0.5)],  # type: ignore[arg-type]
    "variant": lambda: [Draw("more", 1, source=Fresh("kind"))],
    "parent": lambda: [Draw("more", 1, source=Continue("s9"))],
    "template": lambda: [Draw("more", 1, source=Combine((), "own"))],
    "params": lambda: [Draw("more", 1, params={"stop": object()})],
    "cap": lambda: [Draw("more", 1, params={"max_tokens": "9"})],
    "verifier": lambda: [Verify((), "own")],
    "pair": lambda: [Compare("own", (("s8", "s9"),))],
    "time": lambda: [Wait("soon")],  # type: ignore[arg-type]
    "ranking": lambda: [Stop(("s9",), StopReason.PASSED)],
    "reason": lambda: [Stop((), "because")],  # type: ignore[arg-type]
}
WRONG = tuple(_WRONG)


@dataclass(frozen=True, slots=True)
class Wrong:
    """Draw `samples` and do what `way` says when so many are there, `after`."""

    way: str
    samples: int = 3
    after: int = 3

    @property
    def needs(self) -> Needs:
        """All it draws, each by a call of its own, and answers to vote with."""
        return Needs(self.samples + 1, answers=True, cancel=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, wait, go wrong."""
        if len(evidence.judgements) >= self.after:
            wrong: Sequence[Action] = _WRONG[self.way]()
            return wrong
        return WAIT if evidence.rounds else [Draw("all", self.samples)]


@dataclass(frozen=True, slots=True)
class Unwritable:
    """Draw two and tell, beside what it is worth, what no JSON can hold."""

    @property
    def needs(self) -> Needs:
        """Two samples."""
        return Needs(2, answers=True)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw, wait, stop."""
        if evidence.pending or not evidence.rounds:
            return WAIT if evidence.rounds else [Draw("all", 2)]
        details = {"own": object(), "half": "\ud800", "votes": 2}
        return [replace(fallback(evidence), details=details)]
