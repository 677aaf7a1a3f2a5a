"""`Draw` actions carried out: waves, reservations, calls, and what to do with lost samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from samplewise.policies.base import Draw, Needs
from samplewise.policies.evidence import Event, Evidence, Failed, Finished, Granted, Running
from samplewise.proxy.backends.base import Broken
from samplewise.proxy.boundary import boundary
from samplewise.proxy.calls import Slot, Trip, cut_sample, finished_sample, lost
from samplewise.proxy.checks import Checks
from samplewise.proxy.errors import StoreError
from samplewise.proxy.job import Job
from samplewise.proxy.ledger.base import Hold, Scope
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.plan import Plan, Prompt, make_prompt
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Sample

__all__ = ["Draws"]

_log = structlog.get_logger("samplewise.draws")
# From the last sample of a stream to its usage.
_LAST_WORDS_S = 0.25
# The client's own mistake: another upstream would refuse it too, and the client must see it.
_CLIENT_FAULTS = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class _Errand:
    """What the calls of one dispatch share. `order` is who to ask, the first of them now.

    `alone` marks a second try, one sample a call, after a call for several was refused.
    """

    prompt: Prompt
    order: tuple[Upstream, ...]
    attempt: int = 0
    alone: bool = False

    @property
    def upstream(self) -> Upstream:
        """The upstream that is asked now."""
        return self.order[0]


@dataclass(slots=True)
class Draws:
    """Carries out the draws of one run. Every call is a task of `group`."""

    job: Job
    evidence: Evidence
    purse: Purse
    checks: Checks
    group: asyncio.TaskGroup
    emit: Callable[[Event], None]
    metrics: Metrics
    needs: Needs
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    calls: set[asyncio.Task[None]] = field(default_factory=set)
    unwanted: set[str] = field(default_factory=set)
    heads: dict[str, bytes] = field(default_factory=dict)
    known_prompts: dict[tuple[str, str], int] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    next_index: int = 0
    closed: bool = False

    async def start(self, draw: Draw) -> Granted:
        """Reserve and dispatch one draw, as much of it as fits.

        Raises:
            StoreError: the ledger cannot be reached; nothing was dispatched.
        """
        n = min(draw.n, self.evidence.left_samples)
        why = "" if n == draw.n else "samples"
        if not self.evidence.may_draw or n < 1:
            return Granted(draw.key, draw.n, why=why or "deadline")
        prompt = make_prompt(draw, self.job, self.evidence)
        slots = [self._slot(draw, prompt, i) for i in range(n)]
        reused = self._reuse(slots, draw, prompt)
        granted = len(reused)
        if slots[granted:]:
            errand = _Errand(prompt, self._order(draw.backend))
            granted += await self._dispatch(slots[granted:], errand)
        self.next_index += granted
        for sample in reused:
            self._finish(sample)
        if granted < n:
            why = "budget"
        started = tuple(Running(s.id, s.index, s.key) for s in slots[:granted])
        return Granted(draw.key, draw.n, started, why)

    def cancel(self, samples: Sequence[str]) -> None:
        """Cut running samples; they come back as `Finished` with what was counted.

        One of several that share a call is cut with the last of them: a call can only end whole.
        """
        self.unwanted.update(samples)
        sharing: dict[asyncio.Task[None], set[str]] = {}
        for id_, task in self.tasks.items():
            sharing.setdefault(task, set()).add(id_)
        for task, ids in sharing.items():
            if ids <= self.unwanted:
                _cancel_soon(task)

    def cut(self) -> None:
        """Cut every call. One whose samples have all come has a moment to say what they cost."""
        self.cancel(list(self.tasks))
        for task in self.calls - set(self.tasks.values()):
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, task.cancel)

    def _reuse(self, slots: Sequence[Slot], draw: Draw, prompt: Prompt) -> list[Sample]:
        """Return what an earlier try of this request has bought, for the first of these slots."""
        if prompt.key != "fresh" or draw.params or draw.backend:
            return []
        pool = self.job.pool
        found = [pool.pop(0) for _ in slots[: len(pool)]]
        return [
            replace(sample, id=slot.id, index=slot.index, key=slot.key, cost_nano=0)
            for sample, slot in zip(found, slots, strict=False)
        ]

    def _order(self, backend: str) -> tuple[Upstream, ...]:
        upstreams = self.job.route.upstreams
        if not backend:
            return tuple(upstreams.values())
        # A named backend comes first; the rest of the route is what to fall back on.
        return (upstreams[backend], *(u for name, u in upstreams.items() if name != backend))

    def _slot(self, draw: Draw, prompt: Prompt, i: int) -> Slot:
        index = self.next_index + i
        return Slot(
            id=f"{self.job.request_id}-{index}",
            index=index,
            key=draw.key,
            step="stop" in draw.params,
            before=prompt.before,
            parents=prompt.parents,
            purpose=draw.purpose,
        )

    async def _dispatch(self, slots: Sequence[Slot], errand: _Errand) -> int:
        """Reserve a wave at the errand's upstream and send it; return how many samples fitted."""
        upstream, prompt = errand.upstream, errand.prompt
        known = self._known(upstream, prompt)
        plan = Plan(self.job, upstream, prompt, errand.attempt, self.needs, known)
        size = 1 if self._one_by_one(errand) else upstream.largest_n(len(slots))
        calls = [tuple(slots[i : i + size]) for i in range(0, len(slots), size)]
        held = [tuple(plan.hold(slot, call) for slot in call) for call in calls]
        bundles = [
            (hold, *(() if errand.attempt else self.checks.holds(slot)))
            for call, holds in zip(calls, held, strict=True)
            for slot, hold in zip(call, holds, strict=True)
        ]
        granted = left = await self.purse.reserve(bundles, dispatched=upstream.slots is None)
        for call, holds in zip(calls, held, strict=True):
            if left <= 0:
                break
            self._send(plan, call[:left], holds[:left], errand)
            left -= len(call)
        rest = slots[granted:]
        if rest and len(errand.order) > 1 and self._spent_at(upstream):
            self.moved.update(slot.id for slot in rest)
            granted += await self._dispatch(rest, replace(errand, order=errand.order[1:]))
        return granted

    def _spent_at(self, upstream: Upstream) -> bool:
        """Tell whether it was this upstream's own budget that the last wave did not fit into."""
        blocked = self.purse.blocked
        return blocked is not None and (blocked.scope, blocked.name) == (
            Scope.BACKEND,
            upstream.name,
        )

    def _send(
        self, plan: Plan, slots: tuple[Slot, ...], holds: tuple[Hold, ...], errand: _Errand
    ) -> None:
        known = partial(self._known, errand.upstream, errand.prompt)
        trip = plan.trip(slots, holds, self.purse, self.emit, known)
        if trip.call.stream and len(slots) > 1:
            trip.harvest = self._harvest
        task = self.group.create_task(self._travel(trip, errand))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        self.tasks |= dict.fromkeys((slot.id for slot in slots), task)

    def _known(self, upstream: Upstream, prompt: Prompt) -> int | None:
        """Return the prompt's tokens, where this upstream has reported them for this prompt."""
        return self.known_prompts.get((upstream.name, prompt.key))

    def _one_by_one(self, errand: _Errand) -> bool:
        needs, upstream = self.needs, errand.upstream
        if errand.prompt.before or errand.alone or upstream.dispatch == "calls":
            return True
        # What may be cut or watched alone needs a call of its own, unless every call is charged
        # for the prompt: then one stream brings them all, and is cut when the first is enough.
        watched = bool(needs.cancel or needs.progress_tokens)
        return watched and not upstream.harvests

    async def _travel(self, trip: Trip, errand: _Errand) -> None:
        try:
            await self._ride(trip)
            self._learn(trip, errand)
            missing = self._deliver(trip)
            if missing:
                await self._again(trip, missing, errand)
        except asyncio.CancelledError:
            self._cut(trip)
            raise
        broken = trip.facts.broken or Broken("missing", "upstream sent fewer choices than asked")
        for i in missing:
            self._fail(lost(trip, i, broken))

    async def _ride(self, trip: Trip) -> None:
        self.metrics.call_started(trip)
        try:
            with boundary(_Crashed, StoreError):
                await trip.run()
        except (_Crashed, StoreError) as error:
            _log.error("call failed", request_id=self.job.request_id, detail=str(error))
            trip.facts.broken = Broken("crash", str(error))
        finally:
            self.metrics.call_ended(trip)

    def _deliver(self, trip: Trip) -> list[int]:
        missing = []
        for i, sample in enumerate(trip.results()):
            if sample is None:
                missing.append(i)
                continue
            if trip.facts.totals is not None:
                self.heads[sample.id] = trip.facts.totals.head
            if self._waits(sample.id):
                self._finish(sample)
        return missing

    def _harvest(self, trip: Trip, i: int) -> None:
        """Take in a sample while others of its call still run."""
        if self._waits(trip.slots[i].id):
            self._finish(finished_sample(trip, i, trip.facts.dones[i]))
            if self.unwanted:
                # It may have been the last that the call was kept open for.
                self.cancel(())

    def _waits(self, id_: str) -> bool:
        """Say whether a slot still waits for the call of the task that asks."""
        return self.tasks.get(id_) is asyncio.current_task()

    def _finish(self, sample: Sample) -> None:
        self.tasks.pop(sample.id, None)
        self.emit(Finished(sample, verifying=self.checks.start(sample)))

    def _cut(self, trip: Trip) -> None:
        if trip.facts.sent and not trip.call.stream:
            self._warn("a cancelled call was not streamed, so it is billed at its worst case")
        done = trip.results()
        for i, slot in enumerate(trip.slots):
            # Slots that came to an end before, or are on another call by now, are not ours to cut.
            if self._waits(slot.id):
                self._finish(done[i] or cut_sample(trip, i))

    def _fail(self, failed: Failed) -> None:
        self.tasks.pop(failed.id, None)
        self.checks.forgo(failed.id)
        _log.warning(
            "sample lost",
            request_id=self.job.request_id,
            sample=failed.index,
            backend=failed.backend,
            reason=failed.reason,
            status=failed.status,
            detail=failed.detail,
        )
        self.emit(failed)

    def _learn(self, trip: Trip, errand: _Errand) -> None:
        """Remember what this call shows of its upstream: prompt tokens, speed, the largest n."""
        totals, choices = trip.facts.totals, len(trip.facts.dones)
        if errand.alone and choices:
            # Refused for several, answered for one: it was the number that was refused.
            self._honours(trip.upstream, 1)
        elif totals is not None and 0 < choices < len(trip.slots):
            self._honours(trip.upstream, choices)
        if totals is not None:
            for warning in totals.warnings:
                self._warn(f"{trip.upstream.name}: {warning}")
            if totals.usage is not None:
                known = (trip.upstream.name, errand.prompt.key)
                self.known_prompts[known] = max(
                    totals.usage.prompt, self.known_prompts.get(known, 0)
                )
        if choices:
            trip.upstream.learn_seconds(trip.seconds)

    def _honours(self, upstream: Upstream, choices: int) -> None:
        upstream.learn_n(choices)
        self._warn(f"{upstream.name}: honours n only up to {upstream.max_n}")

    async def _again(self, trip: Trip, missing: list[int], errand: _Errand) -> None:
        """Ask again for lost samples where that can help; those leave `missing`."""
        # Lost samples were granted once: asking again needs time and money, not a new grant.
        over = self.evidence.deadline_passed or self.evidence.client_gone
        passed_on = trip.call.raw and trip.facts.traces
        if self.closed or over or passed_on:
            return
        next_ = self._next(trip, errand)
        if next_ is None:
            return
        if next_.upstream is not errand.upstream:
            self.moved.update(trip.slots[i].id for i in missing)
        try:
            granted = await self._dispatch([trip.slots[i] for i in missing], next_)
        except StoreError as error:
            _log.error("cannot ask again", request_id=self.job.request_id, error=str(error))
            granted = 0
        del missing[:granted]

    def _next(self, trip: Trip, errand: _Errand) -> _Errand | None:
        """Return how to ask again for what a call has lost; None when that cannot help."""
        broken, attempt = trip.facts.broken, errand.attempt + 1
        if broken is None:
            # Fewer choices than asked, and by now we know how many to ask for.
            fewer = 0 < len(trip.facts.dones) < len(trip.slots)
            return replace(errand, attempt=attempt) if fewer else None
        if broken.reason == "refused_n":
            return replace(errand, attempt=attempt, alone=True)
        if len(errand.order) > 1 and broken.status not in _CLIENT_FAULTS:
            return _Errand(errand.prompt, errand.order[1:], attempt)
        return None

    def _warn(self, text: str) -> None:
        if text not in self.job.warnings:
            self.job.warnings.append(text)


def _cancel_soon(task: asyncio.Task[None]) -> None:
    # Not at once: a task that is cancelled before its first step never runs its clean-up.
    # And only once: a second time would cut short the settling that the first began.
    if not task.cancelling():
        asyncio.get_running_loop().call_soon(task.cancel)


class _Crashed(Exception):
    """A backend raised what it must not; the message is for the log and the failed sample."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}"[:300])
