"""A stream that another process writes and that breaks off ends as its surface says errors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.proxy.peers import Peers, peers_folder
from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

ROUTES = "routes:\n  one: {backends: [local]}\n"
AGAIN = {"x-stainless-retry-count": "1"}
TURNS = [{"role": "user", "content": "hi"}]
_HEAD = b"HTTP/1.1 200 OK\r\n"


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that the run is here, then begin to answer and die."""
    line = await reader.readline()
    while (await reader.readline()).strip():
        pass
    if line.startswith(b"GET"):
        writer.write(_HEAD + b"content-length: 0\r\n\r\n")
    else:
        head = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(_HEAD + head + b"6\r\n: ok\n\n\r\n")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("path", "asked", "ends"),
    [
        ("/v1/chat/completions", {"messages": TURNS}, "data: [DONE]"),
        ("/v1/completions", {"prompt": "hi"}, "data: [DONE]"),
        ("/v1/responses", {"input": "hi"}, "event: response.failed"),
        ("/v1/messages", {"messages": TURNS, "max_tokens": 9}, "event: error"),
    ],
)
async def test_a_stream_of_another_process_that_breaks_off_ends_with_an_error(
    upstream: UpstreamProcess, tmp_path: Path, path: str, asked: dict[str, Any], ends: str
) -> None:
    config = f"backends:\n{backend(upstream)}{ROUTES}"
    with peers_folder() as folder:
        async with (
            await asyncio.start_unix_server(_half, folder / "other.sock"),
            serve(config, tmp_path) as proxy,
        ):
            proxy.service.retries.claims.peers = Peers(folder, str(folder / "own.sock"))
            body = msgspec.json.encode({"model": "one", "stream": True, **asked})
            reply = await proxy.post(path, body, AGAIN)
            text = reply.body.decode()
            assert (reply.status, text[:6]) == (200, ": ok\n\n")
            assert "has ended; try again" in text
            assert text.strip().split("\n\n")[-1].startswith(ends)
            assert not await upstream.records()
            assert await proxy.ledger_spent() == 0
