"""Upstreams that go wrong: what the client gets, how that is called, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.upstream.script import Kind
from tests.wire.faulty import CAP, PROMPT_NANO, TOKEN_NANO, config, counts, spent
from tests.wire.proxy import serve

clients = pytest.mark.parametrize("client", ["auto", "aiohttp"])


async def test_a_dead_upstream_is_a_502_that_costs_nothing(
    start_upstream: Callable[[], UpstreamProcess], tmp_path: Path
) -> None:
    upstream = start_upstream()
    async with serve(config(upstream), tmp_path) as proxy:
        upstream.kill()
        for route, drawn in (("one", 1), ("many", 3), ("each", 3), ("live", 3)):
            reply = await proxy.chat(route)
            assert (reply.status, reply.error["type"]) == (502, "upstream_error")
            assert reply.headers["x-samplewise-samples"] == str(drawn)
            assert "connect" in reply.error["message"]
        assert await proxy.ledger_spent() == 0
        upstream.start()
        await upstream.script("m", "back")
        assert (await proxy.chat("one")).text == "back"


@clients
async def test_an_upstream_that_dies_while_it_answers_is_paid_at_most_for_the_worst_case(
    start_upstream: Callable[[], UpstreamProcess], tmp_path: Path, client: str
) -> None:
    upstream = start_upstream()
    held = Answer(text="one two three four", hold="never", hold_after=2)
    await upstream.script("m", held)
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        work = asyncio.create_task(proxy.chat("live"))
        await upstream.wait("held", equals=3)
        upstream.kill()
        reply = await work
        assert reply.status == 502
        cost = await proxy.ledger_spent()
        assert 3 * 2 * TOKEN_NANO <= cost <= 3 * (CAP * TOKEN_NANO + 200 * PROMPT_NANO)


LOST: tuple[Kind, ...] = (
    "html",
    "malformed",
    "truncated",
    "eof",
    "close",
    "reset",
    "error_event",
    "huge",
    "gzip_bomb",
)


@clients
@pytest.mark.parametrize("kind", LOST)
async def test_a_plain_answer_that_is_spoilt_is_lost_and_paid_at_its_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind, client: str
) -> None:
    await upstream.script("m", "yes it is", faults=[Fault(kind=kind, after=2, size=8 * 2**20)])
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        reply = await proxy.chat("each")
        assert reply.text == "yes it is"
        assert counts(reply) == (3, 2, 1, 0)
        assert set(reply.said["degraded"]) == {"quorum", "backend"}
        assert reply.said["stop_reason"] == "agreed"
        cost = await spent(proxy, upstream, reply)
        good = 2 * (PROMPT_NANO + 3 * TOKEN_NANO)
        assert good + CAP * TOKEN_NANO <= cost <= good + CAP * TOKEN_NANO + 200 * PROMPT_NANO


@clients
@pytest.mark.parametrize("kind", [*LOST, "no_finish"])
async def test_a_stream_that_is_spoilt_is_lost_and_paid_by_its_counted_tokens(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind, client: str
) -> None:
    await upstream.script("m", "yes it is", faults=[Fault(kind=kind, after=2, size=8 * 2**20)])
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert reply.text == "yes it is"
        assert counts(reply) == (3, 2, 1, 0)
        assert set(reply.said["degraded"]) == {"quorum", "backend"}
        cost = await spent(proxy, upstream, reply)
        assert cost <= 3 * CAP * TOKEN_NANO + 200 * PROMPT_NANO
        if kind in ("malformed", "truncated", "eof", "close", "reset", "error_event"):
            good = 2 * (PROMPT_NANO + 3 * TOKEN_NANO)
            assert cost - good - 2 * TOKEN_NANO in range(200 * PROMPT_NANO)


@clients
async def test_a_stream_without_its_end_mark_is_whole_when_every_choice_ended(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="no_done")] * 3)
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert (counts(reply), reply.said["degraded"]) == ((3, 3, 0, 0), [])


@clients
async def test_a_stream_in_single_bytes_is_read_as_if_it_came_whole(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    slow = Fault(kind="slow", chunk_bytes=1, byte_delay_s=0.0)
    text = 'Ein Größenmaß: 42 😀 {"a": [1]}\n\n data: x'
    await upstream.script("m", text, faults=[slow], cycle_faults=True)
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        for route in ("live", "many"):
            assert (await proxy.chat(route)).text == text
        assert (await proxy.chat("one", stream=True)).streamed == text


@clients
@pytest.mark.parametrize("route", ["live", "each"])
async def test_the_deadline_answers_with_what_is_there(
    upstream: UpstreamProcess, tmp_path: Path, route: str, client: str
) -> None:
    await upstream.script("m", "fine", faults=[None, Fault(kind="hang")])
    async with serve(config(upstream, http_client=client), tmp_path) as proxy:
        reply = await proxy.chat(route, samplewise={"deadline_s": 0.5})
        assert reply.text == "fine"
        assert counts(reply) == (3, 2, 0, 1)
        assert reply.said["stop_reason"] == "deadline"
        assert set(reply.said["degraded"]) == {"deadline", "quorum"}
        await upstream.wait("aborted", equals=1)
        cost = await spent(proxy, upstream, reply)
        good = 2 * (PROMPT_NANO + TOKEN_NANO)
        assert cost - good in range(200 * PROMPT_NANO)


async def test_the_deadline_without_any_answer_is_a_504(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")], cycle_faults=True)
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("one", "many", "each", "live"):
            reply = await proxy.chat(route, samplewise={"deadline_s": 0.2})
            assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
            assert reply.error["type"] == "upstream_error"
        stream = await proxy.chat("one", samplewise={"deadline_s": 0.2}, stream=True)
        assert stream.status == 504
        await upstream.wait("running", equals=0)
        assert await proxy.ledger_spent() > 0


async def test_fewer_good_samples_than_the_policy_needs_are_an_error(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[None, Fault(kind="status"), None])
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("all")
        assert reply.status == 502
        assert "1 of 3 samples failed" in reply.error["message"]
        assert "2 good ones came, 3 are needed" in reply.error["message"]
        assert await spent(proxy, upstream, reply) == 2 * (PROMPT_NANO + TOKEN_NANO)
        assert (await proxy.chat("each")).said["samples"]["ok"] == 3


@clients
async def test_a_stream_that_goes_silent_is_given_up_after_the_idle_timeout(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    await upstream.script("m", "a b c d", faults=[Fault(kind="silence", after=2)])
    async with serve(config(upstream, http_client=client, idle_timeout_s=0.3), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert (reply.text, counts(reply)) == ("a b c d", (3, 2, 1, 0))
        await upstream.wait("aborted", equals=1)
        await spent(proxy, upstream, reply)


@clients
async def test_an_upstream_that_never_answers_in_time_is_a_504(
    upstream: UpstreamProcess, tmp_path: Path, client: str
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")], cycle_faults=True)
    async with serve(config(upstream, http_client=client, timeout_s=0.3), tmp_path) as proxy:
        for route in ("one", "each", "live"):
            reply = await proxy.chat(route)
            assert reply.status == 504
            assert "timeout" in reply.error["message"]


USAGES: dict[str, Any] = {
    "missing": {"no_usage": True},
    "null": {"usage": {"prompt_tokens": None, "completion_tokens": None}},
    "negative": {"usage": {"prompt_tokens": -1, "completion_tokens": -5}},
    "text": {"usage": {"prompt_tokens": "1", "completion_tokens": "3"}},
    "absurd": {"usage": {"prompt_tokens": 10**12, "completion_tokens": 10**12}},
    "infinite": {"usage": {"completion_tokens": 1e308}},
    "more cached than sent": {"usage": {"prompt_tokens_details": {"cached_tokens": 999}}},
    "nothing for something": {"usage": {"completion_tokens": 0, "total_tokens": 1}},
}


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("ignores", [(), ("stream",)])
async def test_usage_that_cannot_be_true_is_counted_instead(
    upstream: UpstreamProcess, tmp_path: Path, usage: str, ignores: tuple[str, ...]
) -> None:
    await upstream.script("m", "three words here", **USAGES[usage], ignores=ignores)
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("each", "live", "many"):
            reply = await proxy.chat(route)
            assert reply.text == "three words here"
            assert any("usage" in warning for warning in reply.said["warnings"])
            assert reply.json["usage"]["completion_tokens"] >= 9
            cost = round(reply.said["cost_usd"]["total"] * 10**9)
            calls = 1 if route == "many" else 3
            assert cost >= 9 * TOKEN_NANO + calls * PROMPT_NANO
            assert cost <= 3 * (CAP * TOKEN_NANO + 200 * PROMPT_NANO)


async def test_usage_above_the_cap_is_billed_and_recorded_as_an_overrun(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 3 * CAP + 200}
    await upstream.script("m", "fine", usage=usage)
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("many")
        cost = PROMPT_NANO + (3 * CAP + 200) * TOKEN_NANO
        assert await spent(proxy, upstream, reply) == cost
        balances = await proxy.service.balances()
        assert all(balance.overrun_nano > 0 for balance in balances if balance.spent.nano)
