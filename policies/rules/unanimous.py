"""A whole window of samples gives one answer."""

from __future__ import annotations

from dataclasses import dataclass

from samplewise.policies.votes import Votes

__all__ = ["Unanimous"]


@dataclass(frozen=True, slots=True)
class Unanimous:
    """Stop when the last `window` samples gave one answer, none without an answer among them.

    Asked at the end of each window, so that windows do not overlap.
    Source: Li et al. 2024, arXiv:2401.10480 (early-stopping self-consistency).
    """

    window: int

    @property
    def whole(self) -> bool:
        """The order of votes is read."""
        return True

    def met(self, votes: Votes) -> bool:
        """Say whether the window agreed."""
        return votes.agreed(self.window)

    def details(self, votes: Votes) -> dict[str, object]:
        """Return the size of the window."""
        return {"threshold": self.window}
