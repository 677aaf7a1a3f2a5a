"""Budgets, spend and bills over HTTP: all for the admin, its own for a client."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from samplewise.proxy.keys.base import Terms
from samplewise.proxy.keys.limits import parse_limits, with_limits
from samplewise.proxy.keys.store import key_store
from tests.keys.kit import bearer, both_routes, store_of
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import rows, store_url
from tests.wire.proxy import Proxy, serve

ENV = {"ADMIN": "the-admin-key-of-this-test", "CI": "the-key-of-ci-in-the-file"}
ADMIN = bearer(ENV["ADMIN"])
HEAD = """
server: {admin_key: "${ADMIN}"}
keys: {required: true, list: [{name: ci, key: "${CI}", budget: {requests_per_day: 9}}]}
budget: {usd_per_month: 100}
"""
HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))


@dataclass(frozen=True)
class Spent:
    """A proxy where a made key has sent two requests, one of eight samples, and `ci` one."""

    proxy: Proxy
    made: dict[str, str]
    id: str
    mine: list[str]
    other: str


@asynccontextmanager
async def _spent(upstream: UpstreamProcess, where: Path | str) -> AsyncIterator[Spent]:
    await upstream.script("m", Answer(text="forty-two", tokens=40), rules=(HELD,))
    terms = with_limits(Terms(), parse_limits(["usd_per_day=5", "requests_total=50"]))
    with closing(key_store(store_url(where))) as store:
        key, secret = await asyncio.to_thread(store.create, "made", terms)
    place = where if isinstance(where, str) else where.parent
    async with serve(both_routes(upstream, HEAD), place, ENV) as proxy:
        sent = [
            (await proxy.chat(route, headers=bearer(one))).headers["x-request-id"]
            for route, one in (("one", secret), ("many", secret), ("one", ENV["CI"]))
        ]
        yield Spent(proxy, bearer(secret), key.id, sent[:2], sent[2])


def _found(data: list[Any], **wanted: Any) -> Any:
    (found,) = [item for item in data if all(item[name] == wanted[name] for name in wanted)]
    return found


async def test_budgets_of_a_key_are_its_own_and_the_admins_are_all(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    async with _spent(upstream, where) as spent:
        path = "/v1/samplewise/budgets"
        own = (await spent.proxy.get(path, spent.made)).json["data"]
        assert {(item["scope"], item["name"], item["id"]) for item in own} == {
            ("key", "made", spent.id),
            ("requests", "made", spent.id),
        }
        day = _found(own, scope="key", window="day")
        nano = sum(row["nano_settled"] for row in rows(where) if row["key"] == spent.id)
        assert day["limit"] == {"usd": 5, "tokens": None, "samples": None}
        assert day["spent"]["usd"] == pytest.approx(nano / 1e9, abs=1e-12)
        assert (day["spent"]["samples"], day["reserved"]["samples"]) == (9, 0)
        assert day["resets_at"].endswith("T00:00:00Z")
        rate = _found(own, scope="requests")
        assert (rate["limit"], rate["spent"]) == ({"requests": 50}, {"requests": 2})
        assert (rate["window"], rate["resets_at"]) == ("total", None)

        everything = (await spent.proxy.get(path, ADMIN)).json["data"]
        assert {item["scope"] for item in everything} >= {"global", "route", "key", "requests"}
        assert {item["name"] for item in everything} >= {"all", "one", "many", "made", "ci"}
        assert _found(everything, scope="global", window="month")["limit"]["usd"] == 100
        whole = _found(everything, scope="global", window="day")
        assert whole["spent"]["samples"] == 10
        only = (await spent.proxy.get(f"{path}?key=ci", ADMIN)).json["data"]
        assert {item["id"] for item in only} == {"config:ci"}
        first = (await spent.proxy.get(f"{path}?limit=1", ADMIN)).json
        assert (first["has_more"], first["last"]) == (True, "config:ci")
        rest = (await spent.proxy.get(f"{path}?limit=1&after=config:ci", ADMIN)).json
        assert ({i["id"] for i in rest["data"]}, rest["has_more"]) == ({spent.id}, False)


async def test_the_bill_of_a_request_is_for_who_sent_it(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    async with _spent(upstream, where) as spent:
        path = "/v1/samplewise/requests/"
        bill = (await spent.proxy.get(path + spent.mine[1], spent.made)).json
        found = [r for r in rows(where) if r["request_id"] == spent.mine[1]]
        assert [row["id"] for row in bill["rows"]] == [
            row["id"] for row in found if row["purpose"] != "request"
        ]
        assert (bill["route"], bill["key"], bill["settled"]) == ("many", spent.id, True)
        nano = sum(row["nano_settled"] for row in found)
        assert bill["cost_usd"] == pytest.approx(nano / 1e9, abs=1e-12)
        assert bill["held_usd"] == 0
        assert {row["usage_source"] for row in bill["rows"]} == {"provider"}
        assert (await spent.proxy.get(path + spent.mine[1], ADMIN)).json == bill

        unknown = await spent.proxy.get(path + "req_0", spent.made)
        foreign = await spent.proxy.get(path + spent.other, spent.made)
        assert (unknown.status, foreign.status) == (404, 404)
        assert foreign.error["code"] == unknown.error["code"] == "request_not_found"
        assert (await spent.proxy.get(path + spent.other, bearer(ENV["CI"]))).status == 200


async def test_spend_adds_up_what_the_caller_may_see(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    async with _spent(upstream, where) as spent:
        path = "/v1/samplewise/spend"
        found = (await spent.proxy.get(f"{path}?by=key,route", ADMIN)).json
        lines = {(line["key"], line["route"]): line for line in found["data"]}
        made = f"made ({spent.id})"
        assert set(lines) == {("config:ci", "one"), (made, "many"), (made, "one")}
        # The rows that count requests are neither money nor samples nor requests.
        assert [lines[made, route]["requests"] for route in ("one", "many")] == [1, 1]
        assert [lines[made, route]["samples"] for route in ("one", "many")] == [1, 8]
        assert (found["total"]["requests"], found["total"]["samples"]) == (3, 10)

        own = (await spent.proxy.get(f"{path}?by=key", spent.made)).json
        assert [line["key"] for line in own["data"]] == [made]
        assert own["total"]["samples"] == 9
        named = (await spent.proxy.get(f"{path}?by=key&key=made", ADMIN)).json
        assert named["data"] == own["data"]
        ci = (await spent.proxy.get(path, bearer(ENV["CI"]))).json
        assert ci["total"]["samples"] == 1
        for other in ("ci", "nobody"):
            reply = await spent.proxy.get(f"{path}?key={other}", spent.made)
            assert (reply.status, reply.error["code"]) == (404, "key_not_found")

        page = await spent.proxy.get(f"{path}?by=route&format=csv", ADMIN)
        assert page.headers["content-type"].startswith("text/csv")
        table = list(csv.DictReader(io.StringIO(page.body.decode())))
        nano = sum(row["nano_settled"] for row in rows(where))
        assert sum(round(float(line["settled_usd"]) * 1e9) for line in table) == nano
        accept = await spent.proxy.get(f"{path}?by=route", {**ADMIN, "accept": "text/csv"})
        assert accept.body == page.body
        none = (await spent.proxy.get(f"{path}?until=2020-01-01", ADMIN)).json
        assert (none["data"], none["total"]["samples"]) == ([], 0)


async def test_wrong_questions_and_wrong_keys_are_told(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async with _spent(upstream, tmp_path / "ledger.db") as spent:
        for query, reason in {
            "spend?by=rout": "by: must list some of key, route, backend, day, got 'rout'",
            "spend?bye=day": "unknown parameter 'bye'; did you mean 'by'?",
            "spend?since=yesterday": "since: must be a day or time such as 2026-11-01",
            "spend?since=2026-01-02&until=2026-01-01": "until: must be after since",
            "spend?format=xml": "format: must be json or csv, got 'xml'",
            "budgets?limit=9999": "limit: must be 1 to 1000, got '9999'",
        }.items():
            reply = await spent.proxy.get(f"/v1/samplewise/{query}", ADMIN)
            assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
            assert reply.error["message"].startswith(reason)
        for path in ("spend", "budgets", f"requests/{spent.mine[0]}"):
            for headers in ({}, bearer("nobody"), bearer("sk-sw-x")):
                assert (await spent.proxy.get(f"/v1/samplewise/{path}", headers)).status == 401
        reply = await spent.proxy.get("/v1/samplewise/budgets?key=made", spent.made)
        assert reply.status == 400


async def test_without_keys_a_client_sees_what_was_bought_without_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="forty-two", tokens=40))
    _, secret = store_of(tmp_path).create("made", Terms())
    async with serve(both_routes(upstream), tmp_path) as proxy:
        mine = (await proxy.chat("one")).headers["x-request-id"]
        other = (await proxy.chat("many", headers=bearer(secret))).headers["x-request-id"]
        found = [await proxy.get(f"/v1/samplewise/requests/{one}") for one in (mine, other)]
        assert [reply.status for reply in found] == [200, 404]
        assert (await proxy.get("/v1/samplewise/spend")).json["total"]["samples"] == 1
        assert (await proxy.get("/v1/samplewise/budgets")).json["data"] == []
