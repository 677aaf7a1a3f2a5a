"""The real proxy on a loopback port, in the test's own event loop, over a real upstream process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
import uvicorn

from samplewise.proxy.app import create_app
from samplewise.proxy.batches.running import Runner
from samplewise.proxy.config import load_text
from samplewise.proxy.http_protocol import HttpProtocol
from samplewise.proxy.service import Service

# Odd prices, so that a token counted twice or at the wrong price shows in every sum.
PRICE = "{input_usd_per_mtok: 0.37, output_usd_per_mtok: 1.93}"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        """The content of the first choice."""
        content: str = self.json["choices"][0]["message"]["content"]
        return content

    @property
    def said(self) -> Any:
        """The `samplewise` object."""
        return self.json["samplewise"]

    @property
    def error(self) -> Any:
        """The error object."""
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The JSON events of a stream, without `[DONE]`."""
        lines = self.body.decode().split("\n\n")
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        return [msgspec.json.decode(line) for line in data[:-1]]

    @property
    def streamed(self) -> str:
        """The content of a stream's first choice, put together."""
        deltas = [c["delta"] for e in self.events for c in e["choices"] if c["index"] == 0]
        return "".join(delta.get("content") or "" for delta in deltas)


@dataclass(frozen=True)
class Proxy:
    """A running proxy and a client for it."""

    url: str
    service: Service
    http: aiohttp.ClientSession
    runner: Runner

    async def chat(
        self, model: str, text: str = "hi", headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Reply:
        """Send a chat request with one user message."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.post("/v1/chat/completions", msgspec.json.encode(body), headers)

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Send bytes and read the answer."""
        async with self.http.post(self.url + path, data=body, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Read a page."""
        return await self.ask("GET", path, headers)

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Reply:
        """Send any request, with a JSON body if one is given."""
        data = None if body is None else msgspec.json.encode(body)
        url = self.url + path
        async with self.http.request(method, url, headers=headers, data=data) as response:
            return Reply(response.status, response.headers, await response.read())

    async def ledger_spent(self) -> int:
        """Return what the ledger says was spent in all, in nano-dollars; nothing may be held."""
        balances = await self.service.balances()
        everything = next(b for b in balances if b.account.name == "all")
        assert everything.reserved.nano == 0
        assert everything.spent.nano is not None
        return everything.spent.nano


@asynccontextmanager
async def serve(
    config: str, where: Path | str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """Run the proxy with a configuration; its ledger is a file in the folder `where`, or there."""
    store = where if isinstance(where, str) else f"sqlite:///{where}/ledger.db"
    text = f'store: "{store}"\n{config}'
    app = create_app(load_text(text, "test.yaml", env or {}))
    listener = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(
        app,
        http=HttpProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        # As `samplewise serve` has it: else a stall of some seconds closes connections under tests.
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(settings)
    # Signals belong to the test run.
    running = asyncio.create_task(server._serve(sockets=[listener]))
    try:
        async with asyncio.timeout(120):
            while not server.started:
                await asyncio.sleep(0.005)
                if running.done():
                    running.result()
                    raise AssertionError("the proxy did not start")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            yield Proxy(url, app.state.service, http, app.state.runner)
    finally:
        server.should_exit = True
        await running


class Addressed(Protocol):
    """Anything that serves the OpenAI API somewhere."""

    @property
    def base_url(self) -> str:
        """The address as OpenAI clients want it."""
        ...


def backend(upstream: Addressed, name: str = "local", model: str = "m", **extra: Any) -> str:
    """Return one line of a `backends:` section."""
    more = "".join(
        f", {key}: {msgspec.json.encode(value).decode()}" for key, value in extra.items()
    )
    return (
        f"  {name}: {{type: openai, base_urls: [{upstream.base_url}], model: {model}, "
        f"price: {PRICE}{more}}}\n"
    )
