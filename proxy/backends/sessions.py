"""The HTTP connections of a process, none of them used for longer than a bounded time.

A busy connection would otherwise never end, and the address that a name led to once be called for
ever. So a new session, with connections of its own, takes over every few minutes.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

__all__ = ["Sessions", "new_session"]

_DNS_S = 60
_AGE_S = 300.0


def new_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """Make a session: no hidden connection limit, no cookies, names looked up every minute.

    Answers are asked for uncompressed; one that comes compressed all the same is decoded by aiohttp
    in pieces, and the size cap counts decoded bytes.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=_DNS_S,
            # Given up before common servers (5 s) close them under a new call.
            keepalive_timeout=4.0,
            resolver=resolver,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=2**18,
        auto_decompress=True,
        trace_configs=[_telling_when_sent()],
    )


def _telling_when_sent() -> aiohttp.TraceConfig:
    """Return hooks that call a request's `sending` once it has a connection to go out on."""

    async def connected(session: object, context: Any, params: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


@dataclass(slots=True, eq=False)
class _Generation:
    session: aiohttp.ClientSession
    born: float
    calls: int = 0


class Sessions:
    """Hands out the newest session; an older one is closed when its last call has ended."""

    def __init__(
        self,
        make: Callable[[], aiohttp.ClientSession] = new_session,
        age_s: float = _AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._age_s, self._clock = make, age_s, clock
        self._open = [_Generation(make(), clock())]

    @asynccontextmanager
    async def use(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Lend a session for one call."""
        if self._clock() - self._open[-1].born > self._age_s:
            self._open.append(_Generation(self._make(), self._clock()))
            await self._retire(self._open[-2])
        generation = self._open[-1]
        generation.calls += 1
        try:
            yield generation.session
        finally:
            generation.calls -= 1
            if generation is not self._open[-1]:
                await self._retire(generation)

    async def _retire(self, generation: _Generation) -> None:
        if not generation.calls:
            self._open.remove(generation)
            await generation.session.close()

    async def close(self) -> None:
        """Close every connection."""
        for generation in self._open:
            await generation.session.close()
