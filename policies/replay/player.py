"""Play a policy on the recorded samples of one problem, with a simulated clock.

The policy is the object that runs live, and sees the events that the engine would fold.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from samplewise.policies.base import (
    Cancel,
    Compare,
    Continue,
    Draw,
    Fresh,
    Policy,
    Revise,
    Source,
    Stop,
    Verify,
    Wait,
)
from samplewise.policies.evidence import (
    Evidence,
    Finished,
    Granted,
    Judged,
    Money,
    Offer,
    Running,
)
from samplewise.policies.price import Price, Usage
from samplewise.policies.ranking import fallback
from samplewise.policies.replay.chance import hashed
from samplewise.policies.replay.judging import Judge
from samplewise.policies.replay.records import Problem, RecordedSample, prompt_tokens, right
from samplewise.policies.replay.run import Run
from samplewise.verifiers.base import Ended, Sample, Task

__all__ = ["Player", "ReplayError"]

_Order = Literal["arrival", "launch"]


class ReplayError(Exception):
    """A policy asks for what was not recorded; the message says what, of which problem."""


@dataclass(frozen=True, slots=True)
class Player:
    """What all runs of a replay share.

    `prices` by backend; `tokens_per_s` gives the duration of samples that have none recorded.
    In order `launch` results are held back until all samples before them have come. Fresh draws
    that name no backend take from `backend`, as a route's first one is asked (empty: from any).
    """

    prices: Mapping[str, Price]
    tokens_per_s: float = 50.0
    order: _Order = "arrival"
    judge: Judge = field(default_factory=Judge)
    seed: int = 0
    backend: str = ""

    def play(self, policy: Policy, problem: Problem, order: Sequence[int], turn: int = 0) -> Run:
        """Replay one problem; `order` holds the places of its samples, `turn` numbers the pass.

        Raises:
            ReplayError: the policy asks for what the recording does not have.
        """
        return _Game(self, policy, problem, order, turn).play()

    def seconds(self, sample: RecordedSample) -> float:
        """Return how long a sample took."""
        return sample.tokens / self.tokens_per_s if sample.seconds is None else sample.seconds


@dataclass(slots=True)
class _Game:
    player: Player
    policy: Policy
    problem: Problem
    order: Sequence[int]
    turn: int
    now: float = 0.0
    evidence: Evidence = field(init=False)
    places: list[int] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    queue: list[tuple[float, int]] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    latest: float = 0.0
    tokens: int = 0
    by_call: int = 0
    by_wave: int = 0

    def __post_init__(self) -> None:
        task = Task(self.problem.id, "replay", b"[]", reference=self.problem.reference)
        self.evidence = Evidence(
            task,
            seed=hashed(self.player.seed, "policy", self.problem.id, self.turn) >> 1,
            left_samples=self.policy.needs.max_samples,
            offers={name: Offer(name, price) for name, price in self.player.prices.items()},
        )

    def play(self) -> Run:
        while True:
            new, wake = False, self.now
            self.evidence.elapsed_s = self.now
            for action in self.policy.decide(self.evidence):
                match action:
                    case Stop():
                        return self._result(action)
                    case Draw():
                        new |= self._draw(action)
                    case Cancel():
                        new |= self._cancel(action)
                    case Wait():
                        wake = self.now if action.until_s is None else action.until_s
                    case Verify() | Compare():
                        kind = type(action).__name__
                        raise self._missing(f"{kind}: answers to it are not recorded")
            if self.queue and self.now < wake < self.queue[0][0]:
                self.now = wake
            elif self.queue:
                self._advance()
            elif not new:
                # As in the engine: waiting with nothing in flight is a stop.
                return self._result(fallback(self.evidence))

    def _draw(self, draw: Draw) -> bool:
        if draw.key in self.evidence.rounds:
            return False
        pool = self._pool(draw)
        n = min(draw.n, self.evidence.left_samples)
        if isinstance(draw.source, Fresh) and len(pool) < n:
            raise self._missing(
                f"{n} more samples{_of(draw)}: {len(pool)} are left of those recorded; let it draw "
                "fewer, as NAME:SAMPLES, or record more"
            )
        started = []
        for place in pool[:n]:
            index = len(self.places)
            self.places.append(place)
            self.began.append(self.now)
            self.used.add(place)
            end = self.now + self.player.seconds(self.problem.samples[place])
            if self.player.order == "launch":
                end = self.latest = max(self.latest, end)
            heapq.heappush(self.queue, (end, index))
            started.append(Running(f"s{index}", index, draw.key))
        if started:
            self.by_wave += self._prompt(self.problem.samples[pool[0]])
        why = "" if len(started) == draw.n else "recorded"
        self.evidence.fold(Granted(draw.key, draw.n, tuple(started), why))
        return True

    def _pool(self, draw: Draw) -> list[int]:
        """Return the places that a draw takes from, in this pass's order."""
        kind, parents, variant = _wanted(draw.source)
        places = tuple(self.places[int(id_[1:])] for id_ in parents)
        backend = draw.backend or (self.player.backend if kind == "fresh" else "")
        found = []
        recorded = kind == "fresh"
        for place in self.order:
            sample = self.problem.samples[place]
            recorded |= sample.source == kind
            if (
                place not in self.used
                and sample.source == kind
                and sample.parents == places
                and sample.variant == variant
                and backend in ("", sample.backend)
            ):
                found.append(int(place))
        if not recorded:
            raise self._missing(f"samples of the kind {kind!r}: none was recorded")
        return found

    def _advance(self) -> None:
        self.now, index = heapq.heappop(self.queue)
        self.evidence.elapsed_s = self.now
        sample = self._sample(index, cut=False)
        self.evidence.fold(Finished(sample, verifying=True))
        recorded = self.problem.samples[self.places[index]]
        self.evidence.fold(Judged(self.player.judge.judge(self.problem, recorded, sample)))
        self.evidence.fold(Money(self.by_call, 0, None))

    def _cancel(self, action: Cancel) -> bool:
        wanted = {int(id_[1:]) for id_ in action.samples}
        cut = [index for _, index in self.queue if index in wanted]
        self.queue = [entry for entry in self.queue if entry[1] not in wanted]
        heapq.heapify(self.queue)
        for index in sorted(cut):
            self.evidence.fold(Finished(self._sample(index, cut=True)))
        return bool(cut)

    def _sample(self, index: int, *, cut: bool) -> Sample:
        """Return a sample as it ends now, and pay for it."""
        recorded = self.problem.samples[self.places[index]]
        long = self.player.seconds(recorded)
        tokens = recorded.tokens
        if cut and self.now - self.began[index] < long:
            tokens = int(tokens * (self.now - self.began[index]) / long)
        price = self.player.prices[recorded.backend]
        completion = price.cost_nano(Usage(completion=tokens))
        self.tokens += tokens
        self.by_call += completion + self._prompt(recorded)
        self.by_wave += completion
        text = recorded.text
        return Sample(
            id=f"s{index}",
            index=index,
            text="" if cut else text,
            path_text="" if cut else text,
            ended=Ended.CUT if cut else recorded.ended,
            step=recorded.ended is Ended.STOP_STRING,
            prompt_tokens=prompt_tokens(self.problem, recorded),
            completion_tokens=tokens,
            cost_nano=completion,
            seconds=self.now - self.began[index],
            backend=recorded.backend,
            key=self.evidence.running[f"s{index}"].key,
            logprobs=None if cut else recorded.logprobs,
        )

    def _prompt(self, sample: RecordedSample) -> int:
        price = self.player.prices[sample.backend]
        return price.cost_nano(Usage(prompt=prompt_tokens(self.problem, sample)))

    def _result(self, stop: Stop) -> Run:
        for _, index in sorted(self.queue):
            self._sample(index, cut=True)
        done = [self.places[s.index] for s in self.evidence.samples.values() if s.complete]
        chosen = self.places[int(stop.ranking[0][1:])] if stop.ranking else None
        samples = self.problem.samples
        return Run(
            chosen=chosen,
            right=chosen is not None and bool(right(self.problem, samples[chosen])),
            covered=any(right(self.problem, samples[place]) for place in done),
            samples=len(self.places),
            waves=sum(bool(granted.started) for granted in self.evidence.rounds.values()),
            tokens=self.tokens,
            nano_by_call=self.by_call,
            nano_by_wave=self.by_wave,
            seconds=self.now,
            reason=str(stop.reason),
        )

    def _missing(self, what: str) -> ReplayError:
        return ReplayError(f"the policy asks for {what} (problem {self.problem.id!r})")


def _wanted(source: Source) -> tuple[str, tuple[str, ...], str]:
    """Return the kind of samples that a source draws, their parents' ids and the variant."""
    match source:
        case Fresh():
            return "fresh", (), source.variant
        case Continue():
            return "continue", (source.sample,), ""
        case Revise():
            return "revise", source.samples, ""
        case _:
            return "combine", source.samples, ""


def _of(draw: Draw) -> str:
    variant = draw.source.variant if isinstance(draw.source, Fresh) else ""
    said = f" of backend {draw.backend!r}" if draw.backend else ""
    return said + (f" of prompt {variant!r}" if variant else "")
