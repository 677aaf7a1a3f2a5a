"""A late sample is asked for twice: the first answer counts, and both are paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samplewise.proxy.service import Service
from tests.faults.test_table import backend
from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire import books
from tests.wire.faulty import PROMPT_NANO, TOKEN_NANO, true_cost
from tests.wire.proxy import serve

ROUTES = """
  one: {backends: [pool], max_tokens: 50}
  poor: {backends: [pool], max_tokens: 50, budget: {usd_per_request: 0.00025}}
"""
GOOD = PROMPT_NANO + 3 * TOKEN_NANO


def config(upstream: UpstreamProcess, **extra: Any) -> str:
    made = backend("pool", upstream.base_url, hedge={"after": "p90"}, **extra)
    return f"backends:\n{made}routes:\n{ROUTES}"


def learn(service: Service, seconds: float = 0.1) -> None:
    """Let the upstream have answered often enough to know what is late."""
    for _ in range(20):
        service.upstreams["pool"].learn_seconds(seconds)


async def test_a_late_sample_is_asked_for_again_and_the_first_answer_counts(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    slow = Answer(text="one two three", hold="never", hold_after=2)
    await upstream.script("m", slow, "three whole words")
    async with serve(config(upstream), tmp_path) as proxy:
        learn(proxy.service)
        reply = await proxy.chat("one")
        assert (reply.text, reply.said["degraded"]) == ("three whole words", [])
        assert reply.said["samples"]["drawn"] == 1
        state = await upstream.wait("aborted", equals=1)
        assert (state.started, state.finished) == (2, 1)
        late, whole = books.rows(tmp_path / "ledger.db")
        assert (late["id"][-1], late["usage_source"], late["completion_tokens"]) == (
            "0",
            "counted",
            2,
        )
        assert (whole["id"][-1], whole["nano_settled"]) == ("1", GOOD)
        spent = await proxy.ledger_spent()
        assert spent == late["nano_settled"] + GOOD >= true_cost(await upstream.records())
        assert round(float(reply.headers["x-samplewise-cost-usd"]) * 10**9) == spent


async def test_a_sample_in_time_is_asked_for_once(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "three whole words")
    async with serve(config(upstream), tmp_path) as proxy:
        learn(proxy.service, 30.0)
        assert (await proxy.chat("one")).text == "three whole words"
        assert await proxy.ledger_spent() == GOOD
        assert len(await upstream.records()) == 1


async def test_the_second_call_answers_when_the_first_breaks_and_the_other_way_round(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    late = Answer(text="three whole words", delay_s=0.4)
    broken = Answer(text="x", fault=Fault(kind="status"))
    for answers in ((late, broken), (Answer(text="a b", hold="gate", hold_after=1), late)):
        await upstream.script("m", *answers)
        async with serve(config(upstream), tmp_path) as proxy:
            learn(proxy.service)
            assert (await proxy.chat("one")).text == "three whole words"
            assert len(await upstream.records(model="m")) % 2 == 0


async def test_no_second_call_without_room_for_its_worst_case(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="three whole words", delay_s=0.5))
    async with serve(config(upstream), tmp_path) as proxy:
        learn(proxy.service)
        reply = await proxy.chat("poor")
        assert (reply.text, reply.said["degraded"]) == ("three whole words", [])
        assert len(await upstream.records()) == 1


async def test_no_second_call_without_room_in_the_retry_budget(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="three whole words", delay_s=0.5))
    health = {"retry_floor_per_s": 0, "retry_share": 0}
    async with serve(config(upstream, health=health), tmp_path) as proxy:
        learn(proxy.service)
        assert (await proxy.chat("one")).text == "three whole words"
        assert len(await upstream.records()) == 1


async def test_a_client_that_leaves_cuts_both(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", Answer(text="a b c", hold="never", hold_after=1))
    async with serve(config(upstream), tmp_path) as proxy:
        learn(proxy.service)
        reply = await proxy.chat("one", samplewise={"deadline_s": 1.0})
        assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
        state = await upstream.wait("aborted", equals=2)
        assert (state.started, state.running) == (2, 0)
        sources = [row["usage_source"] for row in books.rows(tmp_path / "ledger.db")]
        assert sources == ["counted", "counted"]
        assert await proxy.ledger_spent() >= true_cost(await upstream.records())
