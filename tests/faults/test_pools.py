"""Several hosts and backends: who is asked, who is left alone, and what may be repeated."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import Toxic, through
from tests.faults.test_table import backend
from tests.upstream import Answer, Fault, Rule, UpstreamProcess
from tests.wire import books
from tests.wire.books import Series, series, total
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO
from tests.wire.proxy import Proxy, serve

ROUTES = """
  one: {backends: [pool], max_tokens: 50}
  each: {backends: [pool], policy: {type: adaptive_vote, margin: 99, max_samples: 8, window: 8},
    max_tokens: 50}
  window: {backends: [pool], policy: {type: adaptive_vote, margin: 9, max_samples: 24, window: 3},
    max_tokens: 50}
  waves: {backends: [pool], policy: {type: first_pass, max_samples: 32}, verifiers: [said],
    max_tokens: 50}
  chain: {backends: [pool, spare], policy: 'majority_vote:3', max_tokens: 50}
verifiers:
  said: {type: regex, pattern: 'yes'}
"""
DEAD = Toxic(limit_bytes=0, reset=True)


@asynccontextmanager
async def serving(folder: Path, *urls: str, **extra: Any) -> AsyncIterator[Proxy]:
    made = backend("pool", *urls, **extra) + backend("spare", urls[-1], model="other")
    async with serve(f"backends:\n{made}routes:{ROUTES}", folder) as proxy:
        yield proxy


async def page(proxy: Proxy) -> Series:
    return series((await proxy.get("/metrics")).body.decode())


async def hosts(proxy: Proxy) -> dict[str, float]:
    """Return how many hosts of the pool are in which state, without empty states."""
    found = await page(proxy)
    states = ("closed", "open", "half_open")
    counts = {
        s: total(found, "samplewise_upstream_hosts", upstream="pool", state=s) for s in states
    }
    return {state: count for state, count in counts.items() if count}


async def test_samples_of_one_prompt_stay_on_one_host_and_prompts_share_the_pool(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="yes", hold="gate"))
    async with (
        through(upstream.port) as a,
        through(upstream.port) as b,
        serving(tmp_path, a.base_url, b.base_url) as proxy,
    ):
        asked = [asyncio.create_task(proxy.chat("each", f"prompt {i}")) for i in range(4)]
        await upstream.wait("held", equals=32)
        assert (a.connections, b.connections) == (16, 16)
        for host in (a, b):
            prompts = [f"prompt {i}".encode() for i in range(4)]
            seen = [sum(prompt in request for request in host.requests) for prompt in prompts]
            assert sorted(seen) == [0, 0, 8, 8]
        await upstream.release("gate")
        assert {(await reply).status for reply in asked} == {200}


async def test_a_host_that_says_that_requests_wait_there_gets_fewer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    load = 'JSON {"named_metrics": {"num_requests_waiting": 40.0, "kv_cache_usage_perc": 0.9}}'
    async with (
        through(upstream.port) as busy,
        through(upstream.port) as idle,
        serving(tmp_path, busy.base_url, idle.base_url) as proxy,
    ):
        await upstream.script("m", "yes", headers={"endpoint-load-metrics": load})
        await proxy.chat("one")
        assert busy.connections == 1
        assert b"endpoint-load-metrics-format: json" in busy.requests[0]
        await upstream.script("m", "yes")
        for _ in range(5):
            await proxy.chat("one")
        assert (busy.connections, idle.connections) == (1, 5)
        assert proxy.service.upstreams["pool"].pool.waiting() == 40.0


async def test_a_dead_upstream_is_not_asked_up_to_the_cap_of_the_policy(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "no", faults=[Fault(kind="status")], cycle_faults=True)
    async with serving(tmp_path, upstream.base_url, health={"retry_floor_per_s": 0}) as proxy:
        for route, offered in (("waves", 4), ("window", 3)):
            before = len(await upstream.records())
            for _ in range(20):
                reply = await proxy.chat(route)
                assert (reply.status, reply.error["code"]) == (502, "upstream_error")
            asked = len(await upstream.records()) - before
            assert 20 * offered <= asked <= 1.25 * 20 * offered
        found = await page(proxy)
        assert total(found, "samplewise_upstream_retries_total", result="held_back") > 0
        assert 0 <= total(found, "samplewise_upstream_retry_budget", upstream="pool") < 5
        assert await proxy.ledger_spent() == 0


async def test_two_dead_hosts_are_asked_little_more_often_than_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with through(upstream.port, always=DEAD) as a, through(upstream.port, always=DEAD) as b:
        urls = (a.base_url, b.base_url)
        async with serving(tmp_path, *urls, health={"retry_floor_per_s": 0}) as proxy:
            for _ in range(40):
                assert (await proxy.chat("one")).status == 502
            assert 40 <= a.connections + b.connections <= 50
            # All are put aside, so all are asked as if none were.
            assert await hosts(proxy) == {"open": 2}
            a.always = b.always = Toxic()
            await upstream.script("m", "back")
            assert (await proxy.chat("one")).text == "back"


async def test_a_bad_host_is_put_aside_tried_once_and_taken_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with through(upstream.port, always=DEAD) as bad, through(upstream.port) as good:
        health = {"eject_after": 3, "eject_s": 2.0}
        async with serving(tmp_path, bad.base_url, good.base_url, health=health) as proxy:
            assert await hosts(proxy) == {"closed": 2}
            for _ in range(20):
                assert (await proxy.chat("one")).text == "fine"
                if bad.connections == 3:
                    break
            assert await hosts(proxy) == {"closed": 1, "open": 1}
            asked = bad.connections
            for _ in range(4):
                assert (await proxy.chat("one")).text == "fine"
            assert bad.connections == asked == 3
            bad.always = Toxic()

            async def back() -> bool:
                assert (await proxy.chat("one")).text == "fine"
                return await hosts(proxy) == {"closed": 2}

            await books.soon(back, "the host is taken back")
            assert total(await page(proxy), "samplewise_upstream_ejections_total") == 1


async def test_a_backend_whose_hosts_are_put_aside_comes_after_the_others(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("other", "from the spare")
    await upstream.script("m", "fine", faults=[Fault(kind="status")] * 6)
    health = {"eject_after": 2, "eject_s": 0.3}
    async with serving(tmp_path, upstream.base_url, health=health) as proxy:
        for reason in ("status", "status", "put aside"):
            reply = await proxy.chat("chain")
            assert (reply.text, reply.said["degraded"]) == ("from the spare", ["backend"])
            assert reply.said["warnings"] == [f"spare took over from pool ({reason})"]
            assert reply.said["chosen"]["backend"] == "spare"
        assert len(await upstream.records(model="m")) == 2

        async def back() -> bool:
            return (await proxy.chat("chain")).text == "fine"

        await books.soon(back, "the backend is asked again and works")
        assert (await proxy.chat("chain")).said["degraded"] == []


async def test_a_request_that_is_wrong_stops_after_its_first_wave_and_blames_nobody(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    wrong = Fault(kind="status", status=400, body={"error": {"message": "too long"}})
    bad = Rule(contains="bad", faults=(wrong,), cycle_faults=True)
    await upstream.script("m", "no", rules=[bad])
    async with serving(tmp_path, upstream.base_url, health={"eject_after": 1}) as proxy:
        for route, wave in (("waves", 4), ("window", 3)):
            before = len(await upstream.records())
            reply = await proxy.chat(route, "bad")
            assert (reply.status, reply.error["code"]) == (400, "upstream_refused")
            assert len(await upstream.records()) - before == wave
        assert await hosts(proxy) == {"closed": 1}
        assert (await proxy.chat("waves", "good")).said["samples"]["drawn"] == 32


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_waited_for_where_the_deadline_allows(
    upstream: UpstreamProcess, tmp_path: Path, form: str
) -> None:
    until = time.time() + 2.0
    value = "0.4" if form == "seconds" else formatdate(until, usegmt=True)
    limited = Fault(kind="status", status=429, headers={"retry-after": value})
    await upstream.script("m", "fine", faults=[limited])
    async with serving(tmp_path, upstream.base_url) as proxy:
        reply = await proxy.chat("one", samplewise={"deadline_s": 10})
        assert (reply.text, reply.said["degraded"]) == ("fine", [])
        refused, whole = await upstream.records()
        passed = whole.started_s - refused.started_s
        # A date has whole seconds: what is left of the second is not the sender's to know.
        assert passed >= 0.4 if form == "seconds" else time.time() >= until - 1.0
        assert [row["nano_settled"] for row in books.rows(tmp_path / "ledger.db")] == [
            0,
            PROMPT_NANO + TOKEN_NANO,
        ]


async def test_a_long_deadline_is_no_reason_to_wait_again_and_again(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    limited = Fault(kind="status", status=429, headers={"retry-after": "0.05"})
    await upstream.script("m", rules=(Rule(contains="", faults=(limited,), cycle_faults=True),))
    async with serving(tmp_path, upstream.base_url) as proxy:
        reply = await proxy.chat("one", samplewise={"deadline_s": 600})
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
        assert len(await upstream.records()) == 4


@pytest.mark.parametrize("value", ["30", "1e400", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_retry_after_beyond_the_deadline_is_a_rate_limit_at_once_and_nobody_is_asked(
    upstream: UpstreamProcess, tmp_path: Path, value: str
) -> None:
    limited = Fault(kind="status", status=429, headers={"retry-after": value})
    await upstream.script("m", "fine", faults=[limited])
    async with serving(tmp_path, upstream.base_url) as proxy:
        began = time.monotonic()
        for options in ({}, {"deadline_s": 8}):
            for route in ("one", "each", "waves"):
                reply = await proxy.chat(route, samplewise=options)
                assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
                assert 20 <= int(reply.headers["retry-after"]) <= 86_400
        assert time.monotonic() - began < 6
        assert len(await upstream.records()) == 1
        found = await page(proxy)
        assert total(found, "samplewise_upstream_requests_total", status="429") == 1
        assert total(found, "samplewise_upstream_requests_total", status="cooling") > 4
        assert await proxy.ledger_spent() == 0


async def test_a_host_that_asks_to_wait_leaves_the_work_to_the_others(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    wait = b"HTTP/1.1 503 Full\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with (
        through(upstream.port, always=Toxic(instead=wait)) as full,
        through(upstream.port) as free,
        serving(tmp_path, full.base_url, free.base_url) as proxy,
    ):
        for _ in range(3):
            reply = await proxy.chat("each")
            assert (reply.text, reply.said["samples"]["errored"]) == ("fine", 0)
        # All of the first wave may have been on their way there; later ones are not.
        assert full.connections <= 8
        assert await hosts(proxy) == {"closed": 2}


async def test_a_sample_needs_as_much_time_as_the_median_to_be_worth_a_start(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="no", delay_s=0.5))
    async with serving(tmp_path, upstream.base_url) as proxy:
        await proxy.chat("one")
        reply = await proxy.chat("waves", samplewise={"deadline_s": 1.1})
        assert (reply.text, reply.said["samples"]["drawn"]) == ("no", 4)
        assert reply.said["samples"]["cancelled"] == 0
        assert (reply.said["degraded"], reply.said["stop_reason"]) == (["deadline"], "deadline")
        # The first is drawn in any case.
        late = await proxy.chat("one", samplewise={"deadline_s": 0.3})
        assert late.error["code"] == "deadline_exceeded"
        assert len(await upstream.records()) == 6


async def test_a_host_that_never_says_a_word_within_the_deadline_is_to_blame(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with (
        through(upstream.port, always=Toxic(limit_bytes=0, hang=True)) as mute,
        through(upstream.port) as good,
        serving(tmp_path, mute.base_url, good.base_url, health={"eject_after": 2}) as proxy,
    ):
        ends = [(await proxy.chat("one", samplewise={"deadline_s": 0.3})).status for _ in range(8)]
        assert ends.count(504) == mute.connections == 2
        assert await hosts(proxy) == {"closed": 1, "open": 1}


def rank(request: bytes) -> bytes:
    found = re.search(rb"(?i)x-data-parallel-rank: (\d+)\r", request)
    assert found is not None
    return found[1]


async def test_ranks_behind_one_address_are_hosts_that_a_header_names(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="yes", hold="gate"))
    async with through(upstream.port) as server:
        vllm = backend("pool", server.base_url, data_parallel_ranks=2, probe="none")
        vllm = vllm.replace("type: openai", "type: vllm")
        text = f"backends:\n{vllm}{backend('spare', server.base_url, model='other')}routes:{ROUTES}"
        async with serve(text, tmp_path) as proxy:
            asked = [asyncio.create_task(proxy.chat("each", f"prompt {i}")) for i in range(2)]
            await upstream.wait("held", equals=16)
            for i in range(2):
                calls = [r for r in server.requests if f"prompt {i}".encode() in r]
                ranks = {rank(r) for r in calls}
                assert (len(calls), len(ranks)) == (8, 1)
            await upstream.release("gate")
            assert {(await reply).status for reply in asked} == {200}
        assert {rank(r) for r in server.requests} == {b"0", b"1"}
