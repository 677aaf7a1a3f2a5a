"""Threads of their own for calls of the store, which block for as long as that does not answer.

In the threads that all else shares, an outage of the store would hold verification up as well.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = ["InThread", "StoreThreads"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 16


class InThread(Protocol):
    """Does what blocks in a thread, as `asyncio.to_thread` does."""

    def __call__(
        self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Return what `work` returns, and raise what it raises."""
        ...


class StoreThreads:
    """At most 16 threads, begun as they are needed; an `InThread`."""

    def __init__(self) -> None:
        """Begin none yet."""
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="samplewise-stores")

    async def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do `work` in one of them, when one is free."""
        # What is logged there carries the id of the request.
        run = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def close(self) -> None:
        """End them, when all that was asked for is done."""
        await asyncio.to_thread(self._threads.shutdown)
