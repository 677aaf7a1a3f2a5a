"""A second call for a sample that is late: the first answer of the two counts, the other is cut.

Source: Dean and Barroso 2013, "The Tail at Scale", hedged requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from samplewise.proxy.calls import Trip

__all__ = ["race"]


async def race(
    first: Trip,
    after_s: float,
    ride: Callable[[Trip], Awaitable[None]],
    second: Callable[[], Awaitable[Trip | None]],
) -> Trip:
    """Carry out a call, and a second one if it takes longer; return the one that counts.

    `second` reserves and returns the other call, None where there is no room for it. Both have
    ended and are settled when this returns, also when it is cancelled.
    """
    async with asyncio.TaskGroup() as group:

        async def run(trip: Trip) -> Trip:
            await ride(trip)
            return trip

        running = {group.create_task(run(first))}
        ended, _ = await asyncio.wait(running, timeout=after_s)
        other = None if ended else await second()
        if other is not None:
            running.add(group.create_task(run(other)))
        best = first
        while running:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            answered = [task.result() for task in ended if task.result().facts.dones]
            if answered:
                best = answered[0]
                break
        for task in running:
            task.cancel()
    return best
