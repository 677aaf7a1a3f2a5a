"""Leases of the PostgreSQL ledger: who is silent for too long is dead, and stays so."""

from __future__ import annotations

import asyncio

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import Grant, Settlement, State, UsageSource
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.postgres_jobs import Job
from samplewise.proxy.ledger.postgres_writer import Writer
from tests.ledger.kit import account, check_sums, nano_of, spent, wave
from tests.ledger.pg import execute, let_run_out
from tests.ledger.relay import Relay
from tests.ledger.test_processes import workers

DAILY = account("alice", nano=1_000)
# Ends the connection that did the last batch.
CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE query LIKE '%samplewise.work(%' AND pid <> pg_backend_pid()"
)
WRITERS = "SELECT epoch, lease_until FROM samplewise.writers ORDER BY epoch"


async def booked(ledger: PostgresLedger) -> list[str]:
    """Take over everything and book it at its worst, as recovery does."""
    found = await ledger.orphans()
    source, state = UsageSource.WORST_CASE, State.RECOVERED
    await ledger.settle([Settlement(row.id, row.nano, source=source, state=state) for row in found])
    return [row.id for row in found]


async def test_rows_of_a_killed_process_are_orphans_when_its_lease_has_run_out(
    database: str,
) -> None:
    ledger = await PostgresLedger.open(database)
    with workers(database, "forever", 3) as (process,):
        assert process.stdout
        for _ in range(20):
            await asyncio.to_thread(process.stdout.readline)
        process.kill()
        process.wait()
    assert await ledger.open_rows() > 0
    assert await ledger.orphans() == []
    await let_run_out(database, 2)
    assert await booked(ledger)
    assert await ledger.open_rows() == 0
    await check_sums(ledger)
    await ledger.close()


async def test_a_lease_is_renewed_while_nothing_is_asked(database: str) -> None:
    await (await PostgresLedger.open(database)).close()
    await execute(database, "UPDATE samplewise.meta SET value = 1500 WHERE name = 'lease_ms'")
    ledger = await PostgresLedger.open(database)
    seen: set[tuple[object, ...]] = set()
    async with asyncio.timeout(20):
        while len(seen) < 4:
            seen |= set(await execute(database, WRITERS))
    assert len({epoch for epoch, _ in seen}) == 1
    await ledger.close()
    assert await execute(database, WRITERS) == []


async def test_who_has_just_come_calls_nobody_dead(database: str) -> None:
    """After an outage of the database all leases have run out, and all may come back."""
    first = await PostgresLedger.open(database)
    await first.reserve(wave(DAILY, ids=["a"]))
    second = await PostgresLedger.open(database)
    await execute(database, "UPDATE samplewise.writers SET lease_until = 0 WHERE epoch = 1")
    assert await second.orphans() == []
    await execute(database, "UPDATE samplewise.writers SET since = 0 WHERE epoch = 2")
    assert [row.id for row in await second.orphans()] == ["a"]
    await first.close()
    await second.close()


async def test_who_was_cut_off_begins_anew_and_what_it_settles_late_changes_nothing(
    database: str,
) -> None:
    async with Relay.open(database) as relay:
        cut_off = await PostgresLedger.open(relay.url)
        await cut_off.reserve(wave(DAILY, ids=["a", "b"]))
        await cut_off.reserve(wave(DAILY, ids=["held"], dispatched=False))
        other = await PostgresLedger.open(database)
        relay.freeze()
        settling = cut_off.settle([spent("a", 40)])
        reserving = asyncio.ensure_future(cut_off.reserve(wave(DAILY, ids=["c"])))
        await relay.waiting.wait()
        await let_run_out(database, 1)
        assert await booked(other) == ["a", "b"]
        relay.thaw()
        await settling
        assert await reserving == Grant(1)
        with pytest.raises(StoreError, match="must not be sent: the ledger has it as released"):
            await cut_off.dispatch(["held"])
        await cut_off.settle([spent("b", 40)])
        assert await nano_of(other, DAILY) == (200, 100)
        assert await execute(
            database, "SELECT owner_epoch FROM samplewise.reservations WHERE id = 'c'"
        ) == [(3,)]
        assert await booked(other) == []
        await cut_off.settle([spent("c", 10)])
        assert await nano_of(other, DAILY) == (210, 0)
        await check_sums(other)
        await cut_off.close()
        await other.close()


async def test_a_row_that_was_taken_over_is_not_sent_even_before_it_is_released(
    database: str,
) -> None:
    ledger, other = await PostgresLedger.open(database), await PostgresLedger.open(database)
    await ledger.reserve(wave(DAILY, ids=["a"], dispatched=False))
    await let_run_out(database, 1)
    await execute(database, "SELECT samplewise.take_over(2)")
    with pytest.raises(StoreError, match="must not be sent: the ledger has it as taken over"):
        await ledger.dispatch(["a"])
    assert await other.orphans() == []
    assert await nano_of(other, DAILY) == (0, 0)
    await ledger.close()
    await other.close()


async def test_what_was_taken_over_before_its_answer_came_is_not_granted(database: str) -> None:
    async with Relay.open(database) as relay:
        cut_off = await PostgresLedger.open(relay.url)
        other = await PostgresLedger.open(database)
        await cut_off.reserve(wave(ids=["ready"]))  # from now on a batch is one question
        relay.answered.clear()
        reserving = asyncio.ensure_future(cut_off.reserve(wave(DAILY, ids=["a"])))
        await relay.waiting.wait()
        await let_run_out(database, 1)
        assert await booked(other) == ["a", "ready"]
        relay.cut()
        relay.thaw()
        with pytest.raises(StoreError, match="in the ledger already"):
            await reserving
        assert await cut_off.reserve(wave(DAILY, ids=["b"])) == Grant(1)
        assert await nano_of(other, DAILY) == (100, 100)
        await cut_off.close()
        await other.close()


async def test_orphans_whose_answer_was_lost_are_returned_again(database: str) -> None:
    async with Relay.open(database) as relay:
        ledger = await PostgresLedger.open(relay.url)
        assert await ledger.orphans() == []  # from now on it is one question
        before = await PostgresLedger.open(database)
        await before.reserve(wave(DAILY, ids=["a"]))
        await before.close()
        relay.answered.clear()
        asking = asyncio.ensure_future(ledger.orphans())
        await relay.waiting.wait()
        relay.cut()
        relay.thaw()
        assert [row.id for row in await asking] == ["a"]
        assert [row.id for row in await ledger.orphans()] == ["a"]
        assert await booked(ledger) == ["a"]
        assert await ledger.orphans() == []
        await ledger.close()


async def test_who_asks_for_orphans_but_is_dead_itself_begins_anew(database: str) -> None:
    dead = await PostgresLedger.open(database)
    other = await PostgresLedger.open(database)
    await dead.reserve(wave(DAILY, ids=["a"]))
    await let_run_out(database, 1)
    assert await booked(other) == ["a"]
    assert await dead.orphans() == []
    assert [epoch for epoch, _ in await execute(database, WRITERS)] == [2, 3]
    await dead.close()
    await other.close()


async def test_who_stood_still_for_a_lease_sends_nothing(database: str) -> None:
    ledger = await PostgresLedger.open(database)
    await ledger.reserve(wave(DAILY, ids=["held"], dispatched=False))
    await ledger.close()
    await execute(database, "UPDATE samplewise.meta SET value = 0 WHERE name = 'lease_ms'")
    ledger = await PostgresLedger.open(database)  # its lease is over as soon as it is given
    with pytest.raises(StoreError, match="stood still for longer than its lease"):
        await ledger.reserve(wave(DAILY, ids=["a"]))
    with pytest.raises(StoreError, match="stood still for longer than its lease"):
        await ledger.dispatch(["held"])
    assert await nano_of(ledger, DAILY) == (0, 100)
    await ledger.close()


async def test_a_read_that_is_tried_again_does_no_write_again(database: str) -> None:
    ledger = await PostgresLedger.open(database)
    writer = Writer(database, None)
    await writer.begin()
    cut = iter([True, False])

    async def read(db: object) -> str:
        if next(cut):
            await execute(database, CUT)
        return str(await db.fetchval("SELECT 'read'"))  # type: ignore[attr-defined]

    one = PostgresLedger(writer)
    reserving = asyncio.ensure_future(one.reserve(wave(DAILY, ids=["a"])))
    await asyncio.sleep(0)
    assert await writer.submit(Job("read", read=read)) == "read"
    assert await reserving == Grant(1)
    assert await nano_of(ledger, DAILY) == (0, 100)
    await one.close()
    await ledger.close()
