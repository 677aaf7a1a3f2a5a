"""Beam search over steps, with or without looking ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from samplewise.policies.base import Action, Draw, Evidence, Needs, PolicyError
from samplewise.policies.fixed import at_least
from samplewise.policies.search.tree import Steps, Tree, search
from samplewise.verifiers.base import Sample

__all__ = ["Beam"]


@dataclass(frozen=True, slots=True)
class Beam:
    """Draw `samples` first steps, keep the best of every `width`, go on `width` times from each.

    Finished paths are set aside and make the beam smaller, so that about `samples` answers come in
    the end. With `lookahead` k, a step is valued by the step that stands k steps further on when it
    is continued at temperature 0; these steps are paid for and can become answers themselves.
    Source: Snell et al. 2024, arXiv:2408.03314, sec. 5.2 and app. on beam and lookahead search.
    """

    samples: int = 16
    width: int = 4
    lookahead: int = 0
    plan: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        """Refuse numbers that make no beam."""
        at_least("width", self.width, 1)
        at_least("samples", self.samples, self.width)
        at_least("lookahead", self.lookahead, 0)
        if self.lookahead >= self.plan.max_steps:
            raise PolicyError(
                f"lookahead: must be less than max_steps {self.plan.max_steps}, "
                f"got {self.lookahead}"
            )
        self.plan.check()

    @property
    def needs(self) -> Needs:
        """Continuation and a verifier that scores steps."""
        layer = -(-self.samples // self.width) * self.width  # a beam is never gone on from in part
        most = layer * self.plan.max_steps * (self.lookahead + 1)
        needs = self.plan.needs(most, self.samples)
        return replace(needs, shown=needs.shown + self.lookahead)

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Draw layer after layer."""
        return search(evidence, self.plan, self._grow)

    def _grow(self, tree: Tree) -> Sequence[Draw]:
        if tree.depth < 0:
            return [self.plan.draw("0", self.samples, None)]
        depth = tree.depth
        layer = tree.layer(depth)
        room = self.samples - len(tree.finished)
        open_ = tree.open(layer)
        if not open_ or room < 1 or depth + 1 >= self.plan.max_steps:
            return []
        ahead = self._look(tree, depth, open_)
        if ahead:
            return ahead
        open_.sort(key=lambda s: (-self._value(tree, depth, s), s.index))
        kept = open_[: max(1, -(-room // self.width))]
        return [self.plan.draw(f"{depth + 1}.{s.id}", self.width, s) for s in kept]

    def _look(self, tree: Tree, depth: int, open_: Sequence[Sample]) -> Sequence[Draw]:
        """Return the next steps of the looks ahead that have not come to their end."""
        draws = []
        for step in open_:
            for reach in range(1, min(self.lookahead, self.plan.max_steps - depth - 1) + 1):
                end = self._ahead(tree, depth, step, reach - 1)
                key = _key(depth, step, reach)
                if end is None or not tree.open([end]):
                    break
                if key not in tree.evidence.rounds:
                    draws.append(self.plan.draw(key, 1, end, temperature=0))
                    break
        return draws

    def _ahead(self, tree: Tree, depth: int, step: Sample, reach: int) -> Sample | None:
        if reach == 0:
            return step
        found = tree.by_key.get(_key(depth, step, reach), [])
        return found[0] if found else None

    def _value(self, tree: Tree, depth: int, step: Sample) -> float:
        ends = [self._ahead(tree, depth, step, reach) for reach in range(self.lookahead + 1)]
        return tree.value([end for end in ends if end is not None][-1])


def _key(depth: int, step: Sample, reach: int) -> str:
    # Not of the form of a layer: what is seen ahead is no candidate of its own.
    return f"ahead-{depth}-{reach}.{step.id}"
