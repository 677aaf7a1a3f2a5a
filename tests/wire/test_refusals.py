"""Upstreams that say no: whose fault it is, what the client hears of it, and whether n was it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upstream import Fault, UpstreamProcess
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO, config, counts, spent
from tests.wire.proxy import serve

# The text that no upstream may have shown to a client, and no log line may be needed to tell.
CANARY = "canary-4711"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 500, 502, 503, 302])
async def test_an_upstreams_own_trouble_is_a_502_without_a_word_of_it(
    upstream: UpstreamProcess, tmp_path: Path, status: int
) -> None:
    fault = Fault(kind="status", status=status, body={"error": {"message": CANARY}})
    await upstream.script("m", "fine", faults=[fault], cycle_faults=True)
    async with serve(config(upstream, headers={"x-team": CANARY}), tmp_path) as proxy:
        for route in ("one", "many", "each", "live"):
            reply = await proxy.chat(route)
            assert (reply.status, reply.error["type"]) == (502, "upstream_error")
            assert CANARY not in repr(reply)
            assert f"status {status}" in reply.error["message"]
        assert await proxy.ledger_spent() == 0


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_every_upstream_refuses_is_the_clients_to_mend(
    upstream: UpstreamProcess, tmp_path: Path, status: int
) -> None:
    message = f"this model's context is too short; key {CANARY}"
    fault = Fault(kind="status", status=status, body={"error": {"message": message}})
    await upstream.script("m", "fine", faults=[fault], cycle_faults=True)
    async with serve(config(upstream, headers={"x-team": CANARY}), tmp_path) as proxy:
        for route in ("one", "many", "each", "live"):
            reply = await proxy.chat(route)
            assert (reply.status, reply.error["code"]) == (status, "upstream_refused")
            assert "this model's context is too short" in reply.error["message"]
            assert CANARY not in repr(reply)
        assert await proxy.ledger_spent() == 0


async def test_a_request_that_is_refused_does_not_make_later_ones_dearer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    # A 400 for a call with n may mean the n or the request; only a later success can tell.
    await upstream.script("m", "fine", refuses=["bad"])
    async with serve(config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("many", bad=1)).status == 400
        assert (await proxy.chat("many")).said["samples"]["ok"] == 3
        assert [r.n for r in await upstream.records() if "bad" not in r.json] == [3]


async def test_one_broken_stream_does_not_make_later_votes_dearer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="no_finish")])
    async with serve(config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("live")).said["samples"]["errored"] == 1
        assert (await proxy.chat("many")).said["samples"]["ok"] == 3
        assert [record.n for record in await upstream.records()] == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("7", range(7, 8)),
        ("1.2", range(1, 3)),
        ("0", range(1, 2)),
        ("-5", range(1, 2)),
        ("soon", range(1, 2)),
        ("nan", range(1, 2)),
        ("inf", range(1, 86_401)),
        ("1e400", range(1, 86_401)),
        ("9" * 400, range(1, 86_401)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", range(1, 2)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", range(1, 86_401)),
    ],
)
async def test_a_rate_limit_everywhere_is_passed_on_with_its_time(
    upstream: UpstreamProcess, tmp_path: Path, header: str, waits: range
) -> None:
    fault = Fault(kind="status", status=429, headers={"retry-after": header})
    await upstream.script("m", "fine", faults=[fault], cycle_faults=True)
    async with serve(config(upstream), tmp_path) as proxy:
        for route in ("one", "many", "each", "live"):
            reply = await proxy.chat(route)
            assert reply.status == 429
            assert (reply.error["type"], reply.error["code"]) == (
                "rate_limit_error",
                "rate_limit_exceeded",
            )
            assert int(reply.headers["retry-after"]) in waits
        assert await proxy.ledger_spent() == 0


async def test_a_rate_limit_on_some_samples_costs_only_those(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="status", status=429)])
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("each")
        assert (reply.text, counts(reply)) == ("fine", (3, 2, 1, 0))
        assert await spent(proxy, upstream, reply) == 2 * (PROMPT_NANO + TOKEN_NANO)


async def test_an_upstream_that_caps_n_gets_no_more_than_that_from_then_on(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", max_n=2, over_max_n="cap")
    async with serve(config(upstream), tmp_path) as proxy:
        for asked in ([3, 1], [2, 1]):
            reply = await proxy.chat("many")
            assert (counts(reply), reply.said["degraded"]) == ((3, 3, 0, 0), [])
            assert [record.n for record in await upstream.records()][-2:] == asked
        assert await proxy.ledger_spent() == 4 * PROMPT_NANO + 6 * TOKEN_NANO


async def test_an_upstream_that_refuses_n_is_asked_one_by_one(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", max_n=1, over_max_n="refuse")
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("many")
        assert (counts(reply), reply.said["degraded"]) == ((3, 3, 0, 0), [])
        assert "honours n only up to 1" in "".join(reply.said["warnings"])
        assert await spent(proxy, upstream, reply) == 3 * (PROMPT_NANO + TOKEN_NANO)
        assert (await proxy.chat("many")).said["samples"]["ok"] == 3
        assert [record.n for record in await upstream.records()] == [3, 1, 1, 1, 1, 1, 1]


async def test_more_choices_than_asked_for_are_dropped(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    said = {"role": "assistant", "content": "fine"}
    choices = [{"index": 0, "message": said, "finish_reason": "stop"}] * 5
    usage = {"prompt_tokens": 1, "completion_tokens": 5}
    fault = Fault(kind="malformed", body={"choices": choices, "usage": usage})
    await upstream.script("m", "x", faults=[fault], cycle_faults=True)
    async with serve(config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("many")
        assert counts(reply) == (3, 3, 0, 0)
        assert len(reply.json["choices"]) == 1
        assert await proxy.ledger_spent() == PROMPT_NANO + 5 * TOKEN_NANO
