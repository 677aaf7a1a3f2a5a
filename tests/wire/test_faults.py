"""Upstreams that go wrong: what the client gets, how that is called, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samplewise.policies.price import NANO
from tests.upstream import Answer, Fault, Record, UpstreamProcess
from tests.upstream.script import Kind
from tests.wire.proxy import Proxy, Reply, backend, serve

PROMPT_NANO, TOKEN_NANO = 370, 1930
CAP = 50
# The text that no upstream may have shown to a client, and no log line may be needed to tell.
CANARY = "canary-4711"

ROUTES = f"""
  one: {{backends: [local], max_tokens: {CAP}}}
  many: {{backends: [local], policy: 'majority_vote:3', max_tokens: {CAP}}}
  each: {{backends: [solo], policy: 'majority_vote:3', max_tokens: {CAP}}}
  all: {{backends: [solo], policy: {{type: majority_vote, samples: 3, min_ok: 3}}, max_tokens: {CAP}}}
  live: {{backends: [local], policy: {{type: adaptive_vote, margin: 9, max_samples: 3}}, max_tokens: {CAP}}}
"""


def _config(upstream: UpstreamProcess, routes: str = ROUTES, **extra: Any) -> str:
    """Return two backends that are one upstream: `solo` is never asked for more than one choice."""
    extra = {"max_response_mb": 1, **extra}
    solo = backend(upstream, "solo", max_n=1, **extra)
    return f"backends:\n{backend(upstream, **extra)}{solo}routes:\n{routes}"


def _true_cost(records: list[Record]) -> int:
    """Return what the upstream's own books say; an answer that is an error costs nothing."""
    billed = [record for record in records if record.status in (0, 200)]
    return sum(r.prompt_tokens * PROMPT_NANO + r.total_tokens * TOKEN_NANO for r in billed)


async def _spent(proxy: Proxy, upstream: UpstreamProcess, reply: Reply) -> int:
    """Return what the ledger says, which the answer must say too and the truth must not exceed."""
    spent = await proxy.ledger_spent()
    said = reply.headers["x-samplewise-cost-usd"]
    assert round(float(said) * NANO) == spent
    assert spent >= _true_cost(await upstream.records())
    return spent


def _counts(reply: Reply) -> tuple[int, int, int, int]:
    samples = reply.said["samples"]
    return samples["drawn"], samples["ok"], samples["errored"], samples["cancelled"]


async def test_a_dead_upstream_is_a_502_that_costs_nothing(
    start_upstream: Callable[[], UpstreamProcess], tmp_path: Path
) -> None:
    upstream = start_upstream()
    async with serve(_config(upstream), tmp_path) as proxy:
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


async def test_an_upstream_that_dies_while_it_answers_is_paid_at_most_for_the_worst_case(
    start_upstream: Callable[[], UpstreamProcess], tmp_path: Path
) -> None:
    upstream = start_upstream()
    held = Answer(text="one two three four", hold="never", hold_after=2)
    await upstream.script("m", held)
    async with serve(_config(upstream), tmp_path) as proxy:
        import asyncio

        work = asyncio.create_task(proxy.chat("live"))
        await upstream.wait("held", equals=3)
        [first, *_] = await upstream.records()
        upstream.kill()
        reply = await work
        assert reply.status == 502
        spent = await proxy.ledger_spent()
        assert 3 * 2 * TOKEN_NANO <= spent <= 3 * (CAP * TOKEN_NANO + 200 * PROMPT_NANO)


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


@pytest.mark.parametrize("kind", LOST)
async def test_a_plain_answer_that_is_spoilt_is_lost_and_paid_at_its_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind
) -> None:
    await upstream.script("m", "yes it is", faults=[Fault(kind=kind, after=2, size=8 * 2**20)])
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("each")
        assert reply.text == "yes it is"
        assert _counts(reply) == (3, 2, 1, 0)
        assert set(reply.said["degraded"]) == {"quorum", "backend"}
        assert reply.said["stop_reason"] == "agreed"
        spent = await _spent(proxy, upstream, reply)
        good = 2 * (PROMPT_NANO + 3 * TOKEN_NANO)
        assert good + CAP * TOKEN_NANO <= spent <= good + CAP * TOKEN_NANO + 200 * PROMPT_NANO


@pytest.mark.parametrize("kind", [*LOST, "no_finish"])
async def test_a_stream_that_is_spoilt_is_lost_and_paid_by_its_counted_tokens(
    upstream: UpstreamProcess, tmp_path: Path, kind: Kind
) -> None:
    await upstream.script("m", "yes it is", faults=[Fault(kind=kind, after=2, size=8 * 2**20)])
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert reply.text == "yes it is"
        assert _counts(reply) == (3, 2, 1, 0)
        assert set(reply.said["degraded"]) == {"quorum", "backend"}
        spent = await _spent(proxy, upstream, reply)
        assert spent <= 3 * CAP * TOKEN_NANO + 200 * PROMPT_NANO
        if kind in ("malformed", "truncated", "eof", "close", "reset", "error_event"):
            good = 2 * (PROMPT_NANO + 3 * TOKEN_NANO)
            assert spent - good - 2 * TOKEN_NANO in range(200 * PROMPT_NANO)


async def test_a_stream_without_its_end_mark_is_whole_when_every_choice_ended(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="no_done")] * 3)
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert (_counts(reply), reply.said["degraded"]) == ((3, 3, 0, 0), [])


async def test_a_stream_in_single_bytes_is_read_as_if_it_came_whole(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Fault(kind="slow", chunk_bytes=1, byte_delay_s=0.0)
    text = 'Ein Größenmaß: 42 😀 {"a": [1]}\n\n data: x'
    await upstream.script("m", text, faults=[slow], cycle_faults=True)
    async with serve(_config(upstream), tmp_path) as proxy:
        for route in ("live", "many"):
            assert (await proxy.chat(route)).text == text
        assert (await proxy.chat("one", stream=True)).streamed == text


async def test_the_deadline_answers_with_what_is_there(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    hang = Fault(kind="hang")
    for route, worst in (("live", 0), ("each", CAP)):
        await upstream.reset()
        await upstream.script("m", "fine", faults=[None, hang])
        async with serve(_config(upstream), tmp_path / route) as proxy:
            reply = await proxy.chat(route, samplewise={"deadline_s": 0.5})
            assert reply.text == "fine"
            assert _counts(reply) == (3, 2, 0, 1)
            assert reply.said["stop_reason"] == "deadline"
            assert set(reply.said["degraded"]) == {"deadline", "quorum"}
            assert reply.said["latency_ms"] < 500
            await upstream.wait("aborted", equals=1)
            spent = await _spent(proxy, upstream, reply)
            good = 2 * (PROMPT_NANO + TOKEN_NANO)
            assert spent - good - worst * TOKEN_NANO in range(200 * PROMPT_NANO)


async def test_the_deadline_without_any_answer_is_a_504(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")], cycle_faults=True)
    async with serve(_config(upstream), tmp_path) as proxy:
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
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("all")
        assert reply.status == 502
        assert "1 of 3 samples failed" in reply.error["message"]
        assert "2 good ones came, 3 are needed" in reply.error["message"]
        assert await _spent(proxy, upstream, reply) == 2 * (PROMPT_NANO + TOKEN_NANO)
        assert (await proxy.chat("each")).said["samples"]["ok"] == 3


async def test_a_stream_that_goes_silent_is_given_up_after_the_idle_timeout(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "a b c d", faults=[Fault(kind="silence", after=2)])
    async with serve(_config(upstream, idle_timeout_s=0.3), tmp_path) as proxy:
        reply = await proxy.chat("live")
        assert (reply.text, _counts(reply)) == ("a b c d", (3, 2, 1, 0))
        await upstream.wait("aborted", equals=1)
        await _spent(proxy, upstream, reply)


async def test_an_upstream_that_never_answers_in_time_is_a_504(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "late", faults=[Fault(kind="hang")], cycle_faults=True)
    async with serve(_config(upstream, timeout_s=0.3), tmp_path) as proxy:
        for route in ("one", "each", "live"):
            reply = await proxy.chat(route)
            assert reply.status == 504
            assert "timeout" in reply.error["message"]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 500, 502, 503, 302])
async def test_an_upstreams_own_trouble_is_a_502_without_a_word_of_it(
    upstream: UpstreamProcess, tmp_path: Path, status: int
) -> None:
    fault = Fault(kind="status", status=status, body={"error": {"message": CANARY}})
    await upstream.script("m", "fine", faults=[fault], cycle_faults=True)
    async with serve(_config(upstream, headers={"x-team": CANARY}), tmp_path) as proxy:
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
    async with serve(_config(upstream, headers={"x-team": CANARY}), tmp_path) as proxy:
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
    async with serve(_config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("many", bad=1)).status == 400
        assert (await proxy.chat("many")).said["samples"]["ok"] == 3
        assert [r.n for r in await upstream.records() if "bad" not in r.json] == [3]


async def test_one_broken_stream_does_not_make_later_votes_dearer(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine", faults=[Fault(kind="no_finish")])
    async with serve(_config(upstream), tmp_path) as proxy:
        assert (await proxy.chat("live")).said["samples"]["errored"] == 1
        assert (await proxy.chat("many")).said["samples"]["ok"] == 3
        assert [record.n for record in await upstream.records()] == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("7", range(7, 8)),
        ("1.2", range(2, 3)),
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
    async with serve(_config(upstream), tmp_path) as proxy:
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
    async with serve(_config(upstream), tmp_path) as proxy:
        reply = await proxy.chat("each")
        assert (reply.text, _counts(reply)) == ("fine", (3, 2, 1, 0))
        assert await _spent(proxy, upstream, reply) == 2 * (PROMPT_NANO + TOKEN_NANO)
