"""Pipes and processes on the event loop, with nothing more of it than readers and writers.

asyncio's own subprocesses wait for the end of every pipe, which a stray process can hold open.
"""

from __future__ import annotations

import asyncio
import os
import signal

__all__ = ["Ended", "Feed", "Output"]

_CHUNK = 65_536


class Output:
    """Collects what comes out of a pipe, up to `cap` bytes.

    `full` is done when more came than that. Nothing is read after it.
    """

    def __init__(self, descriptor: int, cap: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._cap = cap
        self.data = bytearray()
        self.full: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._waiting: tuple[int, asyncio.Future[None]] | None = None
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        self.data += chunk
        if self._waiting is not None and (not chunk or len(self.data) >= self._waiting[0]):
            _set(self._waiting[1])
        if len(self.data) > self._cap:
            _set(self.full)
        if not chunk or self.full.done():
            self._stop()

    def _stop(self) -> None:
        self._loop.remove_reader(self._descriptor)
        _set(self._over)

    def has(self, size: int) -> asyncio.Future[None]:
        """Return what is done when so many bytes have come, or no more will."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting = (size, future)
        if len(self.data) >= size or self._over.done():
            _set(future)
        return future

    async def settled(self) -> None:
        """Wait for the end of the pipe; all who could write must be gone."""
        await self._over

    def close(self) -> None:
        """Read no more; may be called twice."""
        if self._descriptor >= 0:
            self._stop()
            os.close(self._descriptor)
            self._descriptor = -1


class Feed:
    """Writes data into a pipe and closes it then."""

    def __init__(self, descriptor: int, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._rest = memoryview(data)
        self._write()
        if self._descriptor >= 0:
            self._loop.add_writer(descriptor, self._write)

    def _write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._descriptor, self._rest[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # the program ended without reading it
        self.close()

    def close(self) -> None:
        """Write no more; may be called twice."""
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class Ended:
    """The end of a process, which is no other's by its descriptor; not reaped here.

    Raises:
        ProcessLookupError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self.future: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._ended)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    def _ended(self) -> None:
        self._loop.remove_reader(self._descriptor)
        _set(self.future)

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self._descriptor >= 0 and not self.done:
            try:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            except ProcessLookupError:
                self._ended()

    def close(self) -> None:
        """Look no more; may be called twice."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
