"""`samplewise upstream` as its own process, and short ways to ask it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import openai

PUZZLE = "4 7 8 8 > 24"
SUM = "eval ( 7 + 5 ) * 3 - 8"


@dataclass(frozen=True)
class Upstream:
    """Where a running server is."""

    url: str

    @asynccontextmanager
    async def client(self) -> AsyncIterator[openai.AsyncOpenAI]:
        """A client of the official library that never retries."""
        async with openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0) as client:
            yield client

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Send a body, as it is when it is bytes; return status and answer."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}{path}", data=data, headers=headers) as response,
        ):
            return response.status, msgspec.json.decode(await response.read())

    async def record(self, request_id: str) -> Any:
        """Return the record of a request id; None while there is none."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/records/{request_id}") as response,
        ):
            return await response.json() if response.status == 200 else None

    async def began(self, request_id: str) -> None:
        """Wait until a request has its first tokens."""

        async def tokens() -> bool:
            found = await self.record(request_id)
            return bool(found and found["completion_tokens"])

        await eventually(tokens)

    async def ended(self, request_id: str) -> Any:
        """Wait until a request has ended; return its record."""

        async def over() -> bool:
            return bool((await self.record(request_id))["state"] != "running")

        await eventually(over)
        return await self.record(request_id)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes, for ten seconds."""
    for _ in range(1000):
        if await check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about within ten seconds")


@contextmanager
def running() -> Iterator[Upstream]:
    """Start the command on a free port and stop it with SIGTERM."""
    command = [sys.executable, "-m", "samplewise", "upstream", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.search(r"http://\S+", line)
            assert found is not None, line
            yield Upstream(found[0])
        finally:
            process.terminate()
            left = process.stderr.read()
            process.wait(timeout=10)
    assert (process.returncode, left) == (0, "")


def user(text: str) -> list[Any]:
    """Messages with one of the user."""
    return [{"role": "user", "content": text}]
