"""What one upstream call costs in processor time, through each HTTP client, in the same run.

Usage: python -m bench.clients [--quick]. One fake upstream in a process of its own; calls in waves
of 8 and of 64 at a time; rounds take turns, so that what else runs on the machine meets both alike.
`call` is sending a request and reading the answer's bytes, `draw` what the backend makes of it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median

import msgspec
import uvloop

from bench.load import get
from bench.targets import free_port
from samplewise.proxy.backends.base import Call, Done
from samplewise.proxy.backends.http import HttpClient, Patience
from samplewise.proxy.backends.lean import LeanClient
from samplewise.proxy.backends.openai import OpenAIBackend
from samplewise.proxy.backends.sessions import Sessions
from samplewise.proxy.backends.through_aiohttp import AiohttpClient

_WAVES = (8, 64)
_BODY = msgspec.json.encode(
    {
        "model": "fake",
        "messages": [{"role": "user", "content": "word " * 200}],
        "max_tokens": 64,
        "temperature": 0.7,
    }
)
_HEADERS = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "X-Request-Id": "req_0123456789abcdef-0.0",
    "Authorization": "Bearer sk-bench",
}
_PATIENCE = Patience(600.0, 5.0, 120.0)


def _nothing() -> None:
    pass


async def _call(client: HttpClient, url: str) -> None:
    target = f"{url}/chat/completions"
    async with client.post(target, _HEADERS, _BODY, _PATIENCE, _nothing) as answer:
        parts = []
        while part := await answer.piece():
            parts.append(part)
    assert len(b"".join(parts)) > 500


async def _draw(backend: OpenAIBackend, url: str) -> None:
    call = Call("req_0123456789abcdef-0.0", _BODY, host=url)
    events = [event async for event in backend.draw(call)]
    assert sum(isinstance(event, Done) for event in events) == 1


async def _cpu_us(work: Callable[[], Awaitable[None]], wave: int, calls: int) -> float:
    """Return the processor time of this process per call, in microseconds."""
    began = time.process_time()
    for _ in range(calls // wave):
        async with asyncio.TaskGroup() as group:
            for _ in range(wave):
                group.create_task(_one(work))
    return (time.process_time() - began) / (calls // wave * wave) * 1e6


async def _one(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def measure(port: int, rounds: int, calls: int) -> None:
    """Print a table of both clients."""
    url = f"http://127.0.0.1:{port}/v1"
    sessions, lean = Sessions(), LeanClient()
    clients: dict[str, HttpClient] = {"aiohttp": AiohttpClient(sessions), "lean": lean}
    works: dict[tuple[str, str], Callable[[], Awaitable[None]]] = {}
    for name, client in clients.items():
        backend = OpenAIBackend(client, {"Authorization": "Bearer sk-bench"})
        works["call", name] = lambda client=client: _call(client, url)  # type: ignore[misc]
        works["draw", name] = lambda backend=backend: _draw(backend, url)  # type: ignore[misc]
    print(f"{'':6}{'waves of':>9}{'aiohttp us':>12}{'lean us':>10}{'times':>7}  per round")
    for kind in ("call", "draw"):
        for wave in _WAVES:
            found: dict[str, list[float]] = {name: [] for name in clients}
            for name in clients:
                await _cpu_us(works[kind, name], wave, 4 * wave)
            for _ in range(rounds):
                for name in clients:
                    found[name].append(await _cpu_us(works[kind, name], wave, calls))
            ratios = [a / b for a, b in zip(found["aiohttp"], found["lean"], strict=True)]
            means = [median(found[name]) for name in ("aiohttp", "lean")]
            spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
            row = f"{kind:6}{wave:>9}{means[0]:>12.1f}{means[1]:>10.1f}{median(ratios):>7.1f}"
            print(f"{row}  {spread}")
    await lean.close()
    await sessions.close()


async def _measured(port: int, quick: bool) -> None:
    async with asyncio.timeout(30):
        while await get(port, "/counts") is None:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)
    await measure(port, 3 if quick else 9, 640 if quick else 2560)


def main(quick: bool) -> None:
    """Start the upstream, measure, and end it."""
    port = free_port()
    upstream = subprocess.Popen([sys.executable, "-m", "bench.upstream", str(port)])
    try:
        uvloop.run(_measured(port, quick))
    finally:
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
