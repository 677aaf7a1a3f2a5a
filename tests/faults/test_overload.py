"""More requests than a server can serve: some are turned away at once, before any reservation."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.test_table import backend
from tests.upstream import Answer, UpstreamProcess
from tests.wire import books
from tests.wire.bodies import MESSAGES, RESPONSES
from tests.wire.books import series, soon, total
from tests.wire.proxy import serve

ROUTES = "  one: {backends: [pool], max_tokens: 50}\n"


def config(upstream: UpstreamProcess, server: str) -> str:
    return f"server: {server}\nbackends:\n{backend('pool', upstream.base_url)}routes:\n{ROUTES}"


async def test_who_finds_no_place_is_shed_before_any_reservation(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    file = tmp_path / "ledger.db"
    limits = "{max_in_flight: 2, max_queue: 1, queue_s: 60}"
    async with serve(config(upstream, limits), tmp_path) as proxy:
        taken = [asyncio.create_task(proxy.chat("one", f"{i}")) for i in range(2)]
        await upstream.wait("held", equals=2)
        taken.append(asyncio.create_task(proxy.chat("one", stream=True)))
        await soon(lambda: proxy.service.gate.waiting == 1, "one waits")
        for stream in (False, True):
            shed = await proxy.chat("one", stream=stream)
            assert (shed.status, shed.error["code"]) == (503, "overloaded")
            assert shed.headers["retry-after"] == "1"
        for path, type_ in ((RESPONSES, "server_error"), (MESSAGES, "overloaded_error")):
            shed = await proxy.post(path, b"{}")
            assert (shed.status, shed.error["type"]) == (503, type_)
        assert len(books.rows(file)) == 2
        await upstream.release("gate")
        replies = [await reply for reply in taken]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert replies[2].streamed == "fine"
        assert len({row["request_id"] for row in books.rows(file)}) == 3
        assert (await proxy.chat("one")).status == 200
        page = series((await proxy.get("/metrics")).body.decode())
        assert total(page, "samplewise_requests_total", outcome="shed") == 4


async def test_nobody_waits_longer_for_a_place_than_is_allowed(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    limits = "{max_in_flight: 1, queue_s: 0.2}"
    async with serve(config(upstream, limits), tmp_path) as proxy:
        first = asyncio.create_task(proxy.chat("one"))
        await upstream.wait("held", equals=1)
        late = [await proxy.chat("one"), await proxy.chat("one", samplewise={"deadline_s": 0.1})]
        assert [reply.error["code"] for reply in late] == ["overloaded"] * 2
        assert len(books.rows(tmp_path / "ledger.db")) == 1
        await upstream.release("gate")
        assert (await first).status == 200


async def test_a_client_that_leaves_the_queue_costs_nothing_and_frees_its_place(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    limits = "{max_in_flight: 1, max_queue: 1, queue_s: 60}"
    async with serve(config(upstream, limits), tmp_path) as proxy:
        first = asyncio.create_task(proxy.chat("one"))
        await upstream.wait("held", equals=1)
        leaving = asyncio.create_task(proxy.chat("one"))
        await soon(lambda: proxy.service.gate.waiting == 1, "one waits")
        leaving.cancel()
        await asyncio.wait([leaving])
        await soon(lambda: proxy.service.gate.waiting == 0, "its place in the queue is free")
        await upstream.release("gate")
        assert (await first).status == 200
        assert (await proxy.chat("one")).status == 200
        assert len(await upstream.records()) == 2


async def test_a_repetition_joins_its_run_even_when_all_places_are_taken(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="fine", hold="gate"))
    async with serve(config(upstream, "{max_in_flight: 1, max_queue: 0}"), tmp_path) as proxy:
        same = {"idempotency-key": "k"}
        first = asyncio.create_task(proxy.chat("one", headers=same))
        await upstream.wait("held", equals=1)
        again = asyncio.create_task(proxy.chat("one", headers=same))

        async def joined() -> bool:
            page = series((await proxy.get("/metrics")).body.decode())
            return total(page, "samplewise_coalesced_retries_total") == 1

        await soon(joined, "the repetition joins")
        await upstream.release("gate")
        assert ((await first).text, (await again).text) == ("fine", "fine")
