"""The bound of a server: how many requests it works on at once, and how many may wait for that.

Whoever finds both full is turned away at once, before anything is reserved, so that what was taken
in is answered in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from samplewise.proxy.errors import AnswerError, Overloaded
from samplewise.proxy.job import Job

__all__ = ["Gate"]


class Gate:
    """Lets `most` requests in at a time; `queue` more wait, first come first served.

    Nobody waits longer than `queue_s` seconds. Of one process.
    """

    def __init__(self, most: int = 1_000, queue: int = 1_000, queue_s: float = 3.0) -> None:
        self._places = asyncio.Semaphore(most)
        self._most, self._queue, self._queue_s = most, queue, queue_s
        self.waiting = 0

    @property
    def full(self) -> bool:
        """Whether there is no place, and none to wait at."""
        return self._places.locked() and self.waiting >= self._queue

    @asynccontextmanager
    async def place(self, job: Job) -> AsyncIterator[None]:
        """Hold a place while a request is worked on.

        Raises:
            Overloaded: there is no place, or none became free in time.
            AnswerError: the client left while it waited (499).
        """
        if self._places.locked():
            await self._wait(job)
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _wait(self, job: Job) -> None:
        if self.full:
            raise Overloaded(f"{self._most} requests are worked on and {self.waiting} wait")
        wait_s = min(self._queue_s, self._queue_s if job.bound_s is None else job.bound_s)
        turn = asyncio.ensure_future(self._places.acquire())
        job.when_left = turn.cancel
        self.waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():
                self._places.release()
            if isinstance(error, TimeoutError):
                raise Overloaded(f"no place became free within {wait_s:.1f} s") from None
            if not job.left:
                raise
            raise AnswerError("the client left", status=499, code="client_gone") from None
        finally:
            self.waiting -= 1
            job.when_left = None
