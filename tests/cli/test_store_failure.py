"""A ledger that cannot be written while a server runs: nothing is bought, or loudly uncounted."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest

from samplewise.policies.price import NANO
from tests.cli.broken_disk import BREAKAGES, gone, own_disk
from tests.cli.served import Served, config, serving
from tests.upstream import Answer, Record, Rule, UpstreamProcess
from tests.wire.books import Series, reserved, rows, series, soon, spent, total

HELD = Rule(contains="hold", answers=(Answer(text="a b c", hold="gate", hold_after=1),))
ROUTES = """
  one: {backends: [local], max_tokens: 10}
  vote: {backends: [local], policy: 'majority_vote:3', max_tokens: 10}
  poor: {backends: [local], max_tokens: 10, budget: {usd_per_request: 0.000001}}
"""
QUIET = ", log_level: error"


def cost(records: list[Record]) -> int:
    return sum(370 * r.prompt_tokens + 1930 * r.total_tokens for r in records)


async def page(served: Served) -> Series:
    return series((await served.get("/metrics")).body.decode())


async def back(served: Served) -> None:
    """Wait until requests are answered and counted again; without a restart."""

    async def answered() -> bool:
        reply = await served.chat("one", "back again")
        return reply.status == 200 and not reply.said["warnings"]

    await soon(answered, "the ledger works again")


@pytest.mark.parametrize("how", BREAKAGES)
async def test_while_the_ledger_fails_nothing_is_bought_and_then_all_goes_on(
    upstream: UpstreamProcess, tmp_path: Path, how: str
) -> None:
    await upstream.script("m", "it is 4", rules=(HELD,))
    # On its own disk only where that is to be filled: others need a real file system.
    folder = tmp_path / "disk"
    folder.mkdir()
    with own_disk(folder) if how == "full" else nullcontext():
        ledger = folder / "ledger.db"
        file = config(folder, upstream.base_url, ROUTES, QUIET)
        async with serving(tmp_path, "--config", file) as served:
            assert (await served.chat("vote")).status == 200
            running = asyncio.create_task(served.chat("one", "hold"))
            await upstream.wait("held", equals=1)
            sent = len(await upstream.records())
            with BREAKAGES[how](served, ledger):
                asks = [served.chat(("one", "vote")[i % 2], stream=i % 3 == 0) for i in range(12)]
                replies = await asyncio.gather(*asks)
                assert {reply.status for reply in replies} == {503}
                assert {reply.error["code"] for reply in replies} == {"ledger_unavailable"}
                assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
                assert len(await upstream.records()) == sent
                # What was on its way comes to its end, and is settled later.
                await upstream.release("gate")
                assert (await running).text == "a b c"
            await back(served)
        records = await upstream.records()
        found = rows(ledger)
        assert {record.request_id for record in records} == {row["call_id"] for row in found}
        assert reserved(ledger) == 0
        assert spent(ledger) == cost(records)


async def test_serve_unmetered_answers_within_the_requests_own_limit_and_says_so(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4")
    ledger = tmp_path / "ledger.db"
    relaxed = "store_failure: serve_unmetered\n"
    file = config(tmp_path, upstream.base_url, ROUTES, QUIET, extra=relaxed)
    async with serving(tmp_path, "--config", file) as served:
        [warning] = [line for line in served.said if "warning: store_failure" in line]
        assert "count in no limit" in warning
        assert "no usd_per_request bounds one of one, vote either" in warning
        before = await served.chat("vote")
        assert before.said["warnings"] == []
        counted = spent(ledger)
        with gone(served, ledger):
            plain, streamed = await served.chat("vote"), await served.chat("vote", stream=True)
            for said in (plain.said, streamed.events[-1]["samplewise"]):
                assert "counts in no limit but the request's own" in said["warnings"][-1]
                assert said["samples"]["drawn"] == 3
            assert (await served.chat("poor")).status == 402
            assert (await served.get("/readyz")).status == 200
            found = await page(served)
            assert total(found, "samplewise_serving_unmetered") == 1
            assert total(found, "samplewise_unmetered_samples_total", route="vote") == 6
            missing = total(found, "samplewise_unmetered_cost_usd_total") * NANO
            errors = [event for event in served.logs if event["level"] == "error"]
            # Once a minute, not for every request.
            assert [event["event"][:33] for event in errors] == [
                "the ledger cannot be reached: req"
            ]
        await back(served)
        found = await page(served)
        assert total(found, "samplewise_serving_unmetered") == 0
        assert any("the ledger works again" in event["event"] for event in served.logs)
    records = await upstream.records()
    assert round(missing) == cost(records) - spent(ledger) > 0
    assert spent(ledger) > counted
    assert reserved(ledger) == 0


async def test_what_waited_for_its_turn_when_the_ledger_failed_is_sent_and_settled_later(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", rules=(HELD,))
    ledger = tmp_path / "ledger.db"
    relaxed = "store_failure: serve_unmetered\n"
    one = ", max_in_flight: 1"
    file = config(tmp_path, upstream.base_url, ROUTES, QUIET, backend=one, extra=relaxed)
    async with serving(tmp_path, "--config", file) as served:
        first = asyncio.create_task(served.chat("one", "hold"))
        await upstream.wait("held", equals=1)
        second = asyncio.create_task(served.chat("one", "then"))
        await soon(lambda: len(rows(ledger)) == 2, "both are reserved")
        with gone(served, ledger):
            await upstream.release("gate")
            assert {(await first).status, (await second).status} == {200}
        await back(served)
    assert reserved(ledger) == 0
    assert spent(ledger) == cost(await upstream.records())
