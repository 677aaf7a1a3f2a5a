"""A raw HTTP server for the tests of the lean client: it says exactly what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from samplewise.proxy.backends.http import HttpClient, Patience

PATIENCE = Patience(10.0, 5.0, 10.0)
HEADERS = {"Content-Type": "application/json", "X-Request-Id": "r-0.0"}


@dataclass
class Raw:
    """Answers every request with `answer`, in pieces of `slice_bytes`; `close` ends it there."""

    answer: bytes
    slice_bytes: int = 0
    close: bool = False
    reads_body: bool = True
    host: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    sent: int = 0
    requests: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}/v1/chat/completions"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        try:
            await self.talk(reader, writer)
        finally:
            self.tasks.discard(task)
            self.gone.set()
            writer.close()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                if self.reads_body:
                    length = int(request.split(b"content-length: ")[1].split(b"\r\n")[0])
                    request += await reader.readexactly(length)
                self.requests.append(request)
                self.asked.set()
                size = self.slice_bytes or len(self.answer) or 1
                for start in range(0, len(self.answer), size):
                    writer.write(self.answer[start : start + size])
                    await writer.drain()
                    self.sent += size
                if self.close:
                    break


@asynccontextmanager
async def saying(answer: bytes, **settings: object) -> AsyncIterator[Raw]:
    """Serve raw answers on a loopback port."""
    raw = Raw(answer, **settings)  # type: ignore[arg-type]
    server = await asyncio.start_server(raw.serve, raw.host, raw.port)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for task in raw.tasks:
            task.cancel()
        if raw.tasks:
            await asyncio.wait(list(raw.tasks))


async def ask(
    client: HttpClient, url: str, patience: Patience = PATIENCE, body: bytes = b"{}"
) -> tuple[int, bytes]:
    """Send a request; return status and body."""
    async with client.post(url, HEADERS, body, patience, lambda: None) as answer:
        parts = []
        while part := await answer.piece():
            parts.append(part)
        return answer.status, b"".join(parts)
