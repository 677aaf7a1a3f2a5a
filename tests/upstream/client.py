"""Plain HTTP calls for tests that look at the bytes. The session's base is an OpenAI base URL."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import aiohttp

__all__ = ["ASK", "Streamed", "chunks", "post", "stream"]

ASK: Any = [{"role": "user", "content": "What is six times seven?"}]


class Streamed(NamedTuple):
    """What came of a streamed answer, and whether HTTP ended it as it should."""

    received: bytes
    clean: bool


async def post(http: aiohttp.ClientSession, **body: Any) -> Any:
    """Return the decoded answer to `ASK` by model "m", or to what `body` says instead."""
    async with http.post("chat/completions", json={"model": "m", "messages": ASK} | body) as reply:
        return await reply.json(content_type=None)


async def stream(http: aiohttp.ClientSession, **body: Any) -> Streamed:
    """Return the streamed answer, as far as it comes."""
    received = b""
    request = {"model": "m", "messages": ASK, "stream": True} | body
    try:
        async with http.post("chat/completions", json=request) as reply:
            assert reply.content_type == "text/event-stream"
            async for data in reply.content.iter_any():
                received += data
    except (aiohttp.ClientError, ConnectionError):
        return Streamed(received, False)
    return Streamed(received, True)


def chunks(received: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a whole stream, which ends with [DONE]."""
    events = received.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
