"""A server that dies without a word leaves nothing reserved and nothing uncounted."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from samplewise.policies.price import Price
from tests.cli.served import Served, config, serving
from tests.ledger.pg import execute
from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent

ROUTES = """
  one: {backends: [local], max_tokens: 40}
  vote: {backends: [local], policy: 'majority_vote:3', max_tokens: 40}
  window: {backends: [local], max_tokens: 40,
    policy: {type: adaptive_vote, margin: 9, max_samples: 6, window: 3}}
"""
SLOW = Answer(text=" ".join(["word"] * 30), token_delay_s=0.02)


async def ask(served: Served, number: int, routes: Sequence[str]) -> None:
    route = routes[number % len(routes)]
    with suppress(aiohttp.ClientError):
        await served.chat(route, f"question {number}", stream=number % 2 == 0)


async def die_while_serving(
    upstream: UpstreamProcess,
    folder: Path,
    file: str,
    requests: int,
    seconds: float,
    routes: Sequence[str] = ("one", "vote", "window"),
) -> None:
    """Kill a server some time after the first of so many requests has come to the upstream."""
    async with serving(folder, "--config", file) as served:
        asks = asyncio.gather(*(ask(served, i, routes) for i in range(requests)))
        await upstream.wait("started", at_least=1, timeout_s=30)
        await asyncio.sleep(seconds)
        served.signal(signal.SIGKILL)
        await asks


async def recovered(folder: Path, file: str, where: Path | str) -> list[str]:
    """Start the server again, wait until nothing is reserved; return what it logged."""
    if isinstance(where, str):
        # As if the dead had been silent for long; and who comes need not wait for long either.
        await execute(
            where,
            "UPDATE samplewise.writers SET lease_until = 0",
            "UPDATE samplewise.meta SET value = 1500 WHERE name = 'lease_ms'",
        )
    async with serving(folder, "--config", file) as served:
        await soon(lambda: reserved(where) == 0, "nothing is reserved", 30)
        return [event["event"] for event in served.logs]


async def truth(upstream: UpstreamProcess) -> tuple[int, int]:
    """Return prompt and completion tokens as the upstream made them."""
    records = await upstream.records()
    assert all(record.phase != "running" for record in records)
    return sum(r.prompt_tokens for r in records), sum(r.total_tokens for r in records)


def booked(where: Path | str) -> tuple[int, int]:
    found = rows(where)
    return sum(r["prompt_tokens"] for r in found), sum(r["completion_tokens"] for r in found)


async def is_exact(
    upstream: UpstreamProcess, folder: Path, where: Path | str, requests: int, seconds: float
) -> int:
    """Kill and recover; return what was reserved in between, in nano-dollars."""
    await upstream.script("m", SLOW)
    file = config(folder, upstream.base_url, ROUTES, backend=", records: true", store=where)
    await die_while_serving(upstream, folder, file, requests, seconds)
    held = reserved(where)
    await recovered(folder, file, where)
    assert booked(where) == await truth(upstream)
    nano = sum(row["nano_settled"] for row in rows(where))
    assert nano == spent(where) == spent(where, "route")
    return held


async def test_after_a_kill_the_ledger_says_what_the_upstream_made(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    assert await is_exact(upstream, tmp_path, where, 40, 0.35) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
async def test_after_a_kill_at_any_moment_of_200_requests_the_ledger_is_exact(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str, seed: int
) -> None:
    await is_exact(upstream, tmp_path, where, 200, random.Random(seed).uniform(0.2, 1.5))


async def test_without_records_what_may_have_cost_is_booked_at_its_worst(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", SLOW)
    file = config(tmp_path, upstream.base_url, ROUTES, store=where)
    await die_while_serving(upstream, tmp_path, file, 20, 0.3)
    await recovered(tmp_path, file, where)
    found = rows(where)
    assert {r["usage_source"] for r in found if r["state"] == "recovered"} == {"worst_case"}
    prompt, completion = await truth(upstream)
    real = Price.per_mtok("0.37", "1.93", None).worst_nano(prompt, completion)
    assert spent(where) >= real > 0


async def test_what_waited_for_its_turn_is_released(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", SLOW)
    limited = ", max_in_flight: 1, records: true"
    file = config(tmp_path, upstream.base_url, ROUTES, backend=limited, store=where)
    await die_while_serving(upstream, tmp_path, file, 6, 0.3)
    await recovered(tmp_path, file, where)
    states = [row["state"] for row in rows(where)]
    assert "released" in states
    assert booked(where) == await truth(upstream)


async def test_rows_of_a_server_that_lives_are_left_alone(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    held = Answer(text="a b c", hold="gate", hold_after=1)
    await upstream.script("m", held)
    file = config(tmp_path, upstream.base_url, ROUTES, store=where)
    other = tmp_path / "other"
    other.mkdir()
    async with serving(tmp_path, "--config", file) as first:
        asked = asyncio.create_task(first.chat("one"))
        await soon(lambda: reserved(where) > 0, "the call is reserved")
        async with serving(other, "--config", file):
            await upstream.release("gate")
            assert (await asked).status == 200
    (row,) = rows(where)
    assert (row["state"], row["usage_source"]) == ("settled", "provider")


async def test_an_upstream_that_cannot_be_asked_costs_the_worst_case(
    upstream: UpstreamProcess, tmp_path: Path, where: Path | str
) -> None:
    await upstream.script("m", SLOW)
    file = config(tmp_path, upstream.base_url, ROUTES, backend=", records: true", store=where)
    await die_while_serving(upstream, tmp_path, file, 3, 0.3)
    config(tmp_path, "http://127.0.0.1:9/v1", ROUTES, backend=", records: true", store=where)
    said = await recovered(tmp_path, file, where)
    assert "recovered at the worst case" in said
    found = rows(where)
    assert {r["usage_source"] for r in found if r["state"] == "recovered"} == {"worst_case"}
