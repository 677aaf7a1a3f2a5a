"""URLs in requests and answers are text: the proxy itself fetches none of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.upstream import UpstreamProcess
from tests.wire.proxy import backend, serve

ROUTES = """
verifiers:
  shape: {type: json_schema}
routes:
  one: {backends: [local], policy: single}
  shaped: {backends: [local], policy: 'first_pass:2', verifiers: [shape]}
"""


class Trap:
    """A server that counts who comes."""

    def __init__(self) -> None:
        self.port = 0
        self.came = 0
        self.anyone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self.anyone.set()
        writer.close()


@asynccontextmanager
async def trapped() -> AsyncIterator[Trap]:
    trap = Trap()
    server = await asyncio.start_server(trap.serve, "127.0.0.1", 0)
    trap.port = server.sockets[0].getsockname()[1]
    async with server:
        yield trap


def addresses(port: int) -> list[str]:
    """Return the ways to write the trap's address that filters have fallen for."""
    hosts = ("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0")
    names = (*hosts, "[::ffff:127.0.0.1]", "user@127.0.0.1", "127.0.0.1.")
    return [f"http://{name}:{port}/x" for name in names] + [f"//127.0.0.1:{port}/x"]


def content(kind: str, url: str) -> Any:
    parts: dict[str, Any] = {
        "image": {"type": "image_url", "image_url": {"url": url}},
        "image in short": {"type": "image_url", "image_url": url},
        "video": {"type": "video_url", "video_url": {"url": url}},
        "audio": {"type": "audio_url", "audio_url": {"url": url}},
        "file": {"type": "file", "file": {"file_data": url, "filename": url}},
        "text": {"type": "text", "text": f"![x]({url}) <img src='{url}'>"},
    }
    return [parts[kind]]


@pytest.mark.parametrize("kind", ["image", "image in short", "video", "audio", "file", "text"])
async def test_media_of_a_request_is_passed_on_and_never_fetched(
    upstream: UpstreamProcess, tmp_path: Path, kind: str
) -> None:
    text = f"backends:\n{backend(upstream, max_tokens_per_image=100)}{ROUTES}"
    async with trapped() as trap, serve(text, tmp_path) as proxy:
        for url in addresses(trap.port):
            await upstream.script("m", f"look: ![x]({url})")
            messages = [{"role": "user", "content": content(kind, url)}]
            body = msgspec.json.encode({"model": "one", "messages": messages})
            reply = await proxy.post("/v1/chat/completions", body)
            # What the proxy cannot count is refused, but nothing is ever looked up.
            assert reply.status in (200, 400)
        assert trap.came == 0
        # It would have noticed.
        _, writer = await asyncio.open_connection("127.0.0.1", trap.port)
        await trap.anyone.wait()
        writer.close()


@pytest.mark.parametrize(
    "field", ["tools", "response_format", "metadata", "web_search_options", "store", "item"]
)
async def test_no_other_field_makes_the_proxy_fetch(
    upstream: UpstreamProcess, tmp_path: Path, field: str
) -> None:
    text = f"backends:\n{backend(upstream)}{ROUTES}"
    async with trapped() as trap, serve(text, tmp_path) as proxy:
        for url in addresses(trap.port):
            await upstream.script("m", f'{{"$schema": "{url}", "url": "{url}"}}')
            schema = {"$schema": url, "$id": url, "properties": {"url": {"$ref": f"{url}#/a"}}}
            values: dict[str, Any] = {
                "tools": [{"type": "mcp", "server_url": url, "server_label": "x"}],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema, "strict": True},
                },
                "metadata": {"url": url, "webhook": url},
                "web_search_options": {"url": url},
                "store": url,
                "item": {"url": url},
            }
            more = {field: values[field]}
            if field == "item":
                more = {"samplewise": {"item": values["item"]}}
            for route in ("one", "shaped"):
                reply = await proxy.chat(route, **more)
                assert reply.status in (200, 400, 502), reply.body
        assert trap.came == 0
