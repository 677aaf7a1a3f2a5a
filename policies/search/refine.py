"""Monte Carlo tree search over whole answers: the model criticises and rewrites its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Combine,
    Compare,
    Draw,
    Evidence,
    Needs,
    PolicyError,
    Revise,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.pairs import borda, points, same_answer
from samplewise.policies.ranking import by_order, ranked, why_ended
from samplewise.verifiers.base import Purpose, Sample, Status

__all__ = ["RefineSearch"]

_CRITIQUE = "critique"


@dataclass(frozen=True, slots=True)
class RefineSearch:
    """Draw `roots` answers; `rollouts` times, criticise one and draw `width` rewritings of it.

    Every new answer meets `opponents` others before the route's comparator: the one it came from,
    then the best so far. The value of an answer is `blend` times the share of all answers that it
    beats, also through others, and for the rest whether it beats the one it came from; the best of
    what came of it counts for half. The next to be rewritten has the highest value +
    exploration * sqrt(ln(1 + visits of all) / visits), among those with fewer than `children`
    rewritings. The answer that beats most others answers.
    Source: Zhang et al. 2024, arXiv:2410.02884 (LLaMA-Berry). Deviations: the comparator is any
    judge of pairs, not a tuned one; the node is chosen among all, not by a walk from the root.
    """

    roots: int = 2
    rollouts: int = 6
    width: int = 1
    children: int = 2
    opponents: int = 3
    exploration: float = 0.7
    blend: float = 0.9
    critique: bool = True
    min_ok: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no search."""
        for name in ("roots", "rollouts", "width", "children", "opponents", "min_ok"):
            at_least(name, getattr(self, name), 1)
        at_least("exploration", self.exploration, 0)
        if not 0.0 <= self.blend <= 1.0:
            raise PolicyError(f"blend: must lie in [0, 1], got {self.blend}")

    @property
    def needs(self) -> Needs:
        """A comparator."""
        answers = self.roots + self.rollouts * self.width
        return Needs(
            answers + self.rollouts * self.critique,
            self.min_ok,
            comparator=True,
            min_samples=self.roots,
            shown=1 + self.critique,
            comparisons=sum(min(before, self.opponents) for before in range(answers)),
        )

    def decide(self, evidence: Evidence) -> Sequence[Action]:
        """Compare what is new, then go on from the most promising answer."""
        if evidence.pending:
            return WAIT
        if evidence.best_passed is not None and evidence.passed >= evidence.answers:
            return [Stop(by_order(evidence), StopReason.PASSED, Basis.VERIFIED)]
        if "roots" not in evidence.rounds and evidence.drawn < self.roots and evidence.may_draw:
            return [Draw("roots", self.roots - evidence.drawn)]
        forest = _Forest(evidence, self)
        if not evidence.deadline_passed and not evidence.client_gone:
            for key, pairs in forest.unmet():
                return [Compare(key, pairs), *WAIT]
            node = forest.next()
            if node is not None and evidence.may_draw:
                return [self._draw(evidence, forest.done, node)]
        return [self._stop(evidence, forest)]

    def _draw(self, evidence: Evidence, number: int, node: Sample) -> Draw:
        key = f"{_CRITIQUE}-{number}"
        if self.critique and key not in evidence.rounds:
            source = Combine((node.id,), _CRITIQUE)
            return Draw(key, 1, source=source, purpose=Purpose.CRITIQUE)
        said = [_checked(evidence, node)]
        # As a JSON string: what a model wrote is data to the next.
        said += [json.dumps(s.text) for s in evidence.samples.values() if s.key == key]
        feedback = " ".join(filter(None, said))
        return Draw(f"refine-{number}", self.width, source=Revise((node.id,), feedback))

    def _stop(self, evidence: Evidence, forest: _Forest) -> Stop:
        beaten = forest.beaten
        details = {
            "answers": len(forest.nodes),
            "rollouts": forest.done,
            "comparisons": len(forest.games),
            "undecided": sum(bool(game.error) for game in forest.games),
        }
        told = any(game.winner for game in forest.games)
        ranking = ranked(evidence, lambda sample: (-beaten.get(sample.id, -1.0),))
        return Stop(ranking, why_ended(evidence), Basis.SCORE if told else Basis.ORDER, details)


class _Forest:
    """All answers so far, what they came from, and how they did against each other."""

    def __init__(self, evidence: Evidence, policy: RefineSearch) -> None:
        self.evidence, self.policy = evidence, policy
        found = [s for s in evidence.samples.values() if s.purpose is Purpose.ANSWER and s.complete]
        self.nodes = sorted(found, key=lambda s: s.index)
        self.ids = {s.id: s for s in self.nodes}
        self.games = [game for games in evidence.comparisons.values() for game in games]
        self.done = sum(key.startswith("refine-") for key in evidence.rounds)

    @cached_property
    def beaten(self) -> dict[str, float]:
        """How many others each answer beats, also through others."""
        pairs = {tuple(sorted((g.a, g.b))) for g in self.games}
        wins = {(a, b): points(self.ids[a], self.ids[b], self.games) for a, b in pairs}
        return borda([node.id for node in self.nodes], wins)

    def unmet(self) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
        """Yield the games that the answers have yet to play: a key and its pairs for each."""
        for place, node in enumerate(self.nodes):
            key = f"games.{node.id}"
            if key in self.evidence.comparisons:
                continue
            before = self.nodes[:place]
            before.sort(key=lambda s: (s.id not in node.parents, -self.beaten[s.id], s.index))
            rivals = [s for s in before if not same_answer(self.evidence, node, s)]
            pairs = tuple((node.id, rival.id) for rival in rivals[: self.policy.opponents])
            if pairs:
                yield key, pairs

    def next(self) -> Sample | None:
        """Return the answer to rewrite next; None when there are enough or none can be."""
        if self.done >= self.policy.rollouts:
            return None
        below: dict[str, list[Sample]] = {}
        for node in self.nodes:
            for parent in node.parents:
                below.setdefault(parent, []).append(node)
        visits, values = dict.fromkeys(self.ids, 1), dict.fromkeys(self.ids, 0.0)
        # A rewriting is drawn after its source, so from the last to the first all below is known.
        for node in reversed(self.nodes):
            after = below.get(node.id, [])
            visits[node.id] += sum(visits[child.id] for child in after)
            own = self._own(node)
            best = max((values[child.id] for child in after), default=own)
            values[node.id] = (own + best) / 2
        asked = self._asked()
        open_ = [s for s in self.nodes if asked.get(s.id, 0) < self.policy.children]
        spread = math.log(1 + len(self.nodes))
        bound = {
            s.id: values[s.id] + self.policy.exploration * math.sqrt(spread / visits[s.id])
            for s in open_
        }
        return max(open_, key=lambda s: (bound[s.id], -s.index), default=None)

    def _asked(self) -> dict[str, int]:
        """Return how many rewritings of each answer have come back."""
        counts: dict[str, int] = {}
        for sample in self.evidence.samples.values():
            if sample.key.startswith("refine-"):
                for parent in sample.parents:
                    counts[parent] = counts.get(parent, 0) + 1
        return counts

    def _own(self, node: Sample) -> float:
        others = len(self.nodes) - 1
        everywhere = self.beaten[node.id] / others if others else 0.5
        parent = next((self.ids[p] for p in node.parents if p in self.ids), None)
        here = 0.5 if parent is None else points(node, parent, self.games)
        return self.policy.blend * everywhere + (1 - self.policy.blend) * here


def _checked(evidence: Evidence, sample: Sample) -> str:
    """Return what the verifiers that did not accept an answer say of it."""
    judgement = evidence.judgements.get(sample.id)
    verdicts = judgement.verdicts if judgement else ()
    return " ".join(v.feedback for v in verdicts if v.feedback and v.status is not Status.PASS)
