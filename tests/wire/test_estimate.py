"""Estimates before spending: what they bound, what they rest on, and that they do nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.books import rows, series, total
from tests.wire.proxy import Proxy, Reply, backend, serve

DAY_MS = 86_400_000
ROUTES = """
  one: {backends: [local], max_tokens: 50}
  vote: {backends: [local], policy: 'majority_vote:5', max_tokens: 50}
  best: {backends: [local], policy: 'best_of_n:4', verifiers: [is_yes], max_tokens: 50}
  window: {backends: [local], policy: {type: adaptive_vote, margin: 4, max_samples: 9, window: 2},
    max_tokens: 50}
  waves: {backends: [local], policy: {type: first_pass, max_samples: 8, waves: [2, 3]},
    verifiers: [is_yes], max_tokens: 50}
  tiers: {backends: [local], max_tokens: 50, policy: {type: cascade, tiers: [
    {backend: local, samples: 2, agreement: 1.0}, {backend: local, samples: 3}]}}
"""
LEAST = {"one": 1, "vote": 5, "best": 4, "window": 4, "waves": 2, "tiers": 2}
QUESTION = "how many of them are there, if there are any at all?"


def _config(upstream: UpstreamProcess, routes: str = ROUTES, **extra: Any) -> str:
    verifiers = (
        "verifiers:\n  is_yes: {type: regex, pattern: 'yes', price: {usd_per_call: 0.001}}\n"
    )
    return f"backends:\n{backend(upstream, **extra)}{verifiers}routes:{routes}"


async def _estimate(proxy: Proxy, model: str, **fields: Any) -> Reply:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], **fields}
    return await proxy.post("/v1/samplewise/estimate", msgspec.json.encode(body))


def _nano(said: Any) -> dict[str, int | None]:
    costs = said["cost_usd"].items()
    return {name: None if usd is None else round(usd * NANO) for name, usd in costs}


@pytest.mark.parametrize("route", LEAST)
async def test_an_answer_costs_no_less_than_the_best_and_no_more_than_the_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", "yes")
    async with serve(_config(upstream), tmp_path) as proxy:
        before = (await _estimate(proxy, route)).said
        assert before["samples_at_least"] == LEAST[route]
        reply = await proxy.chat(route, QUESTION)
        drawn = reply.said["samples"]["drawn"]
        assert before["samples_at_least"] <= drawn <= before["samples_at_most"]
        cost, told = await proxy.ledger_spent(), _nano(before)
        assert told["best"]
        assert told["worst"]
        assert 0 < told["best"] <= cost <= told["worst"]
        after = _nano((await _estimate(proxy, route)).said)
        assert after == {**told, "expected": cost}


async def test_an_estimate_sends_nothing_and_writes_nothing(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream), tmp_path) as proxy:
        page = (await proxy.get("/metrics")).body
        ledger = sqlite3.connect(f"file:{tmp_path}/ledger.db?mode=ro", uri=True)
        before = ledger.execute("PRAGMA data_version").fetchall()
        for route in LEAST:
            for stream in (False, True):
                reply = await _estimate(proxy, route, stream=stream)
                assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert ledger.execute("PRAGMA data_version").fetchall() == before
        ledger.close()
        assert rows(tmp_path / "ledger.db") == []
        assert await upstream.records() == []
        after = series((await proxy.get("/metrics")).body.decode())
        for name in ("samplewise_requests_total", "samplewise_cost_usd_total"):
            assert total(after, name) == total(series(page.decode()), name) == 0


async def test_an_estimate_and_a_dry_run_say_the_same(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream), tmp_path) as proxy:
        for route in LEAST:
            options = {"samples": 2, "max_cost_usd": 0.01} if route == "vote" else {}
            one = (await _estimate(proxy, route, samplewise=options)).json
            other = (
                await proxy.chat(route, QUESTION, samplewise={**options, "dry_run": True})
            ).json
            for found in (one, other):
                assert found["samplewise"].pop("request_id").startswith("req_")
            assert one == other


async def test_a_refused_body_is_refused_by_an_estimate_too(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream), tmp_path) as proxy:
        assert (await _estimate(proxy, "none")).status == 404
        assert (await _estimate(proxy, "one", n=2)).error["param"] == "n"
        typo = await _estimate(proxy, "one", samplewise={"sample": 2})
        assert (typo.status, typo.error["param"]) == (400, "samplewise.sample")
        assert typo.headers["x-request-id"].startswith("req_")


async def test_nothing_is_expected_of_a_route_without_a_bill_in_the_last_thirty_days(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "yes")
    async with serve(_config(upstream), tmp_path) as proxy:
        await proxy.chat("vote")
        said = (await _estimate(proxy, "one")).said
        assert said["cost_usd"]["expected"] is None
        assert (said["expected_from"]["requests"], said["expected_from"]["days"]) == (0, 30)
        assert "no request of this route" in said["expected_from"]["reason"]
        assert (await _estimate(proxy, "vote")).said["expected_from"]["requests"] == 1
        ledger = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        ledger.execute("UPDATE reservations SET held_at = held_at - ?", (30 * DAY_MS + 60_000,))
        ledger.close()
        assert (await _estimate(proxy, "vote")).said["cost_usd"]["expected"] is None


async def test_expected_is_the_mean_of_billed_requests_of_the_route(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    texts = ("yes", "yes it is", "yes it is so")
    await upstream.script("m", *texts)
    async with serve(_config(upstream), tmp_path) as proxy:
        bills = [
            round((await proxy.chat("one", QUESTION)).said["cost_usd"]["total"] * NANO)
            for _ in texts
        ]
        await upstream.script("m", "no", faults=[Fault(kind="status", status=500)])
        assert (await proxy.chat("one", QUESTION)).status == 502
        said = (await _estimate(proxy, "one")).said
        assert len(set(bills)) == 3
        assert said["expected_from"] == {"days": 30, "requests": 3, "reason": None}
        assert _nano(said)["expected"] == sum(bills) // 3


async def test_expected_stays_between_best_and_worst_of_this_request(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="yes", tokens=40))
    async with serve(_config(upstream), tmp_path) as proxy:
        await proxy.chat("one")
        small = _nano((await _estimate(proxy, "one", max_tokens=1)).said)
        assert small["expected"] == small["worst"]
        messages = [{"role": "user", "content": "word and " * 40_000}]
        large = _nano((await _estimate(proxy, "one", messages=messages)).said)
        assert large["expected"] == large["best"]
        tight = _nano((await _estimate(proxy, "one", samplewise={"max_cost_usd": 1e-9})).said)
        assert tight == {"best": 1, "expected": 1, "worst": 1}


async def test_a_turn_with_tools_may_end_after_one_sample(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with serve(_config(upstream), tmp_path) as proxy:
        said = (await _estimate(proxy, "vote", tools=tools)).said
        assert (said["samples_at_least"], said["samples_at_most"]) == (1, 5)


async def test_an_estimate_without_a_readable_ledger_still_bounds_the_cost(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with serve(_config(upstream), tmp_path) as proxy:
        (tmp_path / "ledger.db").rename(tmp_path / "elsewhere.db")
        said = (await _estimate(proxy, "one")).said
        assert said["cost_usd"]["worst"] > said["cost_usd"]["best"] > 0
        assert said["cost_usd"]["expected"] is None
        assert said["expected_from"]["reason"] == "the ledger cannot be read now"
        (tmp_path / "elsewhere.db").rename(tmp_path / "ledger.db")
