"""Best-first and Monte Carlo tree search: one step is gone on from at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from samplewise.policies.base import Action, Draw, Evidence, Needs
from samplewise.policies.fixed import at_least
from samplewise.policies.search.tree import Steps, Tree, search
from samplewise.verifiers.base import Sample

__all__ = ["BestFirst", "Mcts"]


@dataclass(frozen=True, slots=True)
class BestFirst:
    """Go on from the open step with the highest score, wherever it stands; `width` steps a time.

    Stops when `answers` paths are finished (a client's `n` if that is more) or after `expansions`.
    When nothing is open, first steps are drawn anew. Source: Kang et al. 2024, arXiv:2405.16265
    (MindStar). Deviations: the queue is not pruned by depth; the drawing anew.
    """

    width: int = 4
    expansions: int = 32
    answers: int = 1
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no search."""
        for name in ("width", "expansions", "answers"):
            at_least(name, getattr(self, name), 1)
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        return self.plan.needs(self.width * self.expansions, self.width)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Expand one step at a time."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        done = tree.evidence.waves
        wanted = max(self.answers, tree.evidence.answers)
        if done >= self.expansions or len(tree.finished) >= wanted:
            return []
        for step in tree.open(list(tree.evidence.samples.values())):
            depth = len(tree.path(step))
            key = f"{depth}.{step.id}"
            if key not in tree.evidence.rounds and depth < self.plan.max_steps:
                return [self.plan.draw(key, self.width, step)]
        return [self.plan.draw(f"0.{done}", self.width, None)]


@dataclass(frozen=True, slots=True)
class Mcts:
    """Walk down from the root by upper confidence bounds and go on from where the walk ends.

    The value of a step is the mean score of everything below and including it; the walk takes the
    child with the highest mean + exploration * sqrt(ln(visits of all) / its visits). Scores stand
    for roll-outs. When nothing can be gone on from, first steps are drawn anew. Deviation from
    textbook UCT: an expansion draws `width` children at once, and no step is expanded twice.
    Source: Kocsis and Szepesvari 2006 (UCT); the comparison in arXiv:2408.00724, sec. 4.
    """

    width: int = 4
    expansions: int = 32
    exploration: float = 1.0
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no search."""
        at_least("width", self.width, 1)
        at_least("expansions", self.expansions, 1)
        at_least("exploration", self.exploration, 0)
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        return self.plan.needs(self.width * self.expansions, self.width)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Expand one step at a time, until the expansions are used up."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        done = tree.evidence.waves
        if done >= self.expansions:
            return []
        step = _Walk(tree, self.exploration, self.plan.max_steps).end()
        if step is None:
            return [self.plan.draw(f"0.{done}", self.width, None)]
        return [self.plan.draw(f"{len(tree.path(step))}.{step.id}", self.width, step)]


class _Walk:
    """Visits and values of every step, added up from the leaves."""

    def __init__(self, tree: Tree, exploration: float, max_steps: int) -> None:
        self.exploration = exploration
        self.children: dict[str, list[Sample]] = {}
        self.visits: dict[str, int] = {}
        self.total: dict[str, float] = {}
        self.live: dict[str, bool] = {}
        samples = sorted(tree.evidence.samples.values(), key=lambda s: s.index)
        open_ = {s.id for s in tree.open(samples)}
        for sample in samples:
            parent = sample.parents[0] if sample.parents else ""
            self.children.setdefault(parent, []).append(sample)
        # A child is drawn after its parent, so from the last to the first all below is known.
        for sample in reversed(samples):
            below = self.children.get(sample.id, [])
            self.visits[sample.id] = 1 + sum(self.visits[child.id] for child in below)
            self.total[sample.id] = tree.value(sample) + sum(self.total[c.id] for c in below)
            depth = len(tree.path(sample))
            asked = f"{depth}.{sample.id}" in tree.evidence.rounds
            fresh = sample.id in open_ and not asked and depth < max_steps
            self.live[sample.id] = fresh or any(self.live[child.id] for child in below)

    def end(self) -> Sample | None:
        """Return the step that the walk ends at; None when nothing can be gone on from."""
        step: Sample | None = None
        while True:
            below = [c for c in self.children.get(step.id if step else "", []) if self.live[c.id]]
            if not below:
                return step
            visits = sum(self.visits[child.id] for child in below)
            step = max(below, key=lambda child: (self._bound(child, visits), -child.index))

    def _bound(self, child: Sample, visits: int) -> float:
        mean = self.total[child.id] / self.visits[child.id]
        return mean + self.exploration * math.sqrt(math.log(visits) / self.visits[child.id])
