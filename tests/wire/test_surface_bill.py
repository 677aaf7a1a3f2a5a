"""The bill of `/v1/responses` and `/v1/messages`: the same ledger, told in their own words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, UpstreamProcess
from tests.wire.bodies import MESSAGES, RESPONSES
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import Proxy, Reply
from tests.wire.test_bill import bill, ending, opened, truth, usage

BOTH = pytest.mark.parametrize("path", [RESPONSES, MESSAGES])


async def ask(proxy: Proxy, path: str, route: str, **fields: Any) -> Reply:
    """Ask in words of the surface that a path belongs to."""
    turns = [{"role": "user", "content": "how many are there"}]
    said: dict[str, Any] = {"messages": turns, "max_tokens": 999}
    if path == RESPONSES:
        said = {"input": turns}
    return await proxy.post(path, msgspec.json.encode({"model": route, **said, **fields}))


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_whatever_is_answered_costs_what_the_upstream_did(
    upstream: UpstreamProcess, tmp_path: Path, path: str, stream: bool
) -> None:
    answers = ("it is 4", "it is quite surely 5", "yes", "it is 4 or so I think")
    await upstream.script("m", *answers)
    async with opened(upstream, tmp_path) as books:
        routes = ("one", "vote", "frugal", "window", "judged")
        replies = [await ask(books.proxy, path, route, stream=stream) for route in routes]
        records = await books.agree(*replies)
        drawn = [row for row in rows(books.file) if row["purpose"] != "verify"]
        assert truth(records) == sum(row["nano_settled"] for row in drawn)
        assert sum(r.total_tokens for r in records) == usage(drawn).completion


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_cached_and_reasoning_tokens_are_told_as_the_surface_tells_them(
    upstream: UpstreamProcess, tmp_path: Path, path: str, stream: bool
) -> None:
    details = {"cached_tokens": 60}
    told = {"prompt_tokens": 100, "total_tokens": 108, "prompt_tokens_details": details}
    answer = Answer(text="it is 4", reasoning_content="let me think about it")
    await upstream.script("m", answer, usage=told)
    async with opened(upstream, tmp_path) as books:
        reply = await ask(books.proxy, path, "one", stream=stream)
        await books.agree(reply)
        last = ending(reply) if stream else reply.json
        found, spoken = last["usage"], last["samplewise"]["tokens"]
        assert (spoken["prompt"], spoken["cached"], spoken["reasoning"]) == (100, 60, 5)
        if path == RESPONSES:
            assert found["input_tokens"] == 100
            assert found["input_tokens_details"]["cached_tokens"] == 60
            assert found["output_tokens_details"]["reasoning_tokens"] == 5
        else:
            assert found["input_tokens"] == 40
            assert found["cache_read_input_tokens"] == 60
            assert found["output_tokens_details"]["thinking_tokens"] == 5
        assert found["output_tokens"] == 8


@BOTH
async def test_an_answer_that_is_refused_after_it_was_paid_for_says_what_it_cost(
    upstream: UpstreamProcess, tmp_path: Path, path: str
) -> None:
    await upstream.script("m", "no")
    async with opened(upstream, tmp_path) as books:
        reply = await ask(books.proxy, path, "strict")
        assert reply.status == 422
        records = await books.agree(reply)
        assert bill(reply) > truth(records) > 0


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_pays_for_what_was_made(
    upstream: UpstreamProcess, tmp_path: Path, path: str, stream: bool
) -> None:
    await upstream.script("m", Answer(text="a b c d", hold="never", hold_after=2))
    async with opened(upstream, tmp_path) as books:
        asked = asyncio.create_task(ask(books.proxy, path, "one", stream=stream))
        await upstream.wait("held", at_least=1)
        asked.cancel()
        await upstream.wait("running", equals=0)
        await soon(lambda: reserved(books.file) == 0, "all is settled")
        assert spent(books.file) >= truth(await upstream.records()) > 0


@BOTH
async def test_a_repetition_joins_its_run_and_has_the_same_bill(
    upstream: UpstreamProcess, tmp_path: Path, path: str
) -> None:
    await upstream.script("m", "it is 4")
    turns = [{"role": "user", "content": "hi"}]
    body = msgspec.json.encode(
        {"model": "vote", **({"input": turns} if path == RESPONSES else {"messages": turns})}
        | ({"max_tokens": 9} if path == MESSAGES else {})
    )
    headers = {"x-stainless-retry-count": "1", "x-api-key": "anything"}
    async with opened(upstream, tmp_path) as books:
        asks = [books.proxy.post(path, body, headers) for _ in range(3)]
        replies = await asyncio.gather(*asks)
        assert len({reply.said["request_id"] for reply in replies}) == 1
        assert len(await upstream.records()) == 1
        assert bill(replies[0]) == spent(books.file)
        assert round(float(replies[1].headers["x-samplewise-cost-usd"]) * NANO) == spent(books.file)


@BOTH
async def test_a_request_can_be_limited_and_is_then_refused_with_402(
    upstream: UpstreamProcess, tmp_path: Path, path: str
) -> None:
    await upstream.script("m", "it is 4")
    async with opened(upstream, tmp_path) as books:
        limited = {"samplewise": {"max_cost_usd": 0.000000001}}
        reply = await ask(books.proxy, path, "one", **limited)
        assert reply.status == 402
        assert reply.headers["x-should-retry"] == "false"
        assert reply.error["code"] == "budget_exceeded"
        assert await upstream.records() == []
        assert spent(books.file) == 0
