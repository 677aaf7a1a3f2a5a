"""Particle filter over steps: paths are resampled by their scores after every step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.base import Action, Draw, Evidence, Needs, rng
from samplewise.policies.fixed import at_least, positive
from samplewise.policies.search.tree import Steps, Tree, search

__all__ = ["ParticleFilter"]

_EDGE = 1e-6  # a score of 0 or 1 has no logit


@dataclass(frozen=True, slots=True)
class ParticleFilter:
    """Carry `samples` particles; after every step the open ones are drawn anew, with replacement.

    A particle with score R is drawn with weight softmax(logit(R) / temperature). Finished particles
    are set aside. Source: Puri et al. 2025, arXiv:2502.01618, sec. 3. Deviation: finished particles
    take no part in the resampling, so that nothing finished is paid for again or lost.
    """

    samples: int = 16
    temperature: float = 1.0
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no filter."""
        at_least("samples", self.samples, 1)
        positive("temperature", self.temperature)
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        return self.plan.needs(self.samples * self.plan.max_steps, self.samples)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw one step of every particle at a time."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        depth = tree.depth
        if depth < 0:
            return [self.plan.draw("0", self.samples, None)]
        open_ = tree.open(tree.layer(depth))
        room = self.samples - len(tree.finished)
        if not open_ or room < 1 or depth + 1 >= self.plan.max_steps:
            return []
        logits = [_logit(tree.value(step)) / self.temperature for step in open_]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        chance = rng(tree.evidence.seed, f"resample-{depth}")
        drawn = Counter(s.id for s in chance.choices(open_, weights, k=room))
        return [
            self.plan.draw(f"{depth + 1}.{step.id}", drawn[step.id], step)
            for step in open_
            if drawn[step.id]
        ]


def _logit(score: float) -> float:
    score = min(max(score, _EDGE), 1 - _EDGE)
    return math.log(score / (1 - score))
