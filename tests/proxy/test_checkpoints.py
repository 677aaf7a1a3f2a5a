"""What streamed calls have come to is written down while they run: what has grown, one by one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from samplewise.proxy.checkpoints import Checkpoints
from samplewise.proxy.errors import StoreError


class Notebook:
    """Remembers what it is given; a test ends each write."""

    def __init__(self) -> None:
        self.closed = False
        self.given: list[Mapping[str, int]] = []
        self.writing: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    def checkpoint(self, seen: Mapping[str, int]) -> asyncio.Future[None]:
        self.given.append(seen)
        if self.closed:
            self.closed = False
            raise StoreError("closed, once")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writing.put_nowait(future)
        return future

    async def end(self, error: StoreError | None = None) -> None:
        """Wait for a write and let it end."""
        writing = await self.writing.get()
        if error is None:
            writing.set_result(None)
        else:
            writing.set_exception(error)
        await asyncio.sleep(0)


async def test_only_what_has_grown_is_written() -> None:
    notebook = Notebook()
    checkpoints = Checkpoints(notebook, every_s=0.001)
    first, second, unsent = {"a": 5}, {"b": 1}, dict[str, int]()
    with ExitStack() as stack:
        for rows in (first, second, unsent):
            stack.enter_context(checkpoints.watching(partial(dict, rows)))
        await notebook.end()
        second["b"] = 4
        await notebook.end()
        first["a"], unsent["c"] = 6, 2
        await notebook.end()
    assert notebook.given == [{"a": 5, "b": 1}, {"b": 4}, {"a": 6, "c": 2}]


async def test_a_write_waits_for_the_one_before() -> None:
    slow, rows = Notebook(), {"a": 1}
    looks = itertools.count()
    quick, ticks = Notebook(), itertools.count(1)

    def seen() -> dict[str, int]:
        next(looks)
        return dict(rows)

    with (
        Checkpoints(slow, every_s=0.001).watching(seen),
        Checkpoints(quick, every_s=0.001).watching(lambda: {"tick": next(ticks)}),
    ):
        writing = await slow.writing.get()
        rows["a"] = 9
        for _ in range(10):  # ten times the interval, by the same clock
            await quick.end()
        assert (next(looks), len(slow.given)) == (1, 1)
        writing.set_result(None)
        await slow.end()
    assert slow.given[-1] == {"a": 9}


async def test_what_could_not_be_written_is_written_again() -> None:
    notebook = Notebook()
    checkpoints = Checkpoints(notebook, every_s=0.001)
    with checkpoints.watching(lambda: {"a": 3}):
        await notebook.end(StoreError("the disk is full"))
        await notebook.end()
    assert notebook.given == [{"a": 3}] * 2


async def test_what_a_store_refuses_at_once_is_written_again() -> None:
    notebook = Notebook()
    notebook.closed = True
    with Checkpoints(notebook, every_s=0.001).watching(lambda: {"a": 3}):
        await notebook.end()
    assert notebook.given == [{"a": 3}] * 2


async def test_what_has_ended_is_written_no_more() -> None:
    notebook = Notebook()
    checkpoints = Checkpoints(notebook, every_s=0.001)
    with checkpoints.watching(lambda: {"a": 3}):
        pass
    with checkpoints.watching(lambda: {"b": 3}):
        await notebook.end()
    assert notebook.given == [{"b": 3}]
