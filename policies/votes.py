"""A running count of votes: leader and runner-up are known after every vote, in constant time."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["VoteClass", "Votes"]


@dataclass(slots=True)
class VoteClass:
    """One answer: how many samples gave it, and the earliest drawn of them."""

    answer: str
    count: int
    first_index: int

    def beats(self, other: VoteClass) -> bool:
        """Say whether this class stands before another: more votes, then the earlier draw."""
        return (-self.count, self.first_index) < (-other.count, other.first_index)


@dataclass(slots=True)
class Votes:
    """Votes per answer class. A tie goes to the class with the lowest draw index.

    `lead` and `second` are the votes of the leader and of the runner-up, 0 without one. `order`
    holds the answers in the order of counting, empty text for samples that gave none.
    """

    total: int = 0
    lead: int = 0
    second: int = 0
    classes: dict[str, VoteClass] = field(default_factory=dict)
    leader: VoteClass | None = None
    runner_up: VoteClass | None = None
    order: list[str] = field(default_factory=list)

    def add(self, answer: str, index: int) -> None:
        """Count one vote."""
        self.total += 1
        self.order.append(answer)
        voted = self.classes.get(answer)
        if voted is None:
            voted = self.classes[answer] = VoteClass(answer, 1, index)
        else:
            voted.count += 1
            voted.first_index = min(voted.first_index, index)
        # Only `voted` has changed, and only for the better: no other class can move up.
        if self.leader is None or self.leader is voted:
            self.leader = voted
        elif voted.beats(self.leader):
            self.leader, self.runner_up = voted, self.leader
        elif self.runner_up is None or self.runner_up is voted or voted.beats(self.runner_up):
            self.runner_up = voted
        self.lead = self.leader.count
        self.second = self.runner_up.count if self.runner_up else 0

    def skip(self) -> None:
        """Count a sample that gives no vote."""
        self.order.append("")

    def agreed(self, last: int) -> bool:
        """Say whether so many of the last samples gave one answer, all of them."""
        window = self.order[-last:]
        return len(window) == last and window[0] != "" and window.count(window[0]) == last

    @property
    def margin(self) -> int:
        """Votes by which the leader is ahead."""
        return self.lead - self.second
