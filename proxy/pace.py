"""How many samples a server copes with: halved when it queues, preempts or refuses, else growing.

The measure is vLLM's own count of all its work, whoever it is for, so several proxies and workers
share a server without knowing of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from samplewise.proxy.backends.glance import Work
from samplewise.proxy.background import beside

__all__ = ["Pace", "following_load"]

_EVERY_S = 0.5
_UNKNOWN_S = 30.0
Reader = Callable[[], Awaitable[Work | None]]


@dataclass(slots=True)
class Pace:
    """The room at one backend. `limit` is the samples that all its servers together may have.

    It is halved at most once a `settle_s`: what was sent before still has to drain.
    """

    limit: int = 32
    most: int = 4096
    settle_s: float = 2.0
    clock: Callable[[], float] = monotonic
    _busy: int = 0
    _preempted: int | None = None
    _halved_at: float = float("-inf")

    @property
    def free(self) -> int:
        """How many more samples the servers have room for, as of the last word from them."""
        return max(0, self.limit - self._busy)

    def hear(self, work: Work) -> None:
        """Take in what the servers say that they are working on."""
        preempted = 0 if self._preempted is None else work.preempted - self._preempted
        self._preempted = work.preempted
        self._busy = work.running + work.waiting
        if work.waiting or preempted > 0:
            self._halve(self._busy)
        else:
            # Growth is only known to be right while what there is, is used.
            used = work.running >= self.limit // 2
            self.limit = min(self.most, self.limit + (max(1, self.limit // 8) if used else 0))

    def refused(self) -> None:
        """Note that a call was refused because the server is full (503)."""
        self._halve(self.limit)

    def _halve(self, busy: int) -> None:
        now = self.clock()
        if now - self._halved_at >= self.settle_s:
            self._halved_at = now
            self.limit = max(1, min(self.limit, busy) // 2)


@asynccontextmanager
async def following_load(
    pace: Pace, in_flight: Callable[[], int], readers: Sequence[Reader]
) -> AsyncIterator[None]:
    """Tell a pace inside the block what the servers say, twice a second while calls are in flight.

    `readers` read one server each; those that say nothing are asked seldom.
    """
    async with beside(_follow(pace, in_flight, readers), "following the load of servers"):
        yield


async def _follow(pace: Pace, in_flight: Callable[[], int], readers: Sequence[Reader]) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        if not in_flight():
            continue
        said = [work for reader in readers if (work := await reader()) is not None]
        if not said:
            await asyncio.sleep(_UNKNOWN_S)
            continue
        pace.hear(
            Work(
                running=sum(work.running for work in said),
                made=sum(work.made for work in said),
                waiting=sum(work.waiting for work in said),
                preempted=sum(work.preempted for work in said),
            )
        )
