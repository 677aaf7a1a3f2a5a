"""PostgreSQL goes away under the whole proxy: nothing is bought, nothing is lost, it comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from samplewise.policies.price import Price
from samplewise.proxy.ledger.postgres import PostgresLedger
from tests.cli.served import Served, config, serving
from tests.ledger.pg import Server, execute
from tests.ledger.relay import Relay
from tests.upstream import Answer, Rule, UpstreamProcess
from tests.wire.books import reserved, rows, soon, spent
from tests.wire.proxy import Reply

ROUTES = """
  one: {backends: [local], max_tokens: 40}
  vote: {backends: [local], policy: 'majority_vote:3', max_tokens: 40}
"""
PRICE = Price.per_mtok("0.37", "1.93", None)  # as `config` sets it
SLOW = Answer(text=" ".join(["word"] * 10), token_delay_s=0.01)
HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))


async def true_nano(upstream: UpstreamProcess) -> int:
    """Return what all tokens made so far cost, rounded down."""
    records = await upstream.records()
    prompt, made = sum(r.prompt_tokens for r in records), sum(r.total_tokens for r in records)
    return max(0, PRICE.worst_nano(prompt, made) - 1)


async def until_it_answers(served: Served) -> None:
    """Ask until the proxy buys again."""
    async with asyncio.timeout(60):
        while (await served.chat("one")).status != 200:  # noqa: ASYNC110 - it is asked each time
            await asyncio.sleep(0.05)


def refused(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.status == 503]


async def test_a_database_that_dies_mid_run_sells_nothing_and_loses_nothing(
    upstream: UpstreamProcess, postgres: Server, database: str, tmp_path: Path
) -> None:
    await upstream.script("m", SLOW, rules=(HELD,))
    file = config(tmp_path, upstream.base_url, ROUTES, store=database)
    going = True
    replies: list[Reply] = []

    async def ask(number: int) -> None:
        while going:
            route = ("one", "vote")[number % 2]
            replies.append(await served.chat(route, "hi", stream=number % 4 > 1))

    async with serving(tmp_path, "--config", file) as served:
        held = asyncio.create_task(served.chat("one", "hold"))
        await upstream.wait("running", equals=1)
        asking = [asyncio.create_task(ask(i)) for i in range(12)]
        await soon(lambda: len(replies) > 20, "it is in full swing", 30)
        await asyncio.to_thread(postgres.stop)
        await soon(lambda: bool(refused(replies)), "requests are refused", 30)
        assert (await served.get("/readyz")).status == 503
        assert (await served.get("/livez")).status == 200
        sent = 0
        for _ in range(2):
            before, sent = sent, len(await upstream.records())
            down = [await served.chat("vote", stream=i % 2 == 0) for i in range(4)]
            assert {reply.status for reply in down} == {503}
        assert before == sent
        # What ran when it died comes to its end, and is settled when it can be.
        await upstream.release("gate")
        assert (await held).status == 200
        assert len(await upstream.records()) == sent
        await asyncio.to_thread(postgres.start)
        await until_it_answers(served)
        going = False
        await asyncio.gather(*asking)
        await soon(lambda: reserved(database) == 0, "nothing is reserved", 30)
        assert (await served.get("/readyz")).status == 200

    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) == {200, 503}
    assert all(reply.headers["retry-after"] for reply in refused(replies))
    # Nothing was sent without a row, and what was sent is paid: to the last call.
    known = {row["call_id"] for row in rows(database)}
    assert {record.request_id for record in await upstream.records()} <= known
    assert await true_nano(upstream) <= spent(database)


async def test_a_proxy_that_is_cut_off_from_the_database_buys_nothing_and_comes_back(
    upstream: UpstreamProcess, database: str, tmp_path: Path
) -> None:
    """Its calls are ended by another one meanwhile, which it finds out when it is back."""
    await upstream.script("m", SLOW, rules=(HELD,))
    other = tmp_path / "other"
    other.mkdir()
    records = ", records: true"
    await (await PostgresLedger.open(database)).close()
    await execute(database, "UPDATE samplewise.meta SET value = 3000 WHERE name = 'lease_ms'")
    direct = config(other, upstream.base_url, ROUTES, backend=records, store=database)
    async with Relay.open(database) as relay, serving(other, "--config", direct):
        file = config(tmp_path, upstream.base_url, ROUTES, backend=records, store=relay.url)
        async with serving(tmp_path, "--config", file) as served:
            held = asyncio.create_task(served.chat("one", "hold"))
            await upstream.wait("running", equals=1)
            relay.freeze()
            waiting = asyncio.create_task(served.chat("one"))
            await relay.waiting.wait()
            await soon(lambda: rows(database)[0]["taken_at"] is not None, "it is taken over", 30)
            await upstream.release("gate")
            await soon(lambda: rows(database)[0]["state"] == "recovered", "it is ended", 30)
            relay.thaw()
            assert (await held).status == 200
            assert (await waiting).status in (200, 503)
            await until_it_answers(served)
            await soon(lambda: reserved(database) == 0, "nothing is reserved", 30)
            assert any(event["event"].startswith("the lease ran out") for event in served.logs)
    first = min(rows(database), key=lambda row: int(row["held_at"]))
    assert (first["state"], first["usage_source"]) == ("recovered", "reconciled")
    prompt, made = (
        sum(int(row[name]) for row in rows(database))
        for name in ("prompt_tokens", "completion_tokens")
    )
    true = await upstream.records()
    assert prompt == sum(record.prompt_tokens for record in true)
    assert made == sum(record.total_tokens for record in true)
