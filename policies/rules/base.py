"""What a stop rule of a vote is."""

from __future__ import annotations

from typing import Protocol

from samplewise.policies.votes import Votes

__all__ = ["Rule", "least_unanimous"]


class Rule(Protocol):
    """Says whether a vote is decided."""

    @property
    def whole(self) -> bool:
        """Whether more is read than the votes of leader and runner-up."""
        ...

    def met(self, votes: Votes) -> bool:
        """Say whether to stop now."""
        ...

    def details(self, votes: Votes) -> dict[str, object]:
        """Return what the decision rests on, for the answer."""
        ...


def least_unanimous(rule: Rule, cap: int) -> int:
    """Return how many equal votes in a row stop a run that begins with them; `cap` if none do."""
    votes = Votes()
    for n in range(1, cap):
        votes.add("a", n - 1)
        if rule.met(votes):
            return n
    return cap
