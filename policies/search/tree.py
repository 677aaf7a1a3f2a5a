"""The paths of a step search, read from the evidence: what all policies of this package share.

A path is a chain of samples, each drawn by `Continue` from the one before. A step that ended at a
stop string can be gone on from; one that the model ended by itself is a whole answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from samplewise.policies.base import (
    WAIT,
    Action,
    Basis,
    Continue,
    Draw,
    Evidence,
    Fresh,
    Needs,
    PolicyError,
    Stop,
    StopReason,
)
from samplewise.policies.fixed import at_least
from samplewise.policies.ranking import by_score, why_ended
from samplewise.policies.weighing import by_weight
from samplewise.verifiers.base import Ended, Sample, Status

__all__ = ["Steps", "Tree", "search", "shares"]


@dataclass(frozen=True, slots=True)
class Steps:
    """How steps are drawn, scored, and which finished path answers in the end.

    Args:
        score: the verifier whose score in [0, 1] values a path so far; empty: the last that gives
            one. A path without a score counts 0.
        stop: strings that end a step.
        max_steps: most steps of one path.
        step_tokens: most tokens of one step; None leaves it to the route.
        min_score: a step with a lower score is not gone on from.
        steps: how the scores along a finished path become one: the last, the least, the product.
        choice: `best` takes the path of the highest value, `weighted_vote` the answer whose paths'
            values add up to most.

    Source: Snell et al. 2024, arXiv:2408.03314, app. E (last, min, prod); Wu et al. 2024,
    arXiv:2408.00724, sec. 3 (weighted vote over the leaves).
    """

    score: str = ""
    stop: tuple[str, ...] = ("\n\n",)
    max_steps: int = 40
    step_tokens: int | None = None
    min_score: float = 0.0
    steps: Literal["last", "min", "prod"] = "last"
    choice: Literal["best", "weighted_vote"] = "best"

    def check(self) -> None:
        """Raise `PolicyError` for what cannot be."""
        at_least("max_steps", self.max_steps, 1)
        if not self.stop or not all(self.stop):
            raise PolicyError("stop: needs at least one string that is not empty")
        if self.step_tokens is not None:
            at_least("step_tokens", self.step_tokens, 1)
        if not 0.0 <= self.min_score <= 1.0:
            raise PolicyError(f"min_score: must lie in [0, 1], got {self.min_score}")
        if self.steps not in ("last", "min", "prod"):
            raise PolicyError(f"steps: must be last, min or prod, got {self.steps!r}")
        if self.choice not in ("best", "weighted_vote"):
            raise PolicyError(f"choice: must be best or weighted_vote, got {self.choice!r}")

    def needs(self, max_samples: int, min_samples: int) -> Needs:
        """Return what every search needs: continuation and scores of steps."""
        return Needs(
            max_samples=max_samples,
            min_samples=min_samples,
            continuation=True,
            step_scores=True,
            answers=self.choice == "weighted_vote",
            verdicts=not self.score,
            shown=self.max_steps,
            scores=(self.score,) if self.score else (),
        )

    def draw(self, key: str, n: int, parent: Sample | None, **params: Any) -> Draw:
        """Return the draw of `n` steps after `parent`, or of first steps."""
        cap = {} if self.step_tokens is None else {"max_tokens": self.step_tokens}
        source = Fresh() if parent is None else Continue(parent.id)
        return Draw(key, n, source=source, params={"stop": list(self.stop), **cap, **params})


@dataclass(frozen=True)
class Tree:
    """All paths of one run. Costs time in proportion to the samples: build it between layers only.

    `by_key` has the samples of each draw, by draw index.
    """

    evidence: Evidence
    plan: Steps
    by_key: dict[str, list[Sample]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the samples by the draw they came from."""
        for sample in sorted(self.evidence.samples.values(), key=lambda s: s.index):
            self.by_key.setdefault(sample.key, []).append(sample)

    def layer(self, depth: int) -> list[Sample]:
        """Return the steps at a depth, whose draws are called `DEPTH` or `DEPTH.anything`."""
        prefix = f"{depth}."
        return [
            sample
            for key, samples in self.by_key.items()
            if key == str(depth) or key.startswith(prefix)
            for sample in samples
        ]

    @cached_property
    def depth(self) -> int:
        """The depth of the newest layer; -1 before the first draw."""
        heads = (key.partition(".")[0] for key in self.evidence.rounds)
        return max((int(head) for head in heads if head.isdecimal()), default=-1)

    @cached_property
    def finished(self) -> list[Sample]:
        """Whole answers, as they came."""
        return [s for s in self.evidence.samples.values() if s.complete]

    def open(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the steps that can be gone on from, the best first.

        What failed a verifier or scores too low is left out. A tie goes to the lowest draw index.
        """
        found = [
            s
            for s in samples
            if s.step
            and s.ended is Ended.STOP_STRING
            and not self._bad(s)
            and self.value(s) >= self.plan.min_score
        ]
        return sorted(found, key=lambda s: (-self.value(s), s.index))

    def value(self, sample: Sample) -> float:
        """Return the score of a path up to this sample, 0 without one."""
        judgement = self.evidence.judgements.get(sample.id)
        if judgement is None:
            return 0.0
        score = judgement.score(self.plan.score)
        if score is None:
            given = judgement.step_scores(self.plan.score)
            return given[-1] if given else 0.0
        return score

    def path_value(self, sample: Sample) -> float:
        """Return the scores along a path as one number."""
        values = [self.value(step) for step in self.path(sample)]
        match self.plan.steps:
            case "last":
                return values[-1]
            case "min":
                return min(values)
            case "prod":
                return math.prod(values)

    def path(self, sample: Sample) -> list[Sample]:
        """Return the steps from the first to this one."""
        path = [sample]
        while path[-1].parents:
            path.append(self.evidence.samples[path[-1].parents[0]])
        return path[::-1]

    def stop(self, reason: StopReason) -> Stop:
        """Return the end of the run: the finished path that the rule prefers comes first."""
        passed = any(self._passed(sample) for sample in self.finished)
        details = {
            "rule": self.plan.choice,
            "paths": len(self.finished),
            "depth": self.depth + 1,
        }
        if self.plan.choice == "best":
            ranking = by_score(self.evidence, self.path_value)
            basis = Basis.SCORE
        else:
            weights = {sample.id: self.path_value(sample) for sample in self.finished}
            ranking = by_weight(self.evidence, weights)
            basis = Basis.VOTES
        return Stop(ranking, reason, Basis.VERIFIED if passed else basis, details)

    def verified(self) -> bool:
        """Tell whether as many finished paths passed their verifiers as answers are wanted."""
        passed = sum(self._passed(sample) for sample in self.finished)
        return passed >= self.evidence.answers

    def _bad(self, sample: Sample) -> bool:
        judgement = self.evidence.judgements.get(sample.id)
        return judgement is not None and judgement.status is Status.FAIL

    def _passed(self, sample: Sample) -> bool:
        judgement = self.evidence.judgements.get(sample.id)
        return judgement is not None and judgement.status is Status.PASS


def search(
    evidence: Evidence, plan: Steps, grow: Callable[[Tree], Sequence[Draw]]
) -> Sequence[Action]:
    """Go on with what `grow` wants drawn next, until it wants nothing or a path is verified.

    Nothing is decided while steps run or are judged: the next layer needs all of this one.
    """
    if evidence.pending:
        return WAIT
    tree = Tree(evidence, plan)
    if tree.finished and tree.verified():
        return [tree.stop(StopReason.PASSED)]
    if evidence.may_draw:
        draws = grow(tree)
        if draws:
            return draws
    return [tree.stop(why_ended(evidence))]


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide a whole number by weights of at least 0; largest remainders first, then the order.

    The parts add up to `total` exactly, also where all weights are 0.
    """
    whole = math.fsum(weights)
    if not weights:
        return []
    exact = [total * (w / whole if whole else 1 / len(weights)) for w in weights]
    parts = [math.floor(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts
