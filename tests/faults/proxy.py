"""A TCP proxy that spoils what passes through it, for a while or one connection after the other.

The vocabulary is that of toxiproxy, so that the same cases can be run on it. It stands in the
test's own event loop. Every connection carries one request: the n-th fault spoils the n-th call.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CLEAN", "FaultProxy", "Toxic", "through"]

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Toxic:
    """What happens to the answer of one connection.

    `latency_s` passes before its first byte. After `limit_bytes` of it (None: never; 0: at once)
    the connection is closed, or reset where `reset`, or with `hang` silent until the client leaves.
    `instead` is answered and the upstream not asked. `slice_bytes` leave at a time, `slice_s`
    apart.
    """

    latency_s: float = 0.0
    limit_bytes: int | None = None
    reset: bool = False
    hang: bool = False
    instead: bytes | None = None
    slice_bytes: int = 0
    slice_s: float = 0.0


CLEAN = Toxic()


@dataclass
class FaultProxy:
    """Stands before one upstream. `toxics` are used up one a connection, then `always` holds."""

    upstream_port: int
    always: Toxic = CLEAN
    toxics: list[Toxic] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """The address as OpenAI clients want it."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Take connections; on the port it had before, if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on and break off those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        toxic = self.toxics.pop(0) if self.toxics else self.always
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(_HEAD_END)
                request = head + await reader.readexactly(_length(head))
                self.requests.append(request)
                await _until_gone(reader, self._carry(toxic, request, writer))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, toxic: Toxic, request: bytes, writer: asyncio.StreamWriter) -> None:
        leaving = _Leaving(toxic, writer)
        if toxic.instead is not None:
            await leaving.send(toxic.instead)
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        try:
            up_writer.write(request.replace(_HEAD_END, b"\r\nConnection: close" + _HEAD_END, 1))
            await asyncio.sleep(toxic.latency_s)
            while (piece := await up_reader.read(65_536)) and await leaving.send(piece):
                pass
        finally:
            # The end of the client's side ends the upstream's work, as without a proxy.
            up_writer.transport.abort()


@dataclass
class _Leaving:
    """The answer on its way to the client."""

    toxic: Toxic
    writer: asyncio.StreamWriter
    sent: int = 0

    async def send(self, piece: bytes) -> bool:
        """Send what the toxic lets through; False when that was all."""
        toxic, limit = self.toxic, self.toxic.limit_bytes
        rest = piece if limit is None else piece[: max(0, limit - self.sent)]
        size = toxic.slice_bytes or len(rest) or 1
        for start in range(0, len(rest), size):
            self.writer.write(rest[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(toxic.slice_s)
        self.sent += len(rest)
        if limit is None or self.sent < limit:
            return True
        if toxic.hang:
            await asyncio.Event().wait()
        if toxic.reset:
            peer: socket.socket = self.writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        return False


async def _until_gone(reader: asyncio.StreamReader, work: Coroutine[Any, Any, None]) -> None:
    """Do some work until it is done or the client leaves."""
    working, gone = asyncio.create_task(work), asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, gone):
            task.cancel()
        for ended in await asyncio.gather(working, gone, return_exceptions=True):
            assert isinstance(ended, bytes | ConnectionError | asyncio.CancelledError | None)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


@asynccontextmanager
async def through(
    upstream_port: int, toxics: Iterable[Toxic] = (), always: Toxic = CLEAN
) -> AsyncIterator[FaultProxy]:
    """Run a fault proxy before an upstream."""
    proxy = FaultProxy(upstream_port, always, list(toxics))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
