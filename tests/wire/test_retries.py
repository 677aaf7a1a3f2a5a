"""The same request again is not bought again: it joins, repeats or goes on with what there is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest

from samplewise.proxy.job import Job
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import reserved, rows, series, soon, spent, total
from tests.wire.proxy import Proxy, backend, serve

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:4'}
"""
KEY = {"idempotency-key": "order-17"}
AGAIN = {"x-stainless-retry-count": "1"}


@asynccontextmanager
async def serving(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    # One sample a call, so that each can come on its own.
    config = f"backends:\n{backend(upstream, max_n=1)}routes:{ROUTES}"
    async with serve(config, folder) as proxy:
        yield proxy


async def calls(upstream: UpstreamProcess) -> int:
    return len(await upstream.records())


async def joined(proxy: Proxy) -> float:
    found = series((await proxy.get("/metrics")).body.decode())
    return total(found, "samplewise_coalesced_retries_total")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_idempotency_key_three_times_at_once_is_one_charge(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path) as proxy:
        asks = [
            asyncio.create_task(proxy.chat("vote", headers=KEY, stream=stream)) for _ in range(3)
        ]
        await soon(lambda: joined_twice(proxy), "two have joined")
        await upstream.release("gate")
        replies = await asyncio.gather(*asks)
        assert {reply.status for reply in replies} == {200}
        texts = {reply.streamed if stream else reply.text for reply in replies}
        assert texts == {"it is 4"}
        assert await calls(upstream) == 4
        if not stream:
            (cost,) = {reply.json["usage"]["cost"] for reply in replies}
            assert round(cost * 1e9) == spent(tmp_path / "ledger.db")
    assert reserved(tmp_path / "ledger.db") == 0


async def joined_twice(proxy: Proxy) -> bool:
    return await joined(proxy) == 2


async def test_an_idempotency_key_repeats_the_finished_answer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "first", "second")
    async with serving(upstream, tmp_path) as proxy:
        first = await proxy.chat("one", headers=KEY)
        second = await proxy.chat("one", headers=KEY)
        assert (first.text, second.text) == ("first", "first")
        assert first.headers["x-request-id"] == second.headers["x-request-id"]
        assert await calls(upstream) == 1


async def test_an_idempotency_key_with_another_body_is_refused(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "first")
    async with serving(upstream, tmp_path) as proxy:
        await proxy.chat("one", headers=KEY)
        other = await proxy.chat("one", "something else", headers=KEY)
        assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
        assert await calls(upstream) == 1


async def test_equal_requests_of_other_clients_or_without_a_sign_are_runs_of_their_own(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a", "b", "c", "d")
    async with serving(upstream, tmp_path) as proxy:
        texts = [
            (await proxy.chat("one", headers=headers)).text
            for headers in (None, None, {**KEY, "authorization": "Bearer x"}, KEY)
        ]
        assert texts == ["a", "b", "c", "d"]


async def test_a_retry_of_an_sdk_gets_the_answer_that_is_there(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "first", "second")
    async with serving(upstream, tmp_path) as proxy:
        assert (await proxy.chat("one")).text == "first"
        assert (await proxy.chat("one", headers=AGAIN)).text == "first"
        assert (await proxy.chat("one")).text == "second"


async def test_an_error_is_not_repeated_but_tried_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        assert (await proxy.chat("one", headers=KEY)).status == 502
        await upstream.script("m", "now")
        assert (await proxy.chat("one", headers=KEY)).text == "now"


async def test_a_retry_goes_on_with_what_was_drawn_before_its_client_left(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    quick, slow = Answer(text="it is 4"), Answer(text="it is 4", hold="gate")
    await upstream.script("m", quick, quick, quick, slow, quick)
    async with serving(upstream, tmp_path) as proxy:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await proxy.chat("vote")
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "the first run has ended")
        reply = await proxy.chat("vote", headers=AGAIN)
        assert (reply.text, reply.said["samples"]["drawn"]) == ("it is 4", 4)
        # Three of the first try, and one call for the one that was cut.
        assert await calls(upstream) == 5
        bought = rows(tmp_path / "ledger.db")[-1]
        assert reply.json["usage"]["cost"] == bought["nano_settled"] / 1e9


async def test_a_run_goes_on_while_one_of_its_clients_waits(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path) as proxy:
        leaver = asyncio.create_task(proxy.chat("one", headers=KEY))
        await soon(lambda: calls_are(upstream, 1), "the call is on its way")
        stayer = asyncio.create_task(proxy.chat("one", headers=KEY))

        async def has_joined() -> bool:
            return await joined(proxy) == 1

        await soon(has_joined, "the second has joined")
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await upstream.release("gate")
        assert (await stayer).text == "it is 4"
        assert await calls(upstream) == 1


# As clients that do not say how long they wait: to others the best so far would leave in time.
UNANNOUNCED = {"x-stainless-read-timeout": "0"}


async def calls_are(upstream: UpstreamProcess, count: int) -> bool:
    return await calls(upstream) == count


async def test_timeouts_of_the_openai_client_buy_nothing_twice(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Answer(text="it is 4", hold="gate")
    await upstream.script("m", Answer(text="it is 4"), slow, Answer(text="it is 4"))
    async with serving(upstream, tmp_path) as proxy:
        client = openai.AsyncOpenAI(
            base_url=f"{proxy.url}/v1", api_key="none", timeout=0.8, max_retries=2
        )
        async with client:
            messages = [{"role": "user", "content": "hi"}]
            found = await client.chat.completions.create(
                model="vote",
                messages=messages,  # type: ignore[arg-type]
                extra_body={"samplewise": {"samples": 2, "policy": "majority_vote"}},
                extra_headers=UNANNOUNCED,
            )
        assert found.choices[0].message.content == "it is 4"
        assert await calls(upstream) == 3


async def test_leaving_a_joined_run_leaves_it_when_nobody_else_waits(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path) as proxy:
        asks = [asyncio.create_task(proxy.chat("one", headers=KEY)) for _ in range(2)]

        async def has_joined() -> bool:
            return await joined(proxy) == 1

        async def asked() -> bool:
            return (await upstream.state()).held == 1

        await soon(has_joined, "the second has joined")
        await soon(asked, "the upstream works on it")
        for ask in asks:
            ask.cancel()
        await asyncio.gather(*asks, return_exceptions=True)

        async def aborted() -> bool:
            return (await upstream.state()).aborted == 1

        await soon(aborted, "the upstream was told")
        await soon(lambda: reserved(tmp_path / "ledger.db") == 0, "nothing is reserved")


async def test_an_idempotency_key_has_a_longest_length(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        reply = await proxy.chat("one", headers={"idempotency-key": "k" * 256})
        assert (reply.status, reply.error["param"]) == (400, "idempotency-key")


async def test_equal_requests_at_once_take_no_room_for_ever(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with serving(upstream, tmp_path) as proxy:
        proxy.service.retries.most_samples = 4
        # Without a sign of repetition, each of these takes the place of the one before.
        asks = [asyncio.create_task(proxy.chat("one")) for _ in range(8)]
        await upstream.wait("held", equals=8)
        await upstream.release("gate")
        assert [(await ask).status for ask in asks] == [200] * 8
        assert (await proxy.chat("one")).status == 200
        # What is kept is still found.
        assert (await proxy.chat("one", headers=AGAIN)).status == 200
        assert await calls(upstream) == 9


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_who_closes_its_connection_after_the_answer_has_not_left_it(
    upstream: UpstreamProcess, tmp_path: Path, path: str, asked: dict[str, Any], stream: bool
) -> None:
    await upstream.script("m", "it is 4")
    body = msgspec.json.encode({"model": "vote", "stream": stream, **asked})
    async with serving(upstream, tmp_path) as proxy:
        for _ in range(3):
            async with (
                aiohttp.ClientSession() as http,
                http.post(proxy.url + path, data=body, headers=KEY) as reply,
            ):
                assert (reply.status, bool(await reply.read())) == (200, True)
        assert await calls(upstream) == 4


async def test_what_is_kept_has_a_most_in_bytes(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "fine")
    async with serving(upstream, tmp_path) as proxy:
        proxy.service.retries.most_bytes = 450_000
        texts = [f"{number} " * 50_000 for number in range(6)]
        for text in texts:
            assert (await proxy.chat("one", text=text)).status == 200
        # Each counts twice, as it came and as it was read: there is room for two.
        assert (await proxy.chat("one", text=texts[-1], headers=AGAIN)).status == 200
        assert await calls(upstream) == 6
        assert (await proxy.chat("one", text=texts[0], headers=AGAIN)).status == 200
        assert await calls(upstream) == 7
        # The newest is kept in any case.
        for headers in ({}, AGAIN):
            assert (await proxy.chat("one", text="6 " * 200_000, headers=headers)).status == 200
        assert await calls(upstream) == 8


async def test_what_is_kept_no_more_is_held_by_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with serving(upstream, tmp_path) as proxy:
        proxy.service.retries.most = 2
        for number in range(8):
            assert (await proxy.chat("one", text=str(number))).status == 200
        gc.collect()
        # Two that are kept, and the last one's handler may not have ended.
        assert sum(type(found) is Job for found in gc.get_objects()) <= 4
