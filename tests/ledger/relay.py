"""A network that obeys the test: what goes through can be held back either way, or cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Relay:
    """Between a client and a database. `asked` and `answered` let bytes pass while they are set."""

    url: str
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Relay]:
        """Open one before the database at `url`; clients use the relay's own `url`."""
        parts = urlsplit(url)
        relay = cls(url)
        relay.thaw()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(parts.hostname, parts.port)
            relay._ends |= {writer, far_writer}
            for task in (
                asyncio.create_task(relay._pump(reader, far_writer, relay.asked)),
                asyncio.create_task(relay._pump(far_reader, writer, relay.answered)),
            ):
                relay._work.add(task)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        relay.url = url.replace(f":{parts.port}", f":{port}")
        try:
            yield relay
        finally:
            server.close()
            relay.cut()
            relay.thaw()
            await asyncio.gather(*relay._work)

    def freeze(self) -> None:
        """Hold everything back from now on; nobody is told."""
        self.asked.clear()
        self.answered.clear()

    def thaw(self) -> None:
        """Let everything through that was held back."""
        self.asked.set()
        self.answered.set()

    def cut(self) -> None:
        """Break all connections; what was held back is lost."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if not open_.is_set():
                    self.waiting.set()
                await open_.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
