"""Connections get old: a name that leads elsewhere is followed, what runs is not cut."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from samplewise.proxy.backends.base import Broken, Call, Done
from samplewise.proxy.backends.openai import OpenAIBackend
from samplewise.proxy.backends.sessions import Sessions, new_session
from samplewise.proxy.backends.through_aiohttp import AiohttpClient

ANSWER = b'{"choices": [{"message": {"content": "%s"}, "finish_reason": "stop"}]}'


class Names(AbstractResolver):
    """A name server with one name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        found = ResolveResult(
            hostname=host,
            host=self.address,
            port=port,
            family=socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        return [found]

    async def close(self) -> None:
        pass


async def serve(
    address: str, gate: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer every call on a connection with the address that was called."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
            await gate.wait()
            body = ANSWER % address.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    except asyncio.IncompleteReadError:
        writer.close()


@asynccontextmanager
async def at(address: str, port: int, gate: asyncio.Event) -> AsyncIterator[int]:
    server = await asyncio.start_server(partial(serve, address, gate), address, port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def said(backend: OpenAIBackend, url: str) -> str:
    call = Call("r-0.0", b"{}", host=url, timeout_s=10.0)
    events = [event async for event in backend.draw(call)]
    assert not any(isinstance(event, Broken) for event in events), events
    (done,) = (event for event in events if isinstance(event, Done))
    return done.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
async def test_a_name_that_leads_elsewhere_is_followed_though_the_connection_lives() -> None:
    names, now, gate = Names("127.0.0.1"), [0.0], asyncio.Event()
    gate.set()
    make = partial(new_session, names)
    sessions = Sessions(make, age_s=300.0, clock=lambda: now[0])
    backend = OpenAIBackend(AiohttpClient(sessions), {})
    async with at("127.0.0.1", 0, gate) as port, at("127.0.0.2", port, gate):
        url = f"http://upstream.test:{port}/v1"
        assert await said(backend, url) == "127.0.0.1"
        names.address = "127.0.0.2"
        now[0] = 299.0
        # The connection is kept, so nobody asks for the name.
        assert (await said(backend, url), names.asked) == ("127.0.0.1", 1)
        now[0] = 301.0
        assert (await said(backend, url), names.asked) == ("127.0.0.2", 2)
        await sessions.close()


async def test_calls_on_their_way_are_not_cut_and_the_old_session_ends_with_them() -> None:
    made: list[aiohttp.ClientSession] = []

    def make() -> aiohttp.ClientSession:
        made.append(new_session())
        return made[-1]

    now, gate = [0.0], asyncio.Event()
    sessions = Sessions(make, age_s=300.0, clock=lambda: now[0])
    backend = OpenAIBackend(AiohttpClient(sessions), {})
    async with at("127.0.0.1", 0, gate) as port:
        url = f"http://127.0.0.1:{port}/v1"
        first = asyncio.create_task(said(backend, url))
        await asyncio.sleep(0)
        now[0] = 301.0
        second = asyncio.create_task(said(backend, url))
        await asyncio.sleep(0)
        assert [session.closed for session in made] == [False, False]
        gate.set()
        assert (await first, await second) == ("127.0.0.1", "127.0.0.1")
        assert [session.closed for session in made] == [True, False]
        await sessions.close()
        assert [session.closed for session in made] == [True, True]
