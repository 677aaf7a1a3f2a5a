"""The engine: one loop that asks a policy, draws, verifies and chooses.

`answer` is the whole algorithm. What its words mean stands in `draws`, `checks` and `purse`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from samplewise.policies.base import (
    WAIT,
    Action,
    Cancel,
    Compare,
    Draw,
    Stop,
    Verify,
    Wait,
)
from samplewise.policies.evidence import ClientGone, Deadline, Event, Evidence, Money
from samplewise.policies.ranking import fallback
from samplewise.policies.tiers import MARGINS
from samplewise.proxy.actions import checked
from samplewise.proxy.answers import conclude
from samplewise.proxy.boundary import boundary
from samplewise.proxy.checks import Checks
from samplewise.proxy.draws import Draws
from samplewise.proxy.errors import AnswerError, SamplewiseError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.kept import Kept
from samplewise.proxy.ledger.base import Ledger
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.purse import Purse

__all__ = ["Engine", "answer"]

# Prices and room change slowly; working them out costs more than a decision.
_OFFERS_EVERY_S = 0.1
_log = structlog.get_logger("samplewise.engine")


@dataclass(frozen=True, slots=True)
class Engine:
    """What all runs share."""

    ledger: Ledger
    metrics: Metrics
    kept: Kept


async def answer(job: Job, engine: Engine) -> Answer:
    """Answer one request with the best of several samples.

    Raises:
        AnswerError: there is no answer; says why, with the HTTP status.
        StoreError: the ledger cannot be reached; nothing was dispatched after that.
    """
    async with running(job, engine) as run:
        stop: Stop | None = None
        while stop is None:
            new = False
            for action in run.decide():
                match action:
                    case Draw():
                        new |= await run.draw(action)
                    case Verify():
                        new |= run.checks.ask(action.samples, action.verifier)
                    case Compare():
                        new |= run.checks.compare(action)
                    case Cancel():
                        run.draws.cancel(action.samples)
                    case Wait():
                        run.wake_at(action.until_s)
                    case Stop():
                        stop = action
            if stop is None and run.busy:
                await run.drain()
            elif stop is None and not new:
                # Waiting with nothing in flight is a stop.
                stop = fallback(run.evidence)
    return conclude(job, run.evidence, stop, run.purse, run.draws)


@dataclass(slots=True)
class _Run:
    """The state of one request while it is answered."""

    job: Job
    evidence: Evidence
    purse: Purse
    checks: Checks
    draws: Draws
    events: asyncio.Queue[Event]
    deadline: asyncio.TimerHandle | None = None
    wake: asyncio.TimerHandle | None = None
    offered_at: float = -1.0
    policy_failed: bool = False

    @property
    def busy(self) -> bool:
        """Whether an event can still come by itself."""
        # Tasks that are done but not yet taken off the list have sent their last event already.
        return bool(self.evidence.pending or self.checks.comparing or self._running_tasks())

    def decide(self) -> Sequence[Action]:
        """Ask the policy what to do now."""
        now = asyncio.get_running_loop().time()
        self.evidence.elapsed_s = now - self.job.began
        if now - self.offered_at > _OFFERS_EVERY_S:
            self.offered_at = now
            self.evidence.offers = {n: u.offer() for n, u in self.job.route.upstreams.items()}
        if self.evidence.client_gone:
            return [fallback(self.evidence)]
        if not self.policy_failed:
            try:
                with boundary(partial(_policy_failed, self.job)):
                    return checked(self.job.policy.decide(self.evidence), self.job, self.evidence)
            except AnswerError:
                if not self.evidence.drawn:
                    raise
                self.policy_failed = True
                self.job.warnings.append(
                    "the route's policy failed, and the best of what it had drawn is the answer;"
                    " the operator's log says how"
                )
        # What is on its way is paid for, so it is waited for.
        return WAIT if self.evidence.pending else [fallback(self.evidence)]

    async def draw(self, action: Draw) -> bool:
        """Carry out a draw once; False when its key was applied before."""
        if action.key in self.evidence.rounds:
            return False
        self.job.sources[action.key] = action.source
        self.evidence.fold(await self.draws.start(action))
        return True

    async def drain(self) -> None:
        """Wait for events and fold in all that have come."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        event = await self.events.get()
        self.job.waited_s += loop.time() - began
        self.evidence.elapsed_s = loop.time() - self.job.began
        while True:
            self.evidence.fold(event)
            if self.job.watch is not None:
                self.job.watch(event, self.evidence)
            if isinstance(event, Deadline):
                self.cut()
            if self.events.empty():
                return
            event = self.events.get_nowait()

    def wake_at(self, until_s: float | None) -> None:
        """Make sure the policy is asked again at a time, if nothing happens before."""
        if self.wake is not None:
            self.wake.cancel()
        if until_s is not None:
            loop = asyncio.get_running_loop()
            # Any event makes the loop ask again; this one says nothing new.
            event = Money(self.purse.spent, self.purse.reserved, self.purse.left)
            at = self.job.began + until_s
            self.wake = loop.call_at(at, self.events.put_nowait, event)

    def cut(self) -> None:
        """Cut everything that is in flight; it comes back as events."""
        self.draws.cut()
        loop = asyncio.get_running_loop()
        for task in list(self.checks.tasks):
            if not task.cancelling():
                loop.call_soon(task.cancel)

    def _running_tasks(self) -> set[asyncio.Task[None]]:
        tasks = (*self.draws.calls, *self.checks.tasks)
        return {task for task in tasks if not task.done()}

    async def close(self) -> None:
        """Cancel what is in flight, let every sample settle, and fold in what came of it."""
        for timer in (self.deadline, self.wake):
            if timer is not None:
                timer.cancel()
        self.checks.closed = self.draws.closed = True
        try:
            if self._running_tasks():
                await _shielded(self._cut_all())
        finally:
            while not self.events.empty():
                self.evidence.fold(self.events.get_nowait())
            await self.purse.close()

    async def _cut_all(self) -> None:
        while pending := self._running_tasks():
            # Again after each wait: a call that was just being sent may have come in between.
            self.cut()
            await asyncio.wait(pending)


async def _shielded(work: Coroutine[Any, Any, None]) -> None:
    """Await work to its end even when the caller is cancelled meanwhile; then cancel the caller."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
        raise


@asynccontextmanager
async def running(job: Job, engine: Engine) -> AsyncIterator[_Run]:
    """Open a run and close it whatever happens: nothing in flight, nothing unsettled."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    needs = job.policy.needs
    evidence = Evidence(
        job.task,
        seed=job.seed,
        answers=job.request.n,
        left_samples=job.most_samples,
        deadline_s=job.bound_s,
        prior=_learnt(job),
        left=job.limit.nano,
    )
    job.evidence = evidence
    purse = Purse(
        ledger=engine.ledger,
        request_id=job.request_id,
        route=job.route.name,
        accounts=job.accounts,
        key="" if job.key is None else job.key.id,
        limit=job.limit,
        told=evidence.fold,
        posted=engine.metrics.posted_to(job.route.name),
    )
    failure: SamplewiseError | None = None
    async with asyncio.TaskGroup() as group:
        emit = events.put_nowait
        checks = Checks(job, evidence, purse, group, emit, engine.metrics)
        draws = Draws(job, evidence, purse, checks, group, emit, engine.metrics, needs)
        run = _Run(job, evidence, purse, checks, draws, events)
        job.when_left = partial(emit, ClientGone())
        if job.left:
            emit(ClientGone())
        try:
            _set_deadline(run)
            yield run
        except SamplewiseError as error:
            # Raised again outside, so that the group does not wrap it.
            failure = error
        finally:
            job.when_left = None
            await run.close()
            engine.metrics.sampled(job.route.name, evidence)
            if needs.margins:
                job.route.margins.note(evidence)
            if evidence.client_gone:
                engine.kept.keep(job, evidence)
    if failure is not None:
        raise failure


def _learnt(job: Job) -> Mapping[str, Any]:
    """Return what the route has learnt by now: fixed for the whole request."""
    route = job.route
    if not job.policy.needs.margins:
        return route.prior
    return {**route.prior, MARGINS: route.margins.known()}


def _set_deadline(run: _Run) -> None:
    at = run.job.leaves_at
    if at is not None:
        loop = asyncio.get_running_loop()
        run.deadline = loop.call_at(at, run.events.put_nowait, Deadline())


def _policy_failed(job: Job, error: Exception) -> AnswerError:
    _log.error(
        "policy failed",
        request_id=job.request_id,
        route=job.route.name,
        error=f"{type(error).__name__}: {error}",
    )
    return AnswerError("the route's policy failed; the operator's log says how")
