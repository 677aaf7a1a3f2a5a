"""The bound of a server: how many requests it works on at once, and how many may wait for that.

Whoever finds both full is turned away at once, before anything is reserved, so that what was taken
in is answered in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samplewise.proxy.errors import Overloaded

__all__ = ["Gate"]


class Gate:
    """Lets `most` requests in at a time; `queue` more wait, first come first served.

    Nobody waits longer than `queue_s` seconds. Of one process.
    """

    def __init__(self, most: int = 1_000, queue: int = 1_000, queue_s: float = 3.0) -> None:
        self._places = asyncio.Semaphore(most)
        self._most, self._queue, self._queue_s = most, queue, queue_s
        self.waiting = 0

    def check(self) -> None:
        """Turn a request away before its body is read.

        Raises:
            Overloaded: there is no place and none to wait at.
        """
        if self._places.locked() and self.waiting >= self._queue:
            raise Overloaded(f"{self._most} requests are worked on and {self.waiting} wait")

    @asynccontextmanager
    async def place(self, deadline_s: float | None = None) -> AsyncIterator[None]:
        """Hold a place while a request is worked on; `deadline_s` is the longest it can wait.

        Raises:
            Overloaded: there is no place, or none became free in time.
        """
        if self._places.locked():
            await self._wait(self._queue_s if deadline_s is None else deadline_s)
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _wait(self, most_s: float) -> None:
        self.check()
        self.waiting += 1
        wait_s = min(most_s, self._queue_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded(f"no place became free within {wait_s:.1f} s") from None
        finally:
            self.waiting -= 1
