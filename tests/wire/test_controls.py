"""What a request says of itself beside its messages: how many samples, how long, under which id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.bodies import CHAT
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import ASK, asking, said

ROUTES = """
  one: {backends: [local]}
  vote: {backends: [local], policy: 'majority_vote:6', budget: {usd_per_request: 0.5}}
  quick: {backends: [local], policy: 'majority_vote:2', budget: {deadline_s: 0.5}}
"""
KEY = "sk-sw-" + "k" * 43


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path, server: str = "") -> AsyncIterator[Proxy]:
    budget = "{requests_per_hour: 3, requests_per_day: 100, tokens_per_day: 1000000}"
    key = f"{{name: app, key: '${{KEY}}', routes: [one, vote], budget: {budget}}}"
    keys = f"keys: {{required: false, list: [{key}]}}\n"
    config = f"server: {{{server}}}\n{keys}backends:\n{backend(upstream)}routes:{ROUTES}"
    async with serve(config, folder, {"KEY": KEY}) as proxy:
        yield proxy


async def test_a_suffix_says_how_many_samples_at_most(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote:3")
        assert (reply.json["model"], reply.said["route"]) == ("vote:3", "vote")
        assert reply.said["samples"]["drawn"] == 3
        header = {"x-samplewise-samples": "4"}
        assert (await proxy.chat("vote:3", headers=header)).said["samples"]["drawn"] == 4
        both = await proxy.chat("vote:3", headers=header, samplewise={"samples": 2})
        assert both.said["samples"]["drawn"] == 2


@pytest.mark.parametrize(
    ("model", "status", "param"),
    [
        ("vote:7", 400, "samplewise.samples"),
        ("vote:0", 400, "model"),
        ("vote:9999999999", 400, "model"),
        ("vote:", 404, "model"),
        ("vote:x", 404, "model"),
        ("vote:-1", 404, "model"),
        ("vote:\u0663", 404, "model"),
        ("none:3", 404, "model"),
        (":3", 404, "model"),
    ],
)
async def test_a_suffix_only_tightens_and_other_names_stay_whole(
    upstream: UpstreamProcess, tmp_path: Path, model: str, status: int, param: str
) -> None:
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat(model)
        assert (reply.status, reply.error["param"]) == (status, param)
        assert await upstream.records() == []


async def test_what_to_return_can_be_asked_for_by_header(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote", headers={"x-samplewise-return": "votes, candidates"})
        assert len(reply.said["candidates"]) == 6
        assert [vote["votes"] for vote in reply.said["votes"]] == [6]
        wrong = await proxy.chat("vote", headers={"x-samplewise-return": "scores"})
        assert (wrong.status, wrong.error["param"]) == (400, "samplewise.return")


async def test_the_best_so_far_leaves_before_the_clients_own_timeout(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Answer(text="it is 5", hold="gate")
    await upstream.script("m", "it is 4", *[slow] * 9)
    async with served(upstream, tmp_path) as proxy, asking(proxy, timeout=1.0) as client:
        policy = {"policy": "adaptive_vote"}
        found = await client.chat.completions.create(
            model="vote", messages=ASK, extra_body={"samplewise": policy}
        )
        assert found.choices[0].message.content == "it is 4"
        assert said(found)["stop_reason"] == "deadline"


@pytest.mark.parametrize(
    ("headers", "option"),
    [({"x-stainless-read-timeout": "2"}, {}), ({}, {"samplewise": {"deadline_s": 2}})],
)
async def test_samples_of_one_call_that_have_ended_are_used_when_the_deadline_passes(
    upstream: UpstreamProcess, tmp_path: Path, headers: dict[str, str], option: dict[str, Any]
) -> None:
    slow = Answer(text="it is 5", hold="gate", hold_after=1)
    await upstream.script("m", "it is 4", "it is 4", slow, slow, slow, slow)
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote", headers=headers, **option)
        assert (reply.status, reply.text) == (200, "it is 4")
        assert reply.said["samples"] | {"ok": 2, "cancelled": 4} == reply.said["samples"]
        assert "deadline" in reply.said["degraded"]
        [record] = await upstream.records()
        assert record.n == 6
        # What was cut costs what had come of it, not its worst case.
        assert await proxy.ledger_spent() < 100 * 1930


@pytest.mark.parametrize(
    ("model", "fields", "announced", "passed"),
    [
        ("vote", {}, "0.4", True),
        ("vote", {"samplewise": {"deadline_s": 60}}, "0.4", False),
        ("vote", {"stream": True}, "0.4", False),
        ("vote", {}, "nan", False),
        ("vote", {}, "-1", False),
        ("vote", {}, "soon", False),
        ("quick", {"samplewise": {"deadline_s": 60}}, "60", True),
        ("quick", {}, "60", True),
    ],
)
async def test_the_nearest_deadline_that_counts_holds(
    upstream: UpstreamProcess,
    tmp_path: Path,
    model: str,
    fields: dict[str, Any],
    announced: str,
    passed: bool,
) -> None:
    slow = Answer(text="it is 4", delay_s=1.0)
    await upstream.script("m", slow)
    async with served(upstream, tmp_path) as proxy:
        headers = {"x-stainless-read-timeout": announced}
        reply = await proxy.chat(model, headers=headers, **fields)
        assert reply.status == (504 if passed else 200)


async def test_a_stream_shows_life_twice_before_an_impatient_client_would_leave(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", hold="gate"))
    async with served(upstream, tmp_path) as proxy, asking(proxy, timeout=0.5) as client:
        stream = await client.chat.completions.create(model="vote", messages=ASK, stream=True)
        await upstream.release("gate")
        texts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(texts) == "it is 4"


async def test_an_id_that_came_goes_back_and_ours_beside_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        ids = {"x-request-id": "edge-1:2/3", "x-client-request-id": "mine"}
        for stream in (False, True):
            reply = await proxy.chat("one", headers=ids, stream=stream)
            last = reply.events[-1] if stream else reply.json
            assert reply.headers["x-request-id"] == "edge-1:2/3"
            assert reply.headers["x-client-request-id"] == "mine"
            ours = reply.headers["x-samplewise-request-id"]
            assert ours == last["samplewise"]["request_id"] != "edge-1:2/3"
        wrong = await proxy.chat("none", headers=ids)
        assert wrong.headers["x-request-id"] == "edge-1:2/3"
        assert (await proxy.get("/no/such", ids)).headers["x-request-id"] == "edge-1:2/3"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "\u00e9"])
async def test_an_id_that_cannot_be_one_is_replaced_by_ours(
    upstream: UpstreamProcess, tmp_path: Path, given: str
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("one", headers={"x-request-id": given})
        assert reply.headers["x-request-id"] == reply.said["request_id"]


async def test_headers_say_how_long_it_took_and_what_is_left(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote")
        assert 0 <= int(reply.headers["openai-processing-ms"]) <= reply.said["latency_ms"] + 1
        left = float(reply.headers["x-samplewise-budget-remaining-usd"])
        assert left == pytest.approx(0.5 - reply.said["cost_usd"]["total"])
        assert "x-samplewise-budget-remaining-usd" not in (await proxy.chat("one")).headers


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_a_key_counts_in_whichever_header_it_comes_and_sees_its_room(
    upstream: UpstreamProcess, tmp_path: Path, header: str
) -> None:
    await upstream.script("m", "it is 4")
    shown = {header: f"Bearer {KEY}" if header == "authorization" else KEY}
    async with served(upstream, tmp_path) as proxy:
        for left in (2, 1, 0):
            reply = await proxy.chat("one", headers=shown, stream=left == 1)
            assert reply.headers["x-ratelimit-limit-requests"] == "3"
            assert reply.headers["x-ratelimit-remaining-requests"] == str(left)
            assert reply.headers["x-ratelimit-limit-tokens"] == "1000000"
            assert 0 < int(reply.headers["x-ratelimit-remaining-tokens"]) < 1000000
        over = await proxy.chat("one", headers=shown)
        assert (over.status, over.headers["x-ratelimit-remaining-requests"]) == (429, "0")
        assert over.headers["x-ratelimit-reset-requests"]
        assert (await proxy.chat("quick", headers=shown)).status in (403, 429)
        assert "x-ratelimit-limit-requests" not in (await proxy.chat("one")).headers


async def test_a_page_of_an_allowed_origin_may_ask_and_read_the_bill(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    origin = "https://app.example.com"
    async with served(upstream, tmp_path, f"cors_origins: ['{origin}']") as proxy:
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type, x-stainless-lang",
        }
        before = await proxy.ask("OPTIONS", CHAT, asked)
        assert (before.status, before.headers["access-control-allow-origin"]) == (200, origin)
        reply = await proxy.chat("one", headers={"origin": origin})
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "x-samplewise-cost-usd", "x-samplewise-samples"} <= set(exposed)
        elsewhere = await proxy.chat("one", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in elsewhere.headers
