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

    _came: list[tuple[int, str | None, str]] = field(default_factory=list)
    _waiting: dict[int, tuple[str | None, str]] = field(default_factory=dict)
    _votes: Votes = field(default_factory=Votes)
    _next: int = 0

    def settle(self, index: int, answer: str | None = None, sample_id: str = "") -> None:
        """Take the vote of one sample, or note that it has none (lost, cut, without an answer)."""
        # Counted when it is asked for: most policies never ask.
        self._came.append((index, answer, sample_id))

    @property
    def votes(self) -> Votes:
        """The votes of the first samples, up to the first that has not settled."""
        for index, answer, sample_id in self._came:
            if index >= self._next:
                self._waiting.setdefault(index, (answer, sample_id))
        self._came.clear()
        while self._next in self._waiting:
            answer, sample_id = self._waiting.pop(self._next)
            if answer is None:
                self._votes.skip()
            else:
                self._votes.add(answer, sample_id, self._next)
            self._next += 1
        return self._votes
