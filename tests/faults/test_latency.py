"""What is slow or stuck must not make the rest slow: ratios to the same load without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import Toxic, through
from tests.faults.test_table import backend
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire.faulty import counts, true_cost
from tests.wire.proxy import Proxy, Reply, serve

ROUTES = """
  quorum: {backends: [pool], max_tokens: 50,
    policy: {type: majority_vote, samples: 8, min_ok: 5, quorum: {min: 5}}}
  five: {backends: [pool], policy: {type: majority_vote, samples: 5, quorum: {min: 5}},
    max_tokens: 50}
  one: {backends: [pool], max_tokens: 50}
  slow: {backends: [slow], max_tokens: 50}
"""


def config(upstream: UpstreamProcess, slow: str, **extra: Any) -> str:
    made = backend("pool", upstream.base_url) + backend("slow", slow, **extra)
    return f"backends:\n{made}routes:{ROUTES}"


async def timed(ask: Callable[[], Awaitable[Reply]], times: int) -> list[float]:
    """Return how long each of some requests took, one after the other, sorted."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        assert (await ask()).status == 200
        found.append(time.monotonic() - began)
    return sorted(found)


async def test_an_answer_leaves_at_the_quorum_and_the_stragglers_are_cut(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="hang")] * 3)
    async with serve(config(upstream, upstream.base_url), tmp_path) as proxy:
        reply = await proxy.chat("quorum")
        assert (reply.text, counts(reply)) == ("fine", (8, 5, 0, 3))
        assert (reply.said["stop_reason"], reply.said["degraded"]) == ("quorum", ["quorum"])
        await upstream.wait("aborted", equals=3)
        assert await proxy.ledger_spent() >= true_cost(await upstream.records())


@pytest.mark.slow
async def test_stragglers_cost_no_time_beyond_the_quorum(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    answer = Answer(text="fine", delay_s=0.05)
    hangs = (*[Fault(kind="hang")] * 3, *[None] * 5)
    stuck = Rule(contains="stuck", answers=(answer,), faults=hangs, cycle_faults=True)
    await upstream.script("m", answer, rules=[stuck])
    async with serve(config(upstream, upstream.base_url), tmp_path) as proxy:
        plain = await timed(lambda: proxy.chat("five"), 30)
        hung = await timed(lambda: proxy.chat("quorum", "stuck"), 30)
        assert hung[-2] <= 1.5 * plain[-2] + 0.05
        assert hung[15] <= 1.5 * plain[15] + 0.05


async def _beside(proxy: Proxy, times: int) -> float:
    """Return the time that nine of ten requests stay below."""
    found = await timed(lambda: proxy.chat("one"), times)
    return found[int(0.9 * times)]


@pytest.mark.slow
async def test_dripping_upstreams_do_not_slow_the_other_traffic(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", delay_s=0.02))
    drip = Toxic(slice_bytes=1, slice_s=0.05)
    async with (
        through(upstream.port, always=drip) as slow,
        serve(config(upstream, slow.base_url, idle_timeout_s=60), tmp_path) as proxy,
    ):
        alone = await _beside(proxy, 60)
        async with asyncio.TaskGroup() as group:
            stuck = [group.create_task(proxy.chat("slow", stream=True)) for _ in range(50)]
            await upstream.wait("started", at_least=110)
            beside = await _beside(proxy, 60)
            assert not all(task.done() for task in stuck)
            for task in stuck:
                task.cancel()
        assert beside <= 2 * alone + 0.02


@pytest.mark.slow
async def test_clients_that_send_slowly_do_not_slow_the_other_traffic(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", delay_s=0.02))
    async with serve(config(upstream, upstream.base_url), tmp_path) as proxy:
        alone = await _beside(proxy, 60)
        port = int(proxy.url.rpartition(":")[2])
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        writers = []
        for number in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            # Half of them stop in the headers, half in the body.
            writer.write(head[:30] if number % 2 else head + b'{"model": "one"')
            writers.append(writer)
        beside = await _beside(proxy, 60)
        for writer in writers:
            writer.close()
        assert beside <= 2 * alone + 0.02
        assert (await proxy.chat("one")).status == 200
