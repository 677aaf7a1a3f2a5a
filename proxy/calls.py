"""One upstream call from reservation to settlement, as the samples it was sent for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from samplewise.policies.evidence import Event, Failed, Progressed, Running
from samplewise.proxy.backends.base import Broken, Call, Done, Progress, Started, Totals, Trace
from samplewise.proxy.billing import CallFacts, settlements
from samplewise.proxy.ledger.base import Hold, Settlement
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Ended, Purpose, Sample

__all__ = ["Slot", "Trip", "cut_sample", "finished_sample", "lost"]


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
    progress_tokens: int = 0
    tap: Callable[[bytes], None] | None = None
    dispatched: bool = True
    harvest: Callable[[Trip, int], None] | None = None
    rows: list[Settlement] = field(default_factory=list)
    began: float = field(default_factory=perf_counter)
    reported: dict[int, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Send the call and take in what comes; settle whatever happens."""
        try:
            if self.upstream.slots is None:
                await self._draw()
                return
            async with self.upstream.slots:
                if not self.dispatched:
                    await self.purse.ledger.dispatch([hold.id for hold in self.holds])
                await self._draw()
        finally:
            self.purse.settle(self._close())

    async def _draw(self) -> None:
        self.began = perf_counter()
        self.upstream.in_flight += 1
        try:
            async with aclosing(self.upstream.backend.draw(self.call)) as events:
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
                        case Started():
                            pass
        finally:
            self.upstream.in_flight -= 1

    def _progress(self, event: Progress) -> None:
        if event.choice >= len(self.slots):
            return
        self.facts.traces[event.choice] = event.trace
        if self.tap is not None and event.raw:
            self.tap(event.raw)
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
    logprobs = trace.logprobs()
    return Running(
        id=slot.id,
        index=slot.index,
        key=slot.key,
        tokens=trace.tokens,
        text=trace.text,
        mean_logprob=logprobs.mean if logprobs else None,
        lowest_logprob=logprobs.lowest if logprobs else None,
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
