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

    _settled: dict[int, str | None] = field(default_factory=dict)
    _votes: Votes = field(default_factory=Votes)
    _next: int = 0

    def settle(self, index: int, answer: str | None = None) -> None:
        """Take the vote of one sample, or note that it has none (lost, cut, without an answer).

        What is said of a sample that has settled before changes nothing.
        """
        self._settled.setdefault(index, answer)

    def open(self, index: int) -> None:
        """Let a sample settle anew: what was said of it has changed. All votes count again."""
        self._settled.pop(index, None)
        self._votes, self._next = Votes(), 0

    @property
    def votes(self) -> Votes:
        """The votes of the first samples, up to the first that has not settled."""
        # Counted when it is asked for: most policies never ask.
        while self._next in self._settled:
            answer = self._settled[self._next]
            if answer is None:
                self._votes.skip()
            else:
                self._votes.add(answer, self._next)
            self._next += 1
        return self._votes
