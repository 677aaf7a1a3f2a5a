"""A lean HTTP/1.1 client for plain HTTP: a pool of connections for each address, without limits.

How many calls run at once is decided before (`max_in_flight`), never by a pool. Connections that
nobody uses are closed before servers do so, and none is used for longer than a bounded time, so
that a name which leads elsewhere is followed.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from urllib.parse import urlsplit

from samplewise.proxy.backends.http import HttpAnswer, Patience, Unreached
from samplewise.proxy.backends.lean_connection import Connection
from samplewise.proxy.backends.names import Names

__all__ = ["LeanClient", "speaks"]

# Given up before common servers (5 s) close them under a new call.
_IDLE_S = 4.0
_AGE_S = 300.0
# What needs no quoting and no encoding; any other address is left to aiohttp.
_PLAIN = re.compile(
    r"http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?(/[A-Za-z0-9/._~:@!$&*+,;=-]*)?"
)
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def speaks(url: str) -> bool:
    """Say whether the lean client can ask an address."""
    return _PLAIN.fullmatch(url) is not None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads: the connection's end, and the first lines of a request."""

    host: str
    port: int
    lines: bytes


@dataclass(slots=True)
class LeanClient:
    """All connections of a process over plain HTTP. `age_s` bounds the life of each."""

    names: Names = field(default_factory=Names)
    age_s: float = _AGE_S
    idle_s: float = _IDLE_S
    _places: dict[str, _Place] = field(default_factory=dict)
    _idle: dict[tuple[str, int], deque[Connection]] = field(default_factory=dict)
    _open: set[Connection] = field(default_factory=set)
    _sweeping: asyncio.TimerHandle | None = None

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience: Patience,
        sending: Callable[[], None],
    ) -> _Asking:
        """Send a request and give its answer. Leaving early closes the connection."""
        return _Asking(self, url, headers, body, patience, sending)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()
        # Transports end in the next turn of the loop.
        await asyncio.sleep(0)

    def place(self, url: str) -> _Place:
        """Return where a URL leads."""
        known = self._places.get(url)
        if known is not None:
            return known
        if not speaks(url):
            raise ValueError(f"not a plain HTTP address: {url[:200]}")
        parts = urlsplit(url)
        lines = f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode("ascii")
        place = self._places[url] = _Place(parts.hostname or "", parts.port or 80, lines)
        return place

    def kept(self, place: _Place) -> Connection | None:
        """Return a connection that is open already; the one that was used last."""
        idle = self._idle.get((place.host, place.port))
        now = asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.usable and self._lives(connection, now):
                return connection
            self.drop(connection)
        return None

    def _lives(self, connection: Connection, now: float) -> bool:
        return now - connection.born < self.age_s and now - connection.freed_at < self.idle_s

    async def connected(self, place: _Place, patience: Patience) -> Connection:
        """Return a new connection; raises Unreached."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + min(patience.connect_s, patience.total_s)
        failure: OSError = TimeoutError(f"no connection within {patience.connect_s:g} s")
        try:
            async with asyncio.timeout_at(ends):
                addresses = await self._addresses(place)
        except OSError as error:
            raise Unreached(f"{place.host}: {error if str(error) else failure}") from None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                # No address may take the time of those after it.
                async with asyncio.timeout((ends - loop.time()) / left):
                    _, connection = await loop.create_connection(
                        lambda: Connection(loop), address, place.port
                    )
            except OSError as error:
                failure = error if str(error) else failure
                self.names.failed(place.host, address)
                continue
            self._open.add(connection)
            return connection
        raise Unreached(f"{place.host}:{place.port}: {failure}")

    async def _addresses(self, place: _Place) -> list[str]:
        try:
            return [str(ip_address(place.host))]
        except ValueError:
            return await self.names.addresses(place.host, place.port)

    def keep(self, place: _Place, connection: Connection) -> None:
        """Take back a connection that can be used again."""
        loop = asyncio.get_running_loop()
        connection.freed_at = loop.time()
        self._idle.setdefault((place.host, place.port), deque()).append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self.idle_s, self._sweep)

    def drop(self, connection: Connection) -> None:
        """Close a connection."""
        self._open.discard(connection)
        connection.close()

    def _sweep(self) -> None:
        """Close what nobody has used for too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for key, idle in list(self._idle.items()):
            while idle and not (idle[0].usable and self._lives(idle[0], now)):
                self.drop(idle.popleft())
            if not idle:
                del self._idle[key]
        freed = [idle[0].freed_at for idle in self._idle.values()]
        # A little later than the oldest is due, so that it is due then.
        again = min(freed) + self.idle_s - now + 0.01 if freed else 0.0
        self._sweeping = loop.call_later(again, self._sweep) if freed else None


@dataclass(slots=True)
class _Asking:
    """One request on its way. A class: this is done for every call, and generators cost more."""

    client: LeanClient
    url: str
    headers: Mapping[str, str]
    body: bytes
    patience: Patience
    sending: Callable[[], None]
    place: _Place = field(init=False)
    connection: Connection = field(init=False)

    async def __aenter__(self) -> HttpAnswer:
        """Send it and wait for the answer's headers."""
        client = self.client
        self.place = place = client.place(self.url)
        length = b"content-length: %d\r\n\r\n" % len(self.body)
        head = place.lines + header_lines(self.headers) + length
        connection = client.kept(place) or await client.connected(place, self.patience)
        self.connection, answered = connection, False
        try:
            self.sending()
            connection.ask(head, self.body, self.patience)
            await connection.headers()
            answered = True
        finally:
            if not answered:
                client.drop(connection)
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep the connection if it can be used again."""
        if kind is None and self.connection.usable:
            self.client.keep(self.place, self.connection)
        else:
            self.client.drop(self.connection)


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Return headers as they are sent.

    Raises:
        ValueError: a name or value could end its line, or is not plain text.
    """
    lines = []
    for name, value in headers.items():
        plain = value.isascii() and value.isprintable()
        # The common case is quick to see.
        if not plain or not (name.replace("-", "").isalnum() or _NAME.fullmatch(name)):
            raise ValueError(f"the header {name[:40]!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("ascii")
