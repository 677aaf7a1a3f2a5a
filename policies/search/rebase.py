"""Reward balanced search: every step is gone on from as often as its score deserves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.base import Action, Draw, Evidence, Needs
from samplewise.policies.fixed import at_least, positive
from samplewise.policies.search.tree import Steps, Tree, search, shares

__all__ = ["Rebase"]


@dataclass(frozen=True, slots=True)
class Rebase:
    """Draw `samples` first steps; then share the paths that are not finished among open steps.

    A step with score R gets a share proportional to exp(R / temperature). Source: Wu et al. 2024,
    arXiv:2408.00724, sec. 3 (REBASE). Deviation: shares are rounded so that they add up exactly,
    where the paper rounds each.
    """

    samples: int = 16
    temperature: float = 0.2
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no search."""
        at_least("samples", self.samples, 1)
        positive("temperature", self.temperature)
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        return self.plan.needs(self.samples * self.plan.max_steps, self.samples)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw layer after layer."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        depth = tree.depth
        if depth < 0:
            return [self.plan.draw("0", self.samples, None)]
        open_ = tree.open(tree.layer(depth))
        room = self.samples - len(tree.finished)
        if not open_ or room < 1 or depth + 1 >= self.plan.max_steps:
            return []
        best = tree.value(open_[0])
        weights = [math.exp((tree.value(s) - best) / self.temperature) for s in open_]
        return [
            self.plan.draw(f"{depth + 1}.{step.id}", n, step)
            for step, n in zip(open_, shares(room, weights), strict=True)
            if n
        ]
