"""Where the calls of a dispatch go, and where lost samples are asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from samplewise.proxy.calls import CLIENT_FAULTS, Trip
from samplewise.proxy.plan import Prompt
from samplewise.proxy.upstreams import Upstream

__all__ = ["Errand", "cancel_soon", "next_errand", "preferred"]

# Calls that were never sent: another host of the same upstream would not take them either.
_NOT_SENT = frozenset({"cooling", "busy"})
# A deadline of minutes, as clients' own time limits make it, is no reason to wait again and again.
_MOST_TRIES = 4


@dataclass(frozen=True, slots=True)
class Errand:
    """What the calls of one dispatch share. `order` is who to ask, the first of them now.

    `alone` marks a second try, one sample a call, after a call for several was refused; `tried` are
    the hosts of the upstream that have lost these samples before.
    """

    prompt: Prompt
    order: tuple[Upstream, ...]
    attempt: int = 0
    alone: bool = False
    tried: frozenset[str] = frozenset()

    @property
    def upstream(self) -> Upstream:
        """The upstream that is asked now."""
        return self.order[0]

    @property
    def key(self) -> tuple[str, str]:
        """Upstream and prompt, by name."""
        return self.upstream.name, self.prompt.key


def preferred(upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
    """Return upstreams with those behind the others whose hosts are all put aside or cooling."""
    if len(upstreams) < 2:
        return upstreams
    return tuple(sorted(upstreams, key=lambda upstream: not upstream.pool.available))


def next_errand(
    trip: Trip, errand: Errand, lost: int, may_repeat: Callable[[Upstream, int], bool]
) -> Errand | None:
    """Return how to ask again for what a call has lost; None when that cannot help.

    Another host of the same upstream comes first, then the next upstream, then to wait as long as
    the host has asked for, a few times. `may_repeat` is asked before the same upstream gets more
    calls; the next one has not seen these samples yet, so it needs no leave.
    """
    broken, pool = trip.facts.broken, errand.upstream.pool
    again = replace(errand, attempt=errand.attempt + 1)
    if broken is None:
        # Fewer choices than asked, and by now we know how many to ask for.
        return again if 0 < len(trip.facts.dones) < len(trip.slots) else None
    if broken.reason == "refused_n":
        return replace(again, alone=True)
    if broken.status in CLIENT_FAULTS:
        return None
    calls = -(-lost // errand.upstream.largest_n(lost))
    if broken.reason not in _NOT_SENT:
        tried = errand.tried | {trip.host.url} if trip.host else errand.tried
        if pool.elsewhere(tried) and may_repeat(errand.upstream, calls):
            return replace(again, tried=tried)
    if len(errand.order) > 1:
        return Errand(errand.prompt, preferred(errand.order[1:]), again.attempt)
    waits = broken.reason not in _NOT_SENT and again.attempt < _MOST_TRIES and trip.can_wait()
    if waits and may_repeat(errand.upstream, calls):
        return replace(again, tried=frozenset())
    return None


def cancel_soon(task: asyncio.Task[None]) -> None:
    """Cancel a task after this step, unless it is being cancelled.

    A task that is cancelled before its first step never runs its clean-up, and a second time would
    cut short the settling that the first began.
    """
    if not task.cancelling():
        asyncio.get_running_loop().call_soon(task.cancel)
