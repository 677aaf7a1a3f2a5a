"""Votes counted in the order in which samples were dispatched, whatever order they come back in."""

from __future__ import annotations

from dataclasses import dataclass, field

from samplewise.policies.votes import Votes

__all__ = ["LaunchOrder"]


@dataclass(slots=True)
class LaunchOrder:
    """Holds a vote back until all samples before it have settled; constant time a sample.

    In order of arrival short samples vote first, and a rule that stops early sees more of them than
    the model gives.
    """

    votes: Votes = field(default_factory=Votes)
    _waiting: dict[int, tuple[str, str] | None] = field(default_factory=dict)
    _next: int = 0

    def settle(self, index: int, answer: str | None = None, sample_id: str = "") -> None:
        """Take the vote of one sample, or note that it has none (lost, cut, without an answer)."""
        if index < self._next:
            return
        self._waiting.setdefault(index, None if answer is None else (answer, sample_id))
        while self._next in self._waiting:
            vote = self._waiting.pop(self._next)
            if vote is None:
                self.votes.skip()
            else:
                self.votes.add(vote[0], vote[1], self._next)
            self._next += 1
