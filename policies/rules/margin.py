"""The leader is so many votes ahead."""

from __future__ import annotations

from dataclasses import dataclass

from samplewise.policies.votes import Votes

__all__ = ["Margin"]


@dataclass(frozen=True, slots=True)
class Margin:
    """Stop when the leader is `margin` votes before the runner-up.

    The sequential test of two answers: what a lead is worth does not depend on how many voted.
    Source: arXiv:2511.09030 (first to ahead by k).
    """

    margin: int

    @property
    def whole(self) -> bool:
        """Two counts are enough."""
        return False

    def met(self, votes: Votes) -> bool:
        """Say whether the lead is large enough."""
        return votes.lead - votes.second >= self.margin

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the lead that was asked for."""
        return {"threshold": self.margin}
