"""So many at once, and the others in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

__all__ = ["Slots"]


class Slots:
    """Entered by at most `count` at once.

    To give up waiting takes the same time however many wait, unlike with asyncio's semaphore: at a
    deadline, thousands give up at once.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    async def __aenter__(self) -> None:
        """Wait for a place."""
        if self._free:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = None
        try:
            await mine
        except asyncio.CancelledError:
            if mine in self._waiting:
                del self._waiting[mine]
            elif not mine.cancelled():
                self._leave()  # it came too late
            raise

    async def __aexit__(self, *_: object) -> None:
        """Leave the place to the next one."""
        self._leave()

    def _leave(self) -> None:
        while self._waiting:
            first, _ = self._waiting.popitem(last=False)
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
