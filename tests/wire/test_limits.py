"""Limits in dollars, tokens and samples: what does not fit is not sent, and truth stays below."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, UpstreamProcess
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO, counts, true_cost
from tests.wire.proxy import Proxy, Reply, backend, serve

CAP = 100
SAID = Answer(text="forty-two", tokens=40)
# What one sample of a short prompt is held at: its bytes and a template, and all its tokens.
LEAST_HOLD = CAP * TOKEN_NANO + 64 * PROMPT_NANO
MOST_HOLD = CAP * TOKEN_NANO + 200 * PROMPT_NANO
TRUE = PROMPT_NANO + 40 * TOKEN_NANO


def _usd(nano: int) -> str:
    return f"{nano / NANO:.9f}"


def _config(upstream: UpstreamProcess, *routes: str, budget: str = "") -> str:
    """Return routes `r0`, `r1`, ... whose samples are calls of their own."""
    lines = "".join(
        f"  r{i}: {{backends: [local], max_tokens: {CAP}, {route}}}\n"
        for i, route in enumerate(routes)
    )
    everywhere = f"budget: {budget}\n" if budget else ""
    return f"{everywhere}backends:\n{backend(upstream, max_n=1)}routes:\n{lines}"


async def _unpaid(proxy: Proxy, upstream: UpstreamProcess, reply: Reply, limit: str) -> None:
    """Check a refusal for want of money, before which nothing more was sent or spent."""
    calls, cost = len(await upstream.records()), await proxy.ledger_spent()
    assert reply.status == 402
    assert (reply.error["type"], reply.error["code"]) == ("budget_exceeded", "budget_exceeded")
    assert limit in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert float(reply.headers["x-samplewise-cost-usd"]) == 0
    assert (len(await upstream.records()), await proxy.ledger_spent()) == (calls, cost)


async def test_a_request_that_does_not_fit_into_its_limit_is_refused_before_anything_is_sent(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    routes = (
        f"budget: {{usd_per_request: {_usd(LEAST_HOLD - 1)}}}",
        f"policy: 'majority_vote:3', budget: {{usd_per_request: {_usd(LEAST_HOLD - 1)}}}",
        f"policy: 'majority_vote:3', budget: {{tokens: {CAP + 63}}}",
    )
    async with serve(_config(upstream, *routes), tmp_path) as proxy:
        for route, limit in (("r0", "$"), ("r1", "$"), ("r2", f"{CAP + 63} tokens")):
            for stream in (False, True):
                reply = await proxy.chat(route, stream=stream)
                await _unpaid(proxy, upstream, reply, f"the request limit of {limit}")
        assert await upstream.records() == []


async def test_a_wave_that_does_not_fit_is_drawn_smaller(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    limit = 2 * MOST_HOLD
    routes = (
        f"policy: 'majority_vote:8', budget: {{usd_per_request: {_usd(limit)}}}",
        f"policy: 'majority_vote:8', budget: {{tokens: {2 * (CAP + 200)}}}",
        "policy: 'majority_vote:8'",
    )
    async with serve(_config(upstream, *routes), tmp_path) as proxy:
        for route, least in (("r0", 2), ("r1", 2)):
            reply = await proxy.chat(route)
            assert reply.text == SAID.text
            drawn, good, lost, cut = counts(reply)
            assert (least <= drawn < 5, good, lost, cut) == (True, drawn, 0, 0)
            assert reply.said["degraded"] == ["budget"]
            assert reply.said["stop_reason"] == "budget"
        reply = await proxy.chat("r2", samplewise={"max_cost_usd": limit / NANO})
        assert 2 <= reply.said["samples"]["drawn"] < 5
        assert reply.said["degraded"] == ["budget"]
        assert reply.said["cost_usd"]["total"] <= limit / NANO


async def test_a_later_wave_that_does_not_fit_ends_the_run(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    limit = 2 * MOST_HOLD
    route = (
        "policy: {type: first_pass, max_samples: 8, waves: [2, 6]}, verifiers: [never], "
        f"budget: {{usd_per_request: {_usd(limit)}}}"
    )
    config = f"verifiers: {{never: {{type: regex, pattern: '^no$'}}}}\n{_config(upstream, route)}"
    async with serve(config, tmp_path) as proxy:
        reply = await proxy.chat("r0")
        assert reply.said["stop_reason"] == "budget"
        assert reply.said["degraded"] == ["budget"]
        assert 2 <= reply.said["samples"]["drawn"] < 8
        assert await proxy.ledger_spent() <= limit
        assert reply.said["outcome"] == "best_effort"


async def test_too_little_money_for_enough_samples_is_not_the_upstreams_fault(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    policy = "policy: {type: majority_vote, samples: 8, min_ok: 7}"
    route = f"{policy}, budget: {{usd_per_request: {_usd(2 * MOST_HOLD)}}}"
    async with serve(_config(upstream, route), tmp_path) as proxy:
        reply = await proxy.chat("r0")
        # A 502 would be sent again by every client, and paid for again.
        assert (reply.status, reply.error["code"]) == (402, "budget_exceeded")
        assert reply.headers["x-should-retry"] == "false"
        cost = round(float(reply.headers["x-samplewise-cost-usd"]) * NANO)
        assert cost == await proxy.ledger_spent() == true_cost(await upstream.records())


async def test_a_request_can_only_tighten_its_routes_limits(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    limit = 8 * MOST_HOLD
    route = f"policy: 'majority_vote:4', budget: {{usd_per_request: {_usd(limit)}}}"
    async with serve(_config(upstream, route), tmp_path) as proxy:
        for asked, held in ((limit * 1000, limit), (limit // 2, limit // 2)):
            for said, headers in (
                ({"max_cost_usd": asked / NANO}, {}),
                ({}, {"x-samplewise-max-cost-usd": _usd(asked)}),
            ):
                reply = await proxy.chat("r0", headers=headers, samplewise=said)
                budget = reply.said["budget"]
                assert round(budget["limit_usd"] * NANO) == held
                assert round(budget["remaining_usd"] * NANO) == held - 4 * TRUE
        # The body has the last word over the headers.
        headers = {"x-samplewise-max-cost-usd": _usd(limit // 4)}
        reply = await proxy.chat("r0", headers=headers, samplewise={"max_cost_usd": limit / NANO})
        assert round(reply.said["budget"]["limit_usd"] * NANO) == limit
        reply = await proxy.chat("r0", samplewise={"max_cost_usd": 1e-9})
        assert reply.status == 402


async def test_a_request_can_only_tighten_its_routes_deadline(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(hold="never"))
    async with serve(_config(upstream, "budget: {deadline_s: 0.2}", ""), tmp_path) as proxy:
        for route, asked in (("r0", 3600.0), ("r0", 1e300), ("r0", 0.1), ("r1", 0.1), ("r1", 1e-9)):
            reply = await proxy.chat(route, samplewise={"deadline_s": asked})
            assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("scope", ["route", "global"])
async def test_a_day_that_is_spent_refuses_the_rest_of_it(
    upstream: UpstreamProcess, tmp_path: Path, scope: str
) -> None:
    await upstream.script("m", SAID)
    limit = 3 * MOST_HOLD
    day = f"{{usd_per_day: {_usd(limit)}}}"
    routes = ("policy: 'majority_vote:2'" + (f", budget: {day}" if scope == "route" else ""), "")
    config = _config(upstream, *routes, budget=day if scope == "global" else "")
    async with serve(config, tmp_path) as proxy:
        replies = [await proxy.chat("r0") for _ in range(30)]
        answers = [reply for reply in replies if reply.status == 200]
        assert answers == replies[: len(answers)]
        assert len(answers) >= 2
        assert answers[0].said["degraded"] == []
        await _unpaid(proxy, upstream, replies[-1], f"the {scope} limit of $")
        assert limit - 2 * MOST_HOLD < await proxy.ledger_spent() <= limit
        assert await proxy.ledger_spent() == true_cost(await upstream.records())
        other = await proxy.chat("r1")
        assert other.status == (200 if scope == "route" else 402)


async def test_fifty_requests_at_once_never_spend_more_than_the_day_allows(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID, "one", "one two", SAID)
    limit = 12 * MOST_HOLD
    routes = ("policy: 'majority_vote:3'", "policy: {type: adaptive_vote, margin: 2}", "")
    config = _config(upstream, *routes, budget=f"{{usd_per_day: {_usd(limit)}}}")
    async with serve(config, tmp_path) as proxy:
        asked = [proxy.chat(f"r{i % 3}", stream=i % 7 == 0) for i in range(50)]
        replies = await asyncio.gather(*asked)
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 402}
        assert true_cost(await upstream.records()) <= limit
        # Money that was held and not needed goes to who comes later, to the last sample.
        while (await proxy.chat("r2")).status == 200:
            assert true_cost(await upstream.records()) <= limit
        assert limit - MOST_HOLD < await proxy.ledger_spent() <= limit
        balances = await proxy.service.balances()
        assert all(balance.overrun_nano == 0 for balance in balances)


def missing(reply: Reply) -> tuple[Decimal, Decimal]:
    """Return what a refused request needed and what was left, in nano-dollars."""
    found = re.search(r"may cost \$([\d.]+), \$([\d.]+) left", reply.error["message"])
    assert found, reply.error
    return Decimal(found[1]) * NANO, Decimal(found[2]) * NANO


async def test_a_refusal_says_what_was_needed_and_what_is_left(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", SAID)
    routes = (
        f"budget: {{usd_per_day: {_usd(2 * MOST_HOLD)}}}",
        f"budget: {{usd_per_request: {_usd(LEAST_HOLD - 1)}}}",
        f"budget: {{tokens_per_day: {CAP + 63}}}",
    )
    async with serve(_config(upstream, *routes), tmp_path) as proxy:
        while (reply := await proxy.chat("r0")).status == 200:
            pass
        need, left = missing(reply)
        everything = Decimal(_usd(2 * MOST_HOLD)) * NANO
        spent = await proxy.ledger_spent()
        assert left == everything - spent
        assert LEAST_HOLD <= need <= MOST_HOLD
        assert need > left
        assert missing(await proxy.chat("r1"))[1] == LEAST_HOLD - 1
        message = (await proxy.chat("r2")).error["message"]
        assert f"tokens, {CAP + 63} tokens left" in message
