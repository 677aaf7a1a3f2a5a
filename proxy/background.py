"""Work that goes on beside a server for as long as it runs, such as looking for changed keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import structlog

from samplewise.proxy.logs import where

__all__ = ["begin", "beside"]

_log = structlog.get_logger("samplewise.background")


@asynccontextmanager
async def beside(work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """Do work while the body runs, then cut it. `name` is what the log calls it, see `begin`."""
    task = begin(work, name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def begin(work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
    """Begin work whose end nobody waits for: a defect that ends it is logged at once."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error(
            "background work has ended by a defect: restart the server, and report this",
            reason=task.get_name(),
            error=type(error).__name__,
            exception=where(error),
        )
