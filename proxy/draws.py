"""`Draw` actions carried out: waves, reservations, calls, and what to do with lost samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from samplewise.policies.base import Draw, Needs
from samplewise.policies.evidence import (
    Event,
    Evidence,
    Failed,
    Granted,
    Running,
)
from samplewise.proxy.backends.base import Broken
from samplewise.proxy.boundary import boundary
from samplewise.proxy.calls import Slot, Trip, cut_sample, finished_sample, lost
from samplewise.proxy.checks import Checks
from samplewise.proxy.errands import Errand, cancel_soon, next_errand, preferred
from samplewise.proxy.errors import StoreError
from samplewise.proxy.hedge import race
from samplewise.proxy.job import Job
from samplewise.proxy.ledger.base import Scope
from samplewise.proxy.metrics import Metrics
from samplewise.proxy.plan import Plan, Prompt, make_prompt
from samplewise.proxy.pool import Host
from samplewise.proxy.prospects import Prospects
from samplewise.proxy.purse import Purse
from samplewise.proxy.upstreams import Upstream
from samplewise.verifiers.base import Sample

__all__ = ["Draws"]

_log = structlog.get_logger("samplewise.draws")
# From the last sample of a stream to its usage; shorter than what is kept back of a deadline.
_LAST_WORDS_S = 0.1


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
    homes: dict[str, Host] = field(default_factory=dict)
    next_index: int = 0
    closed: bool = False
    prospects: Prospects = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing lost and nothing got."""
        self.prospects = Prospects(self.job, self.metrics)

    async def start(self, draw: Draw) -> Granted:
        """Reserve and dispatch one draw, as much of it as fits.

        Raises:
            StoreError: the ledger cannot be reached; nothing was dispatched.
        """
        n = min(draw.n, self.evidence.left_samples)
        why = "" if n == draw.n else "samples"
        if not self.evidence.may_draw or n < 1:
            late = "deadline" if self.evidence.deadline_passed else "refused"
            return Granted(draw.key, draw.n, why=why or late)
        prompt = make_prompt(draw, self.job, self.evidence)
        slots = [self._slot(draw, prompt, i) for i in range(n)]
        reused = self._reuse(slots, draw, prompt)
        granted = len(reused)
        if slots[granted:]:
            sent, less = await self._buy(slots[granted:], prompt, draw.backend)
            granted, why = granted + sent, less or why
        self.next_index += granted
        for sample in reused:
            self._finish(sample)
        started = tuple(Running(s.id, s.index, s.key) for s in slots[:granted])
        return Granted(draw.key, draw.n, started, why)

    async def _buy(self, slots: Sequence[Slot], prompt: Prompt, backend: str) -> tuple[int, str]:
        """Send as much of a draw as can help and fits; return how many, and why not all."""
        asked = self._order(backend)
        errand = Errand(prompt, preferred(asked))
        upstream, wanted = errand.upstream, len(slots)
        why = self.prospects.hopeless(errand, first=not self.evidence.drawn)
        if why:
            return 0, why
        size = self._size(errand, wanted)
        repeats, allowed = self.prospects.repeats(errand, wanted, size)
        wanted += allowed - repeats
        granted = await self._dispatch(slots[:wanted], errand) if wanted else 0
        if upstream is not asked[0]:
            self._moved(slots[:granted], upstream, asked[0], "put aside")
        for _ in range(0, granted - allowed, size):
            upstream.pool.earn()
        if granted < wanted:
            return granted, "budget"
        return granted, "backend" if allowed < repeats else ""

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
                cancel_soon(task)

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

    async def _dispatch(self, slots: Sequence[Slot], errand: Errand) -> int:
        """Reserve a wave at the errand's upstream and send it; return how many samples fitted."""
        trips = await self._reserve(slots, errand)
        for trip in trips:
            if trip.call.stream and len(trip.slots) > 1:
                trip.harvest = self._harvest
            task = self.group.create_task(self._travel(trip, errand))
            self.calls.add(task)
            task.add_done_callback(self.calls.discard)
            self.tasks |= dict.fromkeys((slot.id for slot in trip.slots), task)
        sent = sum(len(trip.slots) for trip in trips)
        rest, order = slots[sent:], errand.order[1:]
        if rest and order and self._spent_at(errand.upstream):
            self._moved(rest, order[0], errand.upstream, "budget")
            sent += await self._dispatch(rest, Errand(errand.prompt, order, errand.attempt))
        return sent

    async def _reserve(self, slots: Sequence[Slot], errand: Errand) -> list[Trip]:
        """Reserve the worst case of a wave; return its calls, as many as fit, ready to run."""
        upstream, prompt = errand.upstream, errand.prompt
        known = self._known(upstream, prompt)
        plan = Plan(self.job, upstream, prompt, errand.attempt, self.needs, known)
        size = self._size(errand, len(slots))
        calls = [tuple(slots[i : i + size]) for i in range(0, len(slots), size)]
        held = [tuple(plan.hold(slot, call) for slot in call) for call in calls]
        bundles = [
            (hold, *(() if errand.attempt else self.checks.holds(slot)))
            for call, holds in zip(calls, held, strict=True)
            for slot, hold in zip(call, holds, strict=True)
        ]
        # A call that has to wait is marked as sent only when it is.
        at_once = upstream.slots is None and not upstream.pool.wait_s()
        left = await self.purse.reserve(bundles, dispatched=at_once)
        reported = partial(self._known, upstream, prompt)
        choose = partial(self._choose, errand)
        trips = []
        for call, holds in zip(calls, held, strict=True):
            if left <= 0:
                break
            fit, paid = call[:left], holds[:left]
            trips.append(plan.trip(fit, paid, self.purse, self.emit, reported, choose, at_once))
            left -= len(call)
        return trips

    def _spent_at(self, upstream: Upstream) -> bool:
        """Tell whether it was this upstream's own budget that the last wave did not fit into."""
        by = self.purse.blocked
        return by is not None and by.scope is Scope.BACKEND and by.name == upstream.name

    def _known(self, upstream: Upstream, prompt: Prompt) -> int | None:
        """Return the prompt's tokens, where this upstream has reported them for this prompt."""
        return self.known_prompts.get((upstream.name, prompt.key))

    def _choose(self, errand: Errand) -> Host | None:
        """Return the host for a call: samples of one request stay together where they can."""
        name = errand.upstream.name
        home = self.homes.get(name)
        host = errand.upstream.pool.pick(home, errand.tried)
        if host is not None and (home is None or home.url in errand.tried):
            self.homes[name] = host
        return host

    def _size(self, errand: Errand, samples: int) -> int:
        """Return how many of so many samples go into one call."""
        needs, upstream = self.needs, errand.upstream
        if errand.prompt.before or errand.alone or upstream.dispatch == "calls":
            return 1
        # What may be cut or watched alone needs a call of its own, unless every call is charged
        # for the prompt: then one stream brings them all, and is cut when the first is enough.
        watched = needs.cancel or needs.progress_tokens
        return 1 if watched and not upstream.harvests else upstream.largest_n(samples)

    async def _travel(self, trip: Trip, errand: Errand) -> None:
        try:
            trip, errand = await self._ride_or_hedge(trip, errand)
            self._learn(trip, errand)
            self.prospects.ended(trip, errand)
            missing = self._deliver(trip)
            if missing:
                await self._again(trip, missing, errand)
        except asyncio.CancelledError:
            self._cut(trip)
            raise
        broken = trip.facts.broken or Broken("missing", "upstream sent fewer choices than asked")
        for i in missing:
            self._fail(lost(trip, i, broken))

    async def _ride_or_hedge(self, trip: Trip, errand: Errand) -> tuple[Trip, Errand]:
        """Carry out a call; where the upstream is hedged and it is late, with a second one."""
        after_s = errand.upstream.hedge_after_s
        if after_s is None or len(trip.slots) > 1 or not trip.call.stream or trip.call.raw:
            await self._ride(trip)
            return trip, errand
        again = replace(errand, attempt=errand.attempt + 1)
        trip = await race(trip, after_s, self._ride, partial(self._hedge, trip, again))
        # What comes after must not have the number of the second call.
        return trip, again

    async def _hedge(self, trip: Trip, errand: Errand) -> Trip | None:
        """Reserve a second call for a late sample; None where that may not or cannot be."""
        if self.closed or not self.prospects.may_repeat(errand.upstream, 1):
            return None
        if trip.host is not None:
            errand = replace(errand, tried=errand.tried | {trip.host.url})
        try:
            return next(iter(await self._reserve(trip.slots, errand)), None)
        except StoreError as error:
            _log.error("cannot ask again", request_id=self.job.request_id, error=str(error))
            return None

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
        self.checks.take(sample)

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
        self.prospects.lost[failed.backend] += 1
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

    def _learn(self, trip: Trip, errand: Errand) -> None:
        """Remember what this call shows of its upstream: prompt tokens, speed, the largest n."""
        totals, choices = trip.facts.totals, len(trip.facts.dones)
        broken, pace = trip.facts.broken, trip.upstream.pace
        if pace is not None and broken is not None and broken.status == 503:
            pace.refused()
        if errand.alone and choices:
            # Refused for several, answered for one: it was the number that was refused.
            self._honours(trip.upstream, 1)
        elif totals is not None and 0 < choices < len(trip.slots):
            self._honours(trip.upstream, choices)
        if totals is not None:
            for warning in totals.warnings:
                self._warn(f"{trip.upstream.name}: {warning}")
            if totals.usage is not None:
                self.known_prompts[errand.key] = max(
                    totals.usage.prompt, self.known_prompts.get(errand.key, 0)
                )
        if choices:
            trip.upstream.learn_seconds(trip.seconds)

    def _honours(self, upstream: Upstream, choices: int) -> None:
        upstream.learn_n(choices)
        self._warn(f"{upstream.name}: honours n only up to {upstream.max_n}")

    async def _again(self, trip: Trip, missing: list[int], errand: Errand) -> None:
        """Ask again for lost samples where that can help; those leave `missing`."""
        # Lost samples were granted once: asking again needs time and money, not a new grant.
        over = self.evidence.deadline_passed or self.evidence.client_gone
        passed_on = trip.call.raw and trip.facts.traces
        if self.closed or over or passed_on:
            return
        next_ = next_errand(trip, errand, len(missing), self.prospects.may_repeat)
        if next_ is None:
            return
        if next_.upstream is not errand.upstream:
            reason = trip.facts.broken.reason if trip.facts.broken else "missing"
            self._moved([trip.slots[i] for i in missing], next_.upstream, errand.upstream, reason)
        try:
            granted = await self._dispatch([trip.slots[i] for i in missing], next_)
        except StoreError as error:
            _log.error("cannot ask again", request_id=self.job.request_id, error=str(error))
            granted = 0
        del missing[:granted]

    def _moved(self, slots: Sequence[Slot], to: Upstream, from_: Upstream, reason: str) -> None:
        self.moved.update(slot.id for slot in slots)
        self._warn(f"{to.name} took over from {from_.name} ({reason})")

    def _warn(self, text: str) -> None:
        if text not in self.job.warnings:
            self.job.warnings.append(text)


class _Crashed(Exception):
    """A backend raised what it must not; the message is for the log and the failed sample."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}"[:300])
