"""Diverse verifier tree search: several greedy beams that do not compete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.base import Action, Draw, Evidence, Needs, PolicyError
from samplewise.policies.fixed import at_least
from samplewise.policies.search.tree import Steps, Tree, search

__all__ = ["Dvts"]


@dataclass(frozen=True, slots=True)
class Dvts:
    """Grow `samples / width` trees: each goes on from the best of its `width` steps alone.

    A tree ends when none of its newest steps can be gone on from. Keeps more different paths than
    a beam of the same size. Source: the DVTS of Beeching et al. 2024 (search-and-learn, Hugging
    Face). Deviation: a tree goes on beside a finished path while another of its steps is open.
    """

    samples: int = 16
    width: int = 4
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no trees."""
        at_least("width", self.width, 1)
        at_least("samples", self.samples, self.width)
        if self.samples % self.width:
            raise PolicyError(
                f"samples: must be a multiple of width {self.width}, got {self.samples}"
            )
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        return self.plan.needs(self.samples * self.plan.max_steps, self.samples)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw one step of every tree at a time."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        depth = tree.depth
        trees = range(self.samples // self.width)
        if depth < 0:
            return [self.plan.draw(f"0.{number}", self.width, None) for number in trees]
        if depth + 1 >= self.plan.max_steps:
            return []
        draws = []
        for number in trees:
            open_ = tree.open(tree.by_key.get(f"{depth}.{number}", []))
            if open_:
                draws.append(self.plan.draw(f"{depth + 1}.{number}", self.width, open_[0]))
        return draws
