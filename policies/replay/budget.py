"""Replay of an allocator: many problems, one total number of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from samplewise.policies.base import Allocator
from samplewise.policies.evidence import Evidence, Finished, Granted, Judged, Running
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.player import ReplayError
from samplewise.policies.replay.records import Problem
from samplewise.verifiers.base import Sample, Task

__all__ = ["spend_budget"]


def spend_budget(
    allocator: Allocator,
    problems: Sequence[Problem],
    orders: Mapping[str, Sequence[int]],
    total: int,
    judge: Judge,
) -> dict[str, Evidence]:
    """Let the allocator spend `total` samples, round by round; return what came of each problem.

    `orders` holds the places of each problem's samples in the order in which they are drawn.

    Raises:
        ReplayError: the allocator gives more than there is.
    """
    open_ = {problem.id: _Open(problem, orders[problem.id], judge) for problem in problems}
    evidence = {id_: one.evidence for id_, one in open_.items()}
    left = total
    while left > 0:
        shares = {id_: n for id_, n in allocator.allocate(evidence, left).items() if n > 0}
        if not shares:
            break
        left -= sum(shares.values())
        if left < 0:
            raise ReplayError(f"the allocator gives {-left} samples more than there are")
        for id_, n in shares.items():
            open_[id_].draw(n)
    return evidence


@dataclass(slots=True)
class _Open:
    problem: Problem
    order: Sequence[int]
    judge: Judge
    evidence: Evidence = field(init=False)

    def __post_init__(self) -> None:
        task = Task(self.problem.id, "replay", b"[]", reference=self.problem.reference)
        self.evidence = Evidence(task, left_samples=len(self.order))

    def draw(self, n: int) -> None:
        first = self.evidence.drawn
        if first + n > len(self.order):
            raise ReplayError(
                f"the allocator asks for {first + n} samples of problem {self.problem.id!r}: "
                f"{len(self.order)} were recorded"
            )
        started = tuple(Running(f"s{i}", i, f"round-{first}") for i in range(first, first + n))
        self.evidence.fold(Granted(f"round-{first}", n, started))
        for running in started:
            recorded = self.problem.samples[self.order[running.index]]
            sample = Sample(
                running.id, running.index, recorded.text, recorded.text, recorded.ended,
                completion_tokens=recorded.tokens, key=running.key,
            )  # fmt: skip
            self.evidence.fold(Finished(sample, verifying=True))
            self.evidence.fold(Judged(self.judge.judge(self.problem, recorded, sample)))
