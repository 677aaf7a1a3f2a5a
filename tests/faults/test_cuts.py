"""A recorded stream, cut after every single byte: the same parse or a clean failure, never less."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
import pytest

from samplewise.proxy.backends.base import Broken, Call, Done, SampleEvent, Totals
from samplewise.proxy.backends.http import HttpClient
from samplewise.proxy.backends.lean import LeanClient
from samplewise.proxy.backends.openai import OpenAIBackend
from samplewise.proxy.backends.sessions import Sessions
from samplewise.proxy.backends.through_aiohttp import AiohttpClient
from tests.upstream import Answer, UpstreamProcess

BODY = msgspec.json.encode(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
TEXT = "Größe 😀 {42}"


class Cutter:
    """Answers a call for the path /K with the first K bytes of a stream.

    `promised` says whether the length of the whole is in the headers: without it a cut looks like
    the end.
    """

    def __init__(self, whole: bytes, promised: bool) -> None:
        self.whole = whole
        self.head = HEAD + (b"Content-Length: %d\r\n" % len(whole) if promised else b"") + b"\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        at = int(asked.split(b"/", 2)[1])
        writer.write(self.head + self.whole[:at])
        await writer.drain()
        writer.close()


async def recorded(upstream: UpstreamProcess) -> bytes:
    await upstream.script("m", Answer(text=TEXT, tokens=3, logprobs=-0.5))
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{upstream.base_url}/chat/completions", data=BODY) as reply,
    ):
        return await reply.read()


async def parsed(backend: OpenAIBackend, host: str) -> list[SampleEvent]:
    call = Call("r-0.0", BODY, stream=True, host=host, timeout_s=30.0)
    found = [event async for event in backend.draw(call)]
    return [event for event in found if isinstance(event, Done | Totals | Broken)]


@pytest.mark.parametrize("promised", [True, False])
@pytest.mark.parametrize("client", ["lean", "aiohttp"])
async def test_a_stream_cut_at_any_byte_is_whole_or_cleanly_lost(
    upstream: UpstreamProcess, promised: bool, client: str
) -> None:
    whole = await recorded(upstream)
    server = await asyncio.start_server(Cutter(whole, promised).serve, "127.0.0.1", 0, backlog=512)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sessions, lean = Sessions(), LeanClient()
    asking: HttpClient = lean if client == "lean" else AiohttpClient(sessions)
    backend, room = OpenAIBackend(asking, {}), asyncio.Semaphore(32)
    found: dict[int, list[SampleEvent]] = {}

    async def cut(at: int) -> None:
        async with room:
            found[at] = await parsed(backend, f"{address}/{at}")

    try:
        async with server, asyncio.TaskGroup() as group:
            for at in range(len(whole) + 1):
                group.create_task(cut(at))
    finally:
        await sessions.close()
        await lean.close()
    assert len(found) == len(whole) + 1 > 900
    *dones, totals = found[len(whole)]
    (done,) = dones
    assert isinstance(done, Done)
    assert isinstance(totals, Totals)
    assert (done.text, totals.usage is not None) == (TEXT, True)
    for at, events in found.items():
        # A whole choice may come with the usage missing, a part of one never comes.
        assert all(e == done for e in events if isinstance(e, Done)), at
        last = events[-1]
        if isinstance(last, Broken):
            assert (last.reason, last.sent, last.status) == ("cut", True, None), at
        else:
            assert isinstance(last, Totals)
            assert last.usage in (None, totals.usage)
            assert done in events, at
    kept = [at for at, events in found.items() if not isinstance(events[-1], Broken)]
    # Nothing but the end of the stream is missing from what counts as whole.
    assert whole[min(kept) :].count(b'"content":"') == 0
