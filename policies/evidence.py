"""Evidence: all that is known of one request, as an append-only log with maintained tallies.

The engine folds events in; policies only read. A fold and a decision cost the same at 10 and at
1,000 samples, because every figure that a stop rule reads is kept up to date here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from samplewise.policies.launch_order import LaunchOrder
from samplewise.policies.price import Price
from samplewise.policies.votes import Votes
from samplewise.verifiers.base import Comparison, Ended, Sample, Status, Task, Verdict

# The key of the one sample that is looked at before a policy's own draws begin.
TOOLS_FIRST = "tools-first"

__all__ = [
    "TOOLS_FIRST",
    "Asked",
    "ClientGone",
    "Compared",
    "Deadline",
    "Event",
    "Evidence",
    "Failed",
    "Finished",
    "Granted",
    "Judged",
    "Judgement",
    "Money",
    "Offer",
    "Progressed",
    "Running",
]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a backend offers now. `p50_s` is None unknown.

    `free_slots` is None without a limit, and 0 while requests wait at all of its servers.
    `room` is how many more samples its servers cope with, None where they do not say. What it
    honours is True, False, or None where nobody knows.
    """

    backend: str
    price: Price
    p50_s: float | None = None
    free_slots: int | None = None
    room: int | None = None
    honours_n: bool | None = None
    streams: bool = True
    logprobs: bool | None = None
    seed: bool | None = None
    stop: bool | None = None
    continuation: bool | None = None
    structured: bool | None = None
    aborts: bool | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A sample in flight: tokens counted so far and, where asked for, its log-probabilities.

    `lowest_group` is the confidence of its least sure group so far, None before the first is whole.
    """

    id: str
    index: int
    key: str
    tokens: int = 0
    text: str = ""
    mean_logprob: float | None = None
    lowest_logprob: float | None = None
    lowest_group: float | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the verifiers say of one sample together.

    `status`: pass when every required verifier passed, fail when any failed, error when any could
    not tell, else none. `answer_class` is the representative of its vote class.
    """

    sample: Sample
    status: Status
    verdicts: tuple[Verdict, ...] = ()
    answer: str | None = None
    answer_class: str | None = None

    def score(self, verifier: str = "") -> float | None:
        """Return the score of one verifier, or of the last that gave one when none is named."""
        for verdict in reversed(self.verdicts):
            if verdict.score is not None and verifier in ("", verdict.verifier):
                return verdict.score
        return None

    def step_scores(self, verifier: str = "") -> tuple[float, ...]:
        """Return the step scores of one verifier, or of the last that gave any."""
        for verdict in reversed(self.verdicts):
            if verdict.step_scores and verifier in ("", verdict.verifier):
                return verdict.step_scores
        return ()


@dataclass(frozen=True, slots=True)
class Granted:
    """What became of one `Draw`: how many were asked, which were started, and why less."""

    key: str
    asked: int
    started: tuple[Running, ...] = ()
    why: str = ""

    @property
    def granted(self) -> int:
        """Number of samples that were dispatched."""
        return len(self.started)


@dataclass(frozen=True, slots=True)
class Progressed:
    """A running sample has come further."""

    running: Running


@dataclass(frozen=True, slots=True)
class Finished:
    """A sample ended; `verifying` says that a `Judged` event will follow."""

    sample: Sample
    verifying: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A sample was lost: data, not an exception. `reason` is a fixed word, `detail` for logs."""

    id: str
    index: int
    key: str
    backend: str
    reason: str
    detail: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    cost_nano: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Verifiers that run only when asked for were started on some samples, one `Judged` each."""

    verifier: str
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The verifiers are done with a sample, or say more of one that was judged before."""

    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Compared:
    """The answers to one `Compare` action, in the order of its pairs."""

    key: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Money:
    """The request's account in nano-dollars; `left` is None without a limit."""

    spent: int
    reserved: int
    left: int | None


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time for this request is over."""


@dataclass(frozen=True, slots=True)
class ClientGone:
    """The client closed its connection."""


Event = (
    Granted
    | Progressed
    | Finished
    | Failed
    | Asked
    | Judged
    | Compared
    | Money
    | Deadline
    | ClientGone
)


@dataclass(slots=True)
class Evidence:
    """All that is known of one request so far. Policies read it; only the engine folds.

    `samples` holds every ended sample in order of arrival, cut ones too (`good` counts the others,
    `good_at` says when each of these came); `judgements` those whose verifiers are done. `votes`
    counts them as they come, `launched` in the order of dispatch; one that fails later loses its
    vote. `left_samples` is how many more may be drawn. Times are in seconds since the request
    began, money in nano-dollars.
    """

    task: Task
    seed: int = 0
    answers: int = 1
    left_samples: int = 1_000_000
    deadline_s: float | None = None
    offers: Mapping[str, Offer] = field(default_factory=dict)
    prior: Mapping[str, Any] = field(default_factory=dict)

    log: list[Event] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    rounds: dict[str, Granted] = field(default_factory=dict)
    comparisons: dict[str, tuple[Comparison, ...]] = field(default_factory=dict)
    votes: Votes = field(default_factory=Votes)
    launched: LaunchOrder = field(default_factory=LaunchOrder)
    best_passed: str | None = None
    drawn: int = 0
    good: int = 0
    complete: int = 0
    good_at: list[float] = field(default_factory=list)
    passed: int = 0
    rejected: int = 0
    judging: int = 0
    spent: int = 0
    reserved: int = 0
    left: int | None = None
    elapsed_s: float = 0.0
    refused: bool = False
    deadline_passed: bool = False
    client_gone: bool = False

    @property
    def pending(self) -> int:
        """Samples that are still running or being verified."""
        return len(self.running) + self.judging

    @property
    def waves(self) -> int:
        """Draws applied so far, without the first look for tools: the next wave's number."""
        return len(self.rounds) - (TOOLS_FIRST in self.rounds)

    @property
    def may_draw(self) -> bool:
        """Whether another sample could be granted: no limit has refused one, and time is left."""
        return (
            self.left_samples > 0
            and not self.refused
            and not self.deadline_passed
            and not self.client_gone
        )

    def fitting(self, n: int, backend: str = "") -> int:
        """Return how many of `n` samples to draw now: one at least where nothing is pending.

        No more than the servers of the backend cope with; without a name, the first of the route.
        """
        offer = self.offers.get(backend or next(iter(self.offers), ""))
        if offer is None or offer.room is None:
            return n
        return min(n, max(offer.room, 0 if self.pending else 1))

    def fold(self, event: Event) -> None:
        """Add one event to the log and bring the tallies up to date.

        In constant time, but for a verdict that takes an earlier one back: then all are counted.
        """
        self.log.append(event)
        match event:
            case Progressed():
                if event.running.id in self.running:
                    self.running[event.running.id] = event.running
            case Money():
                self.spent, self.reserved, self.left = event.spent, event.reserved, event.left
            case Finished():
                self._finished(event)
            case Judged():
                self._judged(event.judgement)
            case Granted():
                self._granted(event)
            case Failed():
                self.running.pop(event.id, None)
                self.failed[event.id] = event
                self.launched.settle(event.index)
            case Asked():
                self.judging += len(event.samples)
            case Compared():
                self.comparisons[event.key] = event.comparisons
            case Deadline():
                self.deadline_passed = True
            case ClientGone():
                self.client_gone = True

    def _granted(self, event: Granted) -> None:
        self.rounds[event.key] = event
        granted = len(event.started)
        self.refused |= not granted
        self.drawn += granted
        self.left_samples -= granted
        for running in event.started:
            self.running[running.id] = running

    def _finished(self, event: Finished) -> None:
        sample = event.sample
        self.running.pop(sample.id, None)
        self.samples[sample.id] = sample
        if sample.ended is not Ended.CUT:
            self.good += 1
            self.good_at.append(self.elapsed_s)
        self.complete += sample.complete
        self.judging += event.verifying
        if not event.verifying:
            self.launched.settle(sample.index)

    def _judged(self, judgement: Judgement) -> None:
        sample = judgement.sample
        before = self.judgements.get(sample.id)
        self.judgements[sample.id] = judgement
        self.judging -= 1
        if before is None:
            self._vote(judgement)
        elif _voter(before) != _voter(judgement):
            self._count_again(sample.index)
        status = judgement.status
        was = before.status if before else Status.NONE
        if status is not was:
            self.passed += (status is Status.PASS) - (was is Status.PASS)
            self.rejected += (status is Status.FAIL) - (was is Status.FAIL)
        if status is Status.PASS:
            best = self.best_passed
            if best is None or sample.index < self.samples[best].index:
                self.best_passed = sample.id
        elif self.best_passed == sample.id:
            self.best_passed = self._first_passed()

    def _vote(self, judgement: Judgement) -> None:
        sample, answer = judgement.sample, _voter(judgement)
        if answer is None:
            self.votes.skip()
        else:
            self.votes.add(answer, sample.index)
        self.launched.settle(sample.index, answer)

    def _count_again(self, index: int) -> None:
        # Only when a verifier that was asked for fails a sample that had voted, so it is rare.
        self.votes = Votes()
        self.launched.open(index)
        for judgement in self.judgements.values():
            self._vote(judgement)

    def _first_passed(self) -> str | None:
        # Only when a later verdict takes a pass back, so the scan over all samples is rare.
        passed = [j.sample for j in self.judgements.values() if j.status is Status.PASS]
        return min(passed, key=lambda sample: sample.index).id if passed else None


def _voter(judgement: Judgement) -> str | None:
    """Return the class that a sample votes for; None for one that has no vote."""
    votes = judgement.sample.complete and judgement.status is not Status.FAIL
    return judgement.answer_class if votes else None
