"""A made-up problem of several steps, and a stand-in for the engine that plays a search on it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from samplewise.policies.base import Action, Continue, Draw, Policy, Stop
from samplewise.policies.evidence import Evidence, Finished, Granted, Judged, Judgement, Running
from samplewise.verifiers.base import Ended, Sample, Status, Task, Verdict


@dataclass(frozen=True)
class Maze:
    """Every step is worth a number in [0, 1], fixed by its path; an answer has `depth` steps.

    The score of a path is the mean of its steps; an answer above `passes` passes, the others fail.
    """

    seed: int = 0
    depth: int = 3
    passes: float = 2.0
    fails: float = -1.0

    def worth(self, path: tuple[int, ...]) -> float:
        values = [random.Random(f"{self.seed}:{path[: n + 1]}").random() for n in range(len(path))]
        return sum(values) / len(values)

    def status(self, path: tuple[int, ...]) -> Status:
        if len(path) < self.depth:
            return Status.NONE
        worth = self.worth(path)
        return (
            Status.PASS
            if worth > self.passes
            else Status.FAIL
            if worth < self.fails
            else (Status.NONE)
        )


@dataclass
class StepGame:
    """One run of a search. `grant` limits how many steps can be paid for in all."""

    policy: Policy
    maze: Maze
    grant: int = 1_000_000
    seed: int = 0
    paths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.evidence = Evidence(Task("r", "route", b"[]"), seed=self.seed)
        self.evidence.left_samples = self.policy.needs.max_samples

    def play(self) -> Stop:
        for _ in range(5_000):
            new = False
            for action in self.policy.decide(self.evidence):
                if isinstance(action, Stop):
                    return action
                new |= self._applied(action)
            if self.evidence.running:
                self._end(next(iter(self.evidence.running)))
            elif not new:
                raise AssertionError("the policy waits for nothing")
        raise AssertionError("the policy never stops")

    def answers(self) -> list[Sample]:
        return [s for s in self.evidence.samples.values() if s.complete]

    def _applied(self, action: Action) -> bool:
        if not isinstance(action, Draw) or action.key in self.evidence.rounds:
            return False
        self.draws.append(action)
        first = self.evidence.drawn
        n = min(action.n, self.evidence.left_samples, self.grant - first)
        before: tuple[int, ...] = ()
        if isinstance(action.source, Continue):
            before = self.paths[action.source.sample]
        started = tuple(Running(f"s{first + i}", first + i, action.key) for i in range(n))
        self.paths |= {s.id: (*before, s.index) for s in started}
        why = "" if n == action.n else "budget"
        self.evidence.fold(Granted(action.key, action.n, started, why))
        return True

    def _end(self, id_: str) -> None:
        running, path = self.evidence.running[id_], self.paths[id_]
        ended = Ended.EOS if len(path) >= self.maze.depth else Ended.STOP_STRING
        parent = next(
            (p for p, known in self.paths.items() if path[:-1] and known == path[:-1]), ""
        )
        sample = Sample(
            id_,
            running.index,
            f"step {path[-1]}",
            " ".join(map(str, path)),
            ended,
            step=True,
            parents=(parent,) if parent else (),
            key=running.key,
            completion_tokens=5,
        )
        self.evidence.fold(Finished(sample, verifying=True))
        status = self.maze.status(path)
        verdict = Verdict("v", status, score=self.maze.worth(path), answer=str(path[0] % 3))
        class_ = verdict.answer if sample.complete and status is not Status.FAIL else None
        self.evidence.fold(Judged(Judgement(sample, status, (verdict,), verdict.answer, class_)))
