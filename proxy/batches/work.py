"""The lines of one batch, some of them at a time: waiting where that helps, stopped when told to.

The same for batches over HTTP and for `samplewise batch`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from samplewise.proxy.batches.answering import Said, answer_line, unread_line
from samplewise.proxy.batches.base import Result
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client
from samplewise.proxy.threads import InThread

__all__ = ["Work", "one_by_one"]

# How often a line is asked again whose upstreams fail, and the longest wait before that.
_MOST_FAILURES = 3
_LONGEST_WAIT_S = 60.0


class _Left(Exception):
    """A line has no result: somebody else may ask it, later."""


@dataclass(slots=True)
class Work:
    """Answers lines until there are no more, or `stopped` is set: then those that run are the last.

    `client` says anew for every try who asks, and raises `RequestError` when that one may not any
    more. `places` bounds how many lines run at once, of all who share it. With `leaves_poor` the
    first line that no money is left for stops it all, and has no result itself. What may be over
    soon is waited for `least_wait_s` at least, longer after each failure.
    """

    service: Service
    urls: Collection[str]
    client: Callable[[], Client]
    places: asyncio.Semaphore
    leaves_poor: bool = False
    least_wait_s: float = 1.0
    poor: bool = False
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _running: int = 0
    _poor: int = 0
    _waiting: deque[asyncio.Event] = field(default_factory=deque)

    async def run(
        self, source: AsyncIterator[tuple[int, bytes | None]], put: Callable[[Result], None]
    ) -> None:
        """Answer the lines of a source; `put` takes each result as it comes, in any order."""
        async with asyncio.TaskGroup() as group:
            async for number, text in source:
                await self.places.acquire()
                if self.stopped.is_set():
                    self.places.release()
                    return
                self._running += 1
                group.create_task(self._one(number, text, put))

    async def _one(self, number: int, text: bytes | None, put: Callable[[Result], None]) -> None:
        try:
            said = await self._said(number, text)
            if said is not None:
                put(Result(number, said.ok, said.data))
        finally:
            self.places.release()
            self._running -= 1
            if self._waiting:
                # Of those that wait for money the first looks again.
                self._waiting.popleft().set()

    async def _said(self, number: int, text: bytes | None) -> Said | None:
        if text is None:
            return unread_line(number, "line_too_long", "is longer than a request may be")
        failures = 0

        async def again(error: AnswerError) -> bool:
            nonlocal failures
            if error.status == 402:
                return await self._richer()
            if error.status in (502, 504):
                failures += 1
                if failures >= _MOST_FAILURES:
                    return False
            await self._pause(_wait_s(error, self.least_wait_s * 2 ** max(0, failures - 1)))
            if self.stopped.is_set():
                raise _Left
            return True

        try:
            return await answer_line(self.service, self.urls, number, text, self.client, again)
        except _Left:
            return None

    async def _richer(self) -> bool:
        """Wait until another line has ended, whose worst case may have held the money."""
        if self.stopped.is_set():
            raise _Left
        if self._running - self._poor <= 1:
            if self.leaves_poor:
                self.poor = True
                self.stopped.set()
                raise _Left
            return False
        turn = asyncio.Event()
        self._waiting.append(turn)
        self._poor += 1
        try:
            await turn.wait()
        finally:
            self._poor -= 1
        if self.stopped.is_set():
            raise _Left
        return True

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopped.wait()


def _wait_s(error: AnswerError, least: float) -> float:
    try:
        asked = float(error.headers.get("retry-after", "0"))
    except ValueError:
        asked = 0.0
    return min(max(asked if math.isfinite(asked) else 0.0, least), _LONGEST_WAIT_S)


async def one_by_one(
    found: Iterable[tuple[int, bytes | None]],
    done: Iterable[int] = (),
    in_thread: InThread = asyncio.to_thread,
) -> AsyncIterator[tuple[int, bytes | None]]:
    """Yield numbered lines that are not done, read in a thread, one at a time."""
    known, numbered = set(done), iter(found)
    while (item := await in_thread(_next, numbered)) is not None:
        if item[0] not in known:
            yield item


def _next(items: Iterator[tuple[int, bytes | None]]) -> tuple[int, bytes | None] | None:
    return next(items, None)
