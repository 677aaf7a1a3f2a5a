"""One budget for many open problems: those that are solved leave, the others share what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from samplewise.policies.base import Evidence, rng
from samplewise.policies.fixed import at_least

__all__ = ["Elimination"]


@dataclass(frozen=True, slots=True)
class Elimination:
    """Give every open problem `each` samples a round; what passed its verifiers leaves.

    The last round, which is too small for all, goes to problems by chance.
    Source: arXiv:2506.12721, the elimination rule.
    """

    each: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse rounds of nothing."""
        at_least("each", self.each, 1)

    def allocate(self, problems: Mapping[str, Evidence], left: int) -> Mapping[str, int]:
        """Return how many samples each open problem gets next; the sum never exceeds `left`."""
        sizes = {
            id_: min(self.each, evidence.left_samples)
            for id_, evidence in problems.items()
            if evidence.best_passed is None and evidence.left_samples > 0
        }
        if sum(sizes.values()) <= left:
            return sizes
        names = list(sizes)
        rng(self.seed, f"last-{left}").shuffle(names)
        chosen: dict[str, int] = {}
        for id_ in names:
            if size := min(sizes[id_], left):
                chosen[id_] = size
                left -= size
        return chosen
