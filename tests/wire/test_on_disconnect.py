"""Routes with `on_disconnect: finish`: a request whose client left is there for the next try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.bodies import CHAT, ask
from tests.wire.books import reserved, series, soon, total
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  cancel: {backends: [local], policy: 'majority_vote:3'}
  finish: {backends: [local], policy: 'majority_vote:3', on_disconnect: finish}
  live: {backends: [local], on_disconnect: finish}
"""
AGAIN = {"x-stainless-retry-count": "1"}


@asynccontextmanager
async def serving(
    upstream: UpstreamProcess, folder: Path, server: str = ""
) -> AsyncIterator[Proxy]:
    config = f"{server}backends:\n{backend(upstream, max_n=1)}routes:{ROUTES}"
    async with serve(config, folder) as proxy:
        yield proxy


async def left(proxy: Proxy, upstream: UpstreamProcess, body: bytes, calls: int) -> None:
    """Ask and leave, with all calls on their way."""
    work = asyncio.create_task(proxy.post(CHAT, body))
    await upstream.wait("held", equals=calls)
    work.cancel()
    await asyncio.wait([work])


async def answered(proxy: Proxy) -> float:
    found = series((await proxy.get("/metrics")).body.decode())
    return total(found, "samplewise_requests_total", outcome="unverified") + total(
        found, "samplewise_requests_total", outcome="agreed"
    )


@pytest.mark.parametrize(
    ("route", "stream", "calls"),
    [
        ("finish", False, 3),
        ("finish", True, 3),
        ("live", True, 1),
    ],
)
async def test_the_next_try_joins_the_run_that_goes_on(
    upstream: UpstreamProcess, tmp_path: Path, route: str, stream: bool, calls: int
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    body = ask(route, stream=str(stream).lower())
    async with serving(upstream, tmp_path) as proxy:
        await left(proxy, upstream, body, calls)
        again = asyncio.create_task(proxy.post(CHAT, body, AGAIN))
        await soon(lambda: joined(proxy), "the next try has joined")
        await upstream.release("gate")
        reply = await again
        assert (reply.streamed if stream else reply.text) == "it is 4"
        state = await upstream.state()
        assert (state.started, state.aborted) == (calls, 0)
        assert reserved(tmp_path / "ledger.db") == 0


async def joined(proxy: Proxy) -> bool:
    found = series((await proxy.get("/metrics")).body.decode())
    return total(found, "samplewise_coalesced_retries_total") == 1


async def test_an_answer_that_nobody_waited_for_is_kept_for_the_next_try(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path) as proxy:
        await left(proxy, upstream, ask("finish"), 3)
        await upstream.release("gate")
        await soon(lambda: ended(proxy), "the run has ended")
        reply = await proxy.post(CHAT, ask("finish"), AGAIN)
        assert reply.text == "it is 4"
        assert reply.said["samples"] | {"drawn": 3, "ok": 3} == reply.said["samples"]
        assert (await upstream.state()).started == 3
        # Without a sign that it is a repetition it is a request like any other.
        assert (await proxy.post(CHAT, ask("finish"))).status == 200
        assert (await upstream.state()).started == 6


async def ended(proxy: Proxy) -> bool:
    return await answered(proxy) == 1


async def test_what_waits_for_a_place_is_given_up_with_its_client(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path, "server: {max_in_flight: 1, queue_s: 100}\n") as proxy:
        first = asyncio.create_task(proxy.post(CHAT, ask("live")))
        await upstream.wait("held", equals=1)
        second = asyncio.create_task(proxy.post(CHAT, ask("finish")))
        await soon(lambda: proxy.service.gate.waiting == 1, "the second one waits")
        second.cancel()
        await asyncio.wait([second])
        await soon(lambda: gone(proxy), "the second one is given up")
        await upstream.release("gate")
        assert (await first).status == 200
        assert (await upstream.state()).started == 1


async def gone(proxy: Proxy) -> bool:
    found = series((await proxy.get("/metrics")).body.decode())
    return total(found, "samplewise_requests_total", outcome="cancelled") == 1


async def test_without_it_a_request_ends_with_its_client(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="never"))
    async with serving(upstream, tmp_path) as proxy:
        await left(proxy, upstream, ask("cancel"), 3)
        await upstream.wait("aborted", equals=3)
