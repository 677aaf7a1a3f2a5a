"""Two servers on one PostgreSQL, as on two machines: one purchase, and a clear answer elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import claims, reserved, soon
from tests.wire.proxy import Proxy, backend, serve

KEY = {"idempotency-key": "order-17"}


@asynccontextmanager
async def two(
    upstream: UpstreamProcess, database: str, more: str = ""
) -> AsyncIterator[tuple[Proxy, Proxy]]:
    config = f"backends:\n{backend(upstream)}routes:\n  one: {{backends: [local]}}\n{more}"
    env = {"CI_KEY": "sk-mine-0123456789abcdef"}
    async with serve(config, database, env) as first, serve(config, database, env) as second:
        yield first, second


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_runs_on_another_machine_is_not_bought_again(
    upstream: UpstreamProcess, database: str, stream: bool
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with two(upstream, database) as (here, there):
        asked = asyncio.create_task(here.chat("one", headers=KEY, stream=stream))
        await upstream.wait("held", equals=1)
        joined = asyncio.create_task(here.chat("one", headers=KEY, stream=stream))
        reply = await there.chat("one", headers=KEY, stream=stream)
        assert (reply.status, reply.error["code"]) == (409, "idempotency_running_elsewhere")
        assert (reply.headers["x-should-retry"], reply.headers["retry-after"]) == ("true", "1")
        await upstream.release("gate")
        for found in await asyncio.gather(asked, joined):
            assert (found.streamed if stream else found.text) == "it is 4"
        assert len(await upstream.records()) == 1
    assert reserved(database) == 0


async def test_an_answer_that_another_machine_keeps_is_said_to_be_there(
    upstream: UpstreamProcess, database: str
) -> None:
    await upstream.script("m", "first", "second")
    async with two(upstream, database) as (here, there):
        assert (await here.chat("one", headers=KEY)).text == "first"

        async def kept() -> bool:
            return claims(database)[0]["until_ms"] is not None

        await soon(kept, "the end is written")
        reply = await there.chat("one", headers=KEY)
        assert (reply.status, reply.error["code"]) == (409, "idempotency_finished_elsewhere")
        assert " s: try again" in reply.error["message"]
        other = await there.chat("one", "something else", headers=KEY)
        assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
        assert (await here.chat("one", headers=KEY)).text == "first"
        assert len(await upstream.records()) == 1
        # Once it is not kept any more, it is a new request wherever it comes.
        here.service.retries.most = 0
        assert (await here.chat("one", headers={"idempotency-key": "another"})).status == 200

        async def free() -> bool:
            return not claims(database)

        await soon(free, "all claims are given up")
        assert (await there.chat("one", headers=KEY)).status == 200
        assert len(await upstream.records()) == 3


async def test_a_request_that_failed_can_be_tried_anywhere(
    upstream: UpstreamProcess, database: str
) -> None:
    async with two(upstream, database) as (here, there):
        assert (await here.chat("one", headers=KEY)).status == 502
        await upstream.script("m", "now")

        async def answered() -> bool:
            return (await there.chat("one", headers=KEY)).status == 200

        await soon(answered, "its claim is given up")


async def test_keys_that_nobody_has_claim_nothing(upstream: UpstreamProcess, database: str) -> None:
    keys = 'keys: [{name: ci, key: "${CI_KEY}"}]\n'
    async with two(upstream, database, keys) as (here, _):
        for number in range(20):
            headers = {"idempotency-key": str(number), "authorization": f"Bearer x{number}"}
            assert (await here.chat("one", headers=headers)).status == 401
        assert claims(database) == []
