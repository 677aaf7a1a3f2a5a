"""One upstream call from reservation to settlement, as the samples it was sent for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from samplewise.policies.evidence import Event, Failed, Progressed, Running
from samplewise.proxy.backends.base import (
    Broken,
    Call,
    Done,
    Progress,
    RawEvents,
    Started,
    Totals,
    Trace,
)
from samplewise.proxy.billing import CallFacts, settlements
from samplewise.proxy.ledger.base import Hold, Settlement
from samplewise.proxy.pool import Host
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Ended, Purpose, Sample

__all__ = ["CLIENT_FAULTS", "Slot", "Trip", "cut_sample", "finished_sample", "lost"]

# The client's own mistake: another upstream would refuse it too, and the client must see it.
CLIENT_FAULTS = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Slot:
    """A sample to be drawn: its place in the draw order and where it comes from.

    `before` is the text of its ancestors, with the stop string that ended the last of them.
    """

    id: str
    index: int
    key: str
    step: bool = False
    before: str = ""
    parents: tuple[str, ...] = ()
    purpose: Purpose = Purpose.ANSWER


@dataclass(slots=True)
class Trip:
    """One upstream call on its way; slot i waits for choice i and hold i pays for it.

    `choose` gives the host to ask, None while all of them cool; `ends_at` is the loop's time at
    which the run is cut, None without a deadline.
    `harvest` is called with each choice that is complete while others of the call still run.
    """

    upstream: Upstream
    slots: tuple[Slot, ...]
    holds: tuple[Hold, ...]
    call: Call
    facts: CallFacts
    purse: Purse
    emit: Callable[[Event], None]
    known_prompt: Callable[[], int | None]
    choose: Callable[[], Host | None]
    ends_at: float | None = None
    progress_tokens: int = 0
    tap: Callable[[RawEvents], None] | None = None
    dispatched: bool = True
    host: Host | None = None
    harvest: Callable[[Trip, int], None] | None = None
    rows: list[Settlement] = field(default_factory=list)
    began: float = field(default_factory=perf_counter)
    reported: dict[int, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Wait for a place, send the call and take in what comes; settle whatever happens."""
        slots = self.upstream.slots
        try:
            if not await self._cooled():
                return
            if slots is None:
                await self._send()
            elif await self._placed(slots):
                try:
                    await self._send()
                finally:
                    slots.release()
        finally:
            self.purse.settle(self._close())

    async def _cooled(self) -> bool:
        """Wait until a host may be asked; False where that would take too long."""
        while wait_s := self.upstream.pool.wait_s():
            if not self.can_wait():
                self.facts.broken = self._cooling()
                return False
            # Not all who wait at the same moment.
            await asyncio.sleep(wait_s + random.random() * min(0.1, self._spare_s() - wait_s))
        return True

    def can_wait(self) -> bool:
        """Say whether hosts have asked to wait, and there is a deadline that allows for it."""
        wait_s = self.upstream.pool.wait_s()
        return self.ends_at is not None and 0 < wait_s < self._spare_s()

    async def _placed(self, slots: asyncio.Semaphore) -> bool:
        """Wait for a free place; False where none becomes free in time."""
        # Before the deadline, so that there is time to ask elsewhere.
        most_s = min(self.upstream.queue_s, max(0.0, 0.9 * self._spare_s()))
        try:
            async with asyncio.timeout(most_s):
                await slots.acquire()
        except TimeoutError:
            detail = f"none of {self.upstream.max_in_flight} places became free in {most_s:.1f} s"
            self.facts.broken = Broken("busy", detail, sent=False)
            return False
        return True

    def _spare_s(self) -> float:
        """Return how long the call may wait so that it can still be answered in time."""
        if self.ends_at is None:
            return float("inf")
        left = self.ends_at - asyncio.get_running_loop().time()
        return left - (self.upstream.p50_s or 0.0)

    def _cooling(self) -> Broken:
        pool = self.upstream.pool
        wait_s = pool.wait_s()
        detail = f"every host has asked to wait, the first for another {wait_s:.1f} s"
        status = min(pool.hosts, key=lambda host: host.cool_until).cool_status
        return Broken("cooling", detail, status, wait_s, sent=False)

    async def _send(self) -> None:
        host = self.choose()
        if host is None:
            self.facts.broken = self._cooling()
            return
        self.host = host
        if not self.dispatched:
            await self.purse.ledger.dispatch([hold.id for hold in self.holds])
        self.began = perf_counter()
        self.upstream.in_flight += 1
        self.upstream.pool.began(host, len(self.slots))
        try:
            with self._watched():
                await self._draw(host)
        finally:
            self.upstream.in_flight -= 1
            self.upstream.pool.ended(host, len(self.slots), self._worked())

    async def _draw(self, host: Host) -> None:
        call = self.call.at(host.url)
        async with aclosing(self.upstream.backend.draw(call)) as events:
            async for event in events:
                match event:
                    case Progress():
                        self._progress(event)
                    case Done():
                        if event.choice < len(self.slots):
                            self.facts.dones[event.choice] = event
                            if self.harvest is not None:
                                self.harvest(self, event.choice)
                    case Totals():
                        self.facts.totals = event
                    case Broken():
                        self.facts.broken = event
                        if event.retry_after_s:
                            self.upstream.pool.cool(host, event.retry_after_s, event.status or 429)
                    case Started():
                        if event.waiting is not None:
                            self.upstream.pool.heard(host, event.waiting)

    def _worked(self) -> bool | None:
        """Say what the call tells of its host: it works, it does not, or None for nothing."""
        facts, broken = self.facts, self.facts.broken
        if broken is None and not facts.totals and not facts.dones:
            # Cut by us. Where the whole time has passed without a word, the host is to blame.
            now = asyncio.get_running_loop().time()
            over = self.ends_at is not None and now >= self.ends_at
            silent = over and not facts.traces and self.seconds > (self.upstream.p50_s or 0.0)
            return False if silent else None
        if broken is None or facts.dones or broken.status in CLIENT_FAULTS:
            return True
        return None if broken.retry_after_s else False

    def _watched(self) -> AbstractContextManager[None]:
        checkpoints = self.upstream.checkpoints
        if checkpoints is None or not self.call.stream:
            return nullcontext()
        return checkpoints.watching(self._seen)

    def _seen(self) -> dict[str, int]:
        """Return how far each row has come, its prompt at its most; nothing before it was sent."""
        return {
            hold.id: hold.tokens - self.facts.max_tokens + self.facts.come(i)
            for i, hold in enumerate(self.holds)
            if self.facts.sent
        }

    def _progress(self, event: Progress) -> None:
        if event.choice >= len(self.slots):
            return
        self.facts.traces[event.choice] = event.trace
        if self.tap is not None:
            for events in event.raw:
                self.tap(events)
        tokens = event.trace.tokens
        if (
            self.progress_tokens
            and tokens - self.reported.get(event.choice, 0) >= self.progress_tokens
        ):
            self.reported[event.choice] = tokens
            self.emit(Progressed(_running(self.slots[event.choice], event.trace)))

    def _close(self) -> list[Settlement]:
        # Asked at the end: another sample of the same prompt may have told by now.
        self.facts.prompt_known = self.known_prompt()
        self.rows = settlements(self.holds, self.upstream.price, self.facts)
        return self.rows

    @property
    def seconds(self) -> float:
        """Seconds since the call was sent."""
        return perf_counter() - self.began

    def results(self) -> list[Sample | None]:
        """Return the sample of every slot, None where it is lost. Only after `run`."""
        return [
            finished_sample(self, i, self.facts.dones[i]) if i in self.facts.dones else None
            for i in range(len(self.slots))
        ]


def _running(slot: Slot, trace: Trace) -> Running:
    count = trace.logprob_tokens
    return Running(
        id=slot.id,
        index=slot.index,
        key=slot.key,
        tokens=trace.tokens,
        text=trace.text,
        mean_logprob=trace.logprob_sum / count if count else None,
        lowest_logprob=trace.lowest_logprob if count else None,
        lowest_group=trace.meter.lowest if trace.meter else None,
    )


def _sample(trip: Trip, i: int, text: str, ended: Ended, **more: Any) -> Sample:
    # Before the end of its call, a sample costs what was counted; the books wait for the end.
    rows = trip.rows or settlements(trip.holds, trip.upstream.price, trip.facts)
    slot, row = trip.slots[i], rows[i]
    totals = trip.facts.totals
    return Sample(
        id=slot.id,
        index=slot.index,
        text=text,
        path_text=slot.before + text,
        ended=ended,
        step=slot.step,
        prompt_tokens=row.usage.prompt,
        cached_tokens=row.usage.cached,
        completion_tokens=row.usage.completion,
        reasoning_tokens=row.usage.reasoning,
        cost_nano=row.nano,
        seconds=trip.seconds,
        backend=trip.upstream.name,
        model=(totals.model if totals else "") or trip.upstream.model,
        parents=slot.parents,
        purpose=slot.purpose,
        key=slot.key,
        **more,
    )


def finished_sample(trip: Trip, i: int, done: Done) -> Sample:
    """Return slot i as the whole sample that came for it; its cost is final only after `run`."""
    return _sample(
        trip,
        i,
        done.text,
        done.ended,
        choice=done.raw,
        tool_calls=done.tool_calls,
        stop=done.stop,
        logprobs=done.logprobs,
    )


def cut_sample(trip: Trip, i: int) -> Sample:
    """Return slot i as what was there when we cut it."""
    trace = trip.facts.traces.get(i)
    text, logprobs = (trace.text, trace.logprobs()) if trace else ("", None)
    return _sample(trip, i, text, Ended.CUT, logprobs=logprobs)


def lost(trip: Trip, i: int, broken: Broken) -> Failed:
    """Return slot i as a failure."""
    slot = trip.slots[i]
    return Failed(
        id=slot.id,
        index=slot.index,
        key=slot.key,
        backend=trip.upstream.name,
        reason=broken.reason,
        detail=broken.detail,
        status=broken.status,
        retry_after_s=broken.retry_after_s,
        cost_nano=trip.rows[i].nano if trip.rows else 0,
    )
