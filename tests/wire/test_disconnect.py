"""Clients that leave: the upstream is told at once, nothing is drawn after, all is settled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import counted, reserved, rows, series, soon, spent, total
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:4'}
  window: {backends: [local], policy: {type: adaptive_vote, margin: 9, max_samples: 12, window: 3}}
  pass: {backends: [local], policy: {type: first_pass, max_samples: 8, waves: [4, 4]}, verifiers: [word]}
"""  # noqa: E501
VERIFIERS = "  word: {type: regex, pattern: '^never$'}\n"
# Samples that a route has in flight at first, and whether its upstream calls are streamed.
FIRST = {"one": 1, "vote": 4, "window": 3, "pass": 4}


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    config = f"backends:\n{backend(upstream)}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    async with serve(config, folder) as proxy:
        yield proxy


@asynccontextmanager
async def calling(
    proxy: Proxy, *, missing_bytes: int = 0, **fields: Any
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a chat request; the client leaves at the end of the block, without a goodbye."""
    address = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    messages = [{"role": "user", "content": "how many are there"}]
    body = msgspec.json.encode({"messages": messages, **fields})
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body) + missing_bytes, body)
    )
    try:
        yield reader
    finally:
        writer.transport.abort()


async def page(proxy: Proxy) -> Any:
    return series((await proxy.get("/metrics")).body.decode())


async def ended(proxy: Proxy, count: int, **labels: str) -> None:
    """Wait until so many requests are counted as ended."""

    async def counted_so() -> bool:
        return total(await page(proxy), "samplewise_requests_total", **labels) == count

    await soon(counted_so, f"{count} requests ended {labels}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", FIRST)
async def test_a_client_that_leaves_stops_everything_and_everything_is_settled(
    upstream: UpstreamProcess, tmp_path: Path, route: str, stream: bool
) -> None:
    await upstream.script("m", Answer(text="a b c d e f", hold="gate", hold_after=2))
    ledger = tmp_path / "ledger.db"
    async with serving(upstream, tmp_path) as proxy:
        async with calling(proxy, model=route, stream=stream):
            await upstream.wait("held", equals=FIRST[route])
            before = await upstream.state()
            left = time.monotonic()
        # Polled for, so that a slow machine fails no test; what it took is in the record.
        state = await upstream.wait("running", equals=0)
        assert (state.aborted, state.finished) == (before.started, 0)
        lag = max(record.ended_s or 0 for record in await upstream.records()) - left
        assert lag < 1.0, f"the upstream was told after {lag:.3f} s"

        await ended(proxy, 1, route=route, outcome="cancelled")
        assert reserved(ledger) == 0
        await upstream.release("gate")
        found = await page(proxy)
        records = await upstream.records()
        assert len(records) == before.started
        request_id = records[0].request_id.rpartition("-")[0]
        assert len(proxy.service.engine.kept) == 1
        evidence = proxy.service.engine.kept.get(request_id)
        assert evidence is not None
        assert evidence.client_gone
        assert (evidence.drawn, evidence.good) == (FIRST[route], 0)
        assert len(evidence.samples) == FIRST[route]

        assert total(found, "samplewise_requests_total", route=route, outcome="cancelled") == 1
        assert total(found, "samplewise_requests_total") == 1
        assert total(found, "samplewise_client_disconnects_total", route=route) == 1
        samples = total(found, "samplewise_samples_total", route=route, outcome="cancelled")
        assert samples == FIRST[route]
        calls = total(found, "samplewise_upstream_requests_total", status="cancelled")
        assert calls == before.started
        assert total(found, "samplewise_upstream_inflight") == 0
        truth = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)
        assert truth <= spent(ledger) == counted(found, "samplewise_cost_usd_total")


@pytest.mark.parametrize("route", ["one", "window"])
async def test_a_client_that_leaves_in_the_middle_of_its_stream_is_noticed(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    # The single route has sent chunks by then, the other one nothing but its headers, if that.
    await upstream.script("m", Answer(text="a b c d e f", hold="gate", hold_after=3))
    async with serving(upstream, tmp_path) as proxy:
        async with calling(proxy, model=route, stream=True) as reader:
            await upstream.wait("held", equals=FIRST[route])
            if route == "one":
                assert b" c" in await reader.readuntil(b'" c"')
        await upstream.wait("aborted", equals=FIRST[route])
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "settled")
        settled = rows(tmp_path / "ledger.db")
        # Streamed calls are billed by what was counted, not by what they might have cost.
        assert [row["completion_tokens"] for row in settled] == [3] * FIRST[route]
        assert {row["usage_source"] for row in settled} == {"counted"}


async def test_a_client_that_leaves_before_its_body_is_in_costs_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        async with calling(proxy, model="vote", missing_bytes=100_000):
            pass
        await ended(proxy, 1, route="other", outcome="cancelled")
        assert rows(tmp_path / "ledger.db") == []
        assert len(proxy.service.engine.kept) == 0
        assert await upstream.records() == []


async def test_a_client_that_leaves_the_queue_for_an_upstream_pays_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    config = f"backends:\n{backend(upstream, max_in_flight=1)}routes:{ROUTES.split('  pass')[0]}"
    ledger = tmp_path / "ledger.db"
    async with serve(config, tmp_path) as proxy:
        first = asyncio.create_task(proxy.chat("one"))
        await upstream.wait("held", equals=1)
        async with calling(proxy, model="window"):
            await soon(lambda: len(rows(ledger)) == 4, "three more samples are reserved")
        await ended(proxy, 1, route="window", outcome="cancelled")
        assert [row["state"] for row in rows(ledger)] == ["dispatched", *["released"] * 3]
        await upstream.release("gate")
        assert (await first).text == "fine"
        assert len(await upstream.records()) == 1
        assert reserved(ledger) == 0


async def test_a_verifier_that_works_for_a_client_that_left_is_stopped(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def grade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        while await reader.read(65536):
            pass
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(grade, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = (
            f"backends:\n{backend(upstream)}"
            f"verifiers:\n  slow: {{type: webhook, url: 'http://127.0.0.1:{port}/', timeout_s: 60, "
            "price: {usd_per_call: 0.001}}\n"
            "routes:\n  r: {backends: [local], policy: 'first_pass:4', verifiers: [slow]}\n"
        )
        async with serve(config, tmp_path) as proxy, asyncio.timeout(20):
            async with calling(proxy, model="r"):
                await asked.wait()
            await hung_up.wait()
            await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "settled")
            assert spent(tmp_path / "ledger.db") == counted(
                await page(proxy), "samplewise_cost_usd_total"
            )


@pytest.mark.parametrize("clients", [20, pytest.param(500, marks=pytest.mark.slow)])
async def test_clients_that_leave_at_any_moment_leave_nothing_behind(
    upstream: UpstreamProcess, tmp_path: Path, clients: int
) -> None:
    await upstream.script("m", Answer(text="a b c d e f g h i j k l m n", token_delay_s=0.02))
    rng = random.Random(7)
    ledger = tmp_path / "ledger.db"

    async def client(proxy: Proxy, route: str, stream: bool, patience_s: float) -> None:
        async with calling(proxy, model=route, stream=stream) as reader:
            try:
                async with asyncio.timeout(patience_s):
                    await reader.read()
            except TimeoutError:
                pass

    async with serving(upstream, tmp_path) as proxy:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                route, stream = rng.choice(list(FIRST)), rng.random() < 0.5
                group.create_task(client(proxy, route, stream, rng.uniform(0.0, 0.6)))
        # First of all: on a busy machine some requests begin after their clients have left.
        await ended(proxy, clients)
        await upstream.wait("running", equals=0)
        records = await upstream.records()
        assert any(record.phase == "aborted" for record in records)
        assert reserved(ledger) == 0
        found = await page(proxy)
        gone = total(found, "samplewise_requests_total", outcome="cancelled")
        assert gone == total(found, "samplewise_client_disconnects_total")
        assert gone == len(proxy.service.engine.kept) + total(
            found, "samplewise_requests_total", outcome="cancelled", route="other"
        )
        truth = sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)
        assert truth <= spent(ledger) == counted(found, "samplewise_cost_usd_total")
        assert {row["state"] for row in rows(ledger)} <= {"settled", "released"}
        assert len(await upstream.records()) == len(records)
