"""A load generator: raw HTTP/1.1 on uvloop, a closed loop of some connections.

Every request that was begun is waited for, so processor time and requests belong together exactly.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import cast

import msgspec

from bench.machine import Spent, spent

__all__ = ["Target", "Visit", "get", "request_bytes", "visit"]

_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """A server to load: its port, and the root of the process tree whose time counts."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Visit:
    """What one visit measured. `latencies` are seconds, sorted."""

    requests: int
    seconds: float
    spent: Spent
    latencies: list[float]

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time per request."""
        return self.spent.cpu_s / self.requests * 1e6

    def quantile_ms(self, share: float) -> float:
        """Return the latency in milliseconds that `share` of all requests stayed below."""
        at = min(len(self.latencies) - 1, int(share * len(self.latencies)))
        return self.latencies[at] * 1e3


class _Connection(asyncio.Protocol):
    """One connection that sends a request again and again."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.latencies: list[float] = []
        self._end = self._began = 0.0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._missing: int | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the target closed the connection"))

    def run(self, end: float) -> asyncio.Future[None]:
        """Send requests until `end`; the result comes when the last is answered."""
        self._end = end
        self.latencies = []
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        return self._done

    def _send(self) -> None:
        self._began = perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing is None and not self._tail:
            self._head += data
            head, found, data = self._head.partition(_HEAD_END)
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(RuntimeError(self._head[:500].decode(errors="replace")))
                return
            self._missing = _length(head.lower())
            self._tail = b"\r\n"
        if self._missing is not None:
            self._missing -= len(data)
            if self._missing <= 0:
                self._answered()
            return
        self._tail = (self._tail + data[-len(_LAST_CHUNK) :])[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK:
            self._answered()

    def _answered(self) -> None:
        now = perf_counter()
        self.latencies.append(now - self._began)
        self._reset()
        if now < self._end:
            self._send()
        else:
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


def _length(head: bytes) -> int | None:
    """Return the length of a body; None when it comes in chunks."""
    _, found, rest = head.partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else None


def request_bytes(body: bytes) -> bytes:
    """Return a whole chat request with this body."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer sk-bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def visit(target: Target, request: bytes, connections: int, seconds: float) -> Visit:
    """Load a target with `connections` requests at a time, after a warm-up that is not counted.

    Raises:
        RuntimeError: an answer is not 200; the message is its beginning.
    """
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: _Connection(request), "127.0.0.1", target.port
        )
        clients.append(client)
    try:
        await _all(clients, perf_counter() + seconds / 5)
        before, began = spent(target.pid), perf_counter()
        await _all(clients, began + seconds)
        took, used = perf_counter() - began, spent(target.pid) - before
    finally:
        for client in clients:
            client.transport.close()
    latencies = sorted(value for client in clients for value in client.latencies)
    return Visit(len(latencies), took, used, latencies)


async def _all(clients: list[_Connection], end: float) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*[client.run(end) for client in clients])


async def get(port: int, path: str) -> bytes | None:
    """Return the body of a page; None when it is not there, says no or takes too long."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
            head = await reader.readuntil(_HEAD_END)
            body = await reader.readexactly(_length(head.lower()) or 0)
            writer.close()
    except (OSError, asyncio.IncompleteReadError):
        return None
    return body if head.startswith(b"HTTP/1.1 200") else None


async def samples_given(port: int) -> int:
    """Return how many samples the fake upstream has given."""
    page = await get(port, "/counts")
    assert page is not None
    return int(msgspec.json.decode(page)["samples"])
