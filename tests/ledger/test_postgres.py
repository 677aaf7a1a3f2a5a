"""The PostgreSQL ledger: its rules under races, crashes of the server and cancelled callers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

import samplewise
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.accounts import window_starts
from samplewise.proxy.ledger.base import Grant
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.postgres_schema import MIGRATIONS
from tests.ledger import worker
from tests.ledger.kit import (
    NOON,
    account,
    check_sums,
    hold,
    nano_of,
    released,
    spent,
    wave,
)
from tests.ledger.pg import Server, execute
from tests.ledger.test_processes import said, workers

DAILY = account("alice", nano=1_000)


@pytest_asyncio.fixture
async def ledger(database: str) -> AsyncIterator[PostgresLedger]:
    ledger = await PostgresLedger.open(database)
    yield ledger
    await ledger.close()


@pytest.fixture
def own_server(postgres: Server) -> Server:
    """The server, which a test may stop: it runs again for the next."""
    return postgres


async def test_processes_that_share_a_limit_reserve_exactly_what_it_allows(database: str) -> None:
    limit = 200 * worker.NANO + worker.NANO - 1
    await (await PostgresLedger.open(database)).close()
    with workers(database, "hold", limit, 4) as processes:
        heard = await asyncio.gather(*(asyncio.to_thread(said, one) for one in processes))
    assert sum(map(len, heard)) == 200
    sums = "SELECT count(*), sum(nano_held)::bigint FROM samplewise.reservations"
    assert await execute(database, sums) == [(200, 200 * worker.NANO)]


async def test_processes_that_settle_are_never_above_their_limit(database: str) -> None:
    limit = 100_000
    ledger = await PostgresLedger.open(database)
    watched = worker.ACCOUNTS[:1]
    with workers(database, "spend", limit, 4) as processes:
        listening = asyncio.gather(*(asyncio.to_thread(said, one) for one in processes))
        while not listening.done():
            (balance,) = await ledger.balances(watched)
            assert (balance.spent.nano or 0) + (balance.reserved.nano or 0) <= limit
        nanos = [int(line) for lines in await listening for line in lines]
    (balance,) = await ledger.balances(watched)
    assert (balance.spent.nano, balance.reserved.nano) == (sum(nanos), 0)
    await check_sums(ledger)
    await ledger.close()


async def test_a_server_that_crashes_grants_nothing_and_is_used_again(
    ledger: PostgresLedger, own_server: Server
) -> None:
    endless = account("alice")
    granted: list[str] = []
    refused: list[str] = []

    async def buy(name: str) -> None:
        for number in range(10_000):
            try:
                await ledger.reserve(wave(endless, ids=[f"{name}.{number}"]))
            except StoreError as error:
                refused.append(str(error))
                return
            granted.append(f"{name}.{number}")

    buying = [asyncio.create_task(buy(str(i))) for i in range(8)]
    while len(granted) < 40:  # noqa: ASYNC110 - until it is in full swing
        await asyncio.sleep(0.01)
    await asyncio.to_thread(own_server.stop)
    await asyncio.gather(*buying)
    assert all("postgresql://test@127.0.0.1" in text for text in refused)
    assert len(refused) == 8
    with pytest.raises(StoreError, match="Check that the server runs"):
        await ledger.reserve(wave(endless, ids=["down"]))
    with pytest.raises(StoreError, match="cannot be used"):
        await ledger.settle([spent(granted[0], 40)])
    with pytest.raises(StoreError, match="wait to be written: 2"):
        await ledger.settle([spent(granted[1], 60), spent(granted[0], 70)])
    assert ledger.stats.kept == 2
    await asyncio.to_thread(own_server.start)
    while ledger.stats.kept:  # noqa: ASYNC110 - alone, with nobody asking
        await asyncio.sleep(0.01)
    assert await ledger.open_rows() == len(granted) - 2
    assert await nano_of(ledger, DAILY) == (100, 100 * (len(granted) - 2))
    await ledger.settle([released(id_) for id_ in granted])
    assert await nano_of(ledger, DAILY) == (100, 0)
    await check_sums(ledger)


async def test_a_restart_while_nothing_is_asked_is_not_noticed(
    ledger: PostgresLedger, own_server: Server
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    assert await ledger.reserve(wave(DAILY, ids=["b"])) == Grant(1)
    assert await nano_of(ledger, DAILY) == (0, 200)


async def stopped(database: str) -> asyncpg.Connection:
    """Hold every batch at its first step, until what is returned is closed."""
    db = await asyncpg.connect(database)
    await db.execute("BEGIN; LOCK TABLE samplewise.counters IN EXCLUSIVE MODE")
    return db


@pytest.mark.parametrize("started", [True, False])
async def test_a_cancelled_reserve_holds_nothing(
    ledger: PostgresLedger, database: str, started: bool
) -> None:
    blocker = await stopped(database)
    first = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["first"])))
    if not started:
        await asyncio.sleep(0.05)  # the writer is at work on the first, the next one is queued
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=list("abcde"))))
    await asyncio.sleep(0.05)
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    await blocker.close()
    assert await first == Grant(1)
    assert await nano_of(ledger, DAILY) == (0, 100)
    assert ledger.stats.unknown == 0
    await check_sums(ledger)


async def test_a_reserve_cancelled_between_commit_and_answer_holds_nothing(
    ledger: PostgresLedger,
) -> None:
    async def cancel() -> None:
        await ledger.settle([])
        reserving.cancel()

    cancelling = asyncio.ensure_future(cancel())
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["a"])))
    await cancelling
    with pytest.raises(asyncio.CancelledError):
        await reserving
    assert await nano_of(ledger, DAILY) == (0, 0)


async def test_a_batch_whose_answer_was_lost_is_known_afterwards(
    ledger: PostgresLedger, database: str
) -> None:
    """Its connection is cut while it waits: the batch is done once, or not at all."""
    blocker = await stopped(database)
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["a"])))
    await asyncio.sleep(0.1)
    await execute(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%.work(%'"
        " AND pid <> pg_backend_pid()",
    )
    await asyncio.sleep(0.1)
    await blocker.close()
    assert await reserving == Grant(1)
    assert await nano_of(ledger, DAILY) == (0, 100)
    await check_sums(ledger)


async def test_settlements_are_queued_in_order_when_settle_returns(ledger: PostgresLedger) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    ledger.settle([spent("a", 40)]).cancel()
    ledger.settle([spent("a", 50)])
    assert await nano_of(ledger, DAILY) == (40, 0)


async def test_one_impossible_operation_fails_alone(ledger: PostgresLedger) -> None:
    jobs = [
        ledger.reserve(wave(DAILY, ids=["0"])),
        ledger.reserve(wave(DAILY, holds=[hold("x", 1.5)])),  # type: ignore[arg-type]
        ledger.reserve(wave(DAILY, ids=["\ud800"])),
        ledger.reserve(wave(DAILY, ids=["1"])),
    ]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert outcomes[0] == outcomes[3] == Grant(1)
    assert isinstance(outcomes[1], StoreError)
    assert isinstance(outcomes[2], StoreError)
    assert await nano_of(ledger, DAILY) == (0, 200)


async def test_windows_start_as_they_do_elsewhere(ledger: PostgresLedger, database: str) -> None:
    for now in [NOON, NOON + 11 * 3_600_000, 1_767_225_600_001, 1_767_225_599_999, 951_782_400_000]:
        ((found,),) = await execute(
            database,
            "SET timezone = 'Pacific/Kiritimati'",
            "SELECT array[(w->>'minute')::bigint, (w->>'hour')::bigint, (w->>'day')::bigint,"
            " (w->>'month')::bigint, (w->>'total')::bigint]"
            f" FROM samplewise.window_starts({now}) AS w",
        )
        assert found == list(window_starts(now).values())


async def test_closing_says_what_could_not_be_written(database: str, own_server: Server) -> None:
    ledger = await PostgresLedger.open(database)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await asyncio.to_thread(own_server.stop)
    try:
        ledger.settle([spent("a", 40)]).cancel()
        with pytest.raises(StoreError, match="wait to be written: 1"):
            await ledger.close()
        with pytest.raises(StoreError, match="Check that the server runs"):
            await PostgresLedger.open(database)
    finally:
        await asyncio.to_thread(own_server.start)


async def test_a_newer_schema_and_a_strange_one_are_refused(database: str) -> None:
    await (await PostgresLedger.open(database)).close()
    await execute(database, "UPDATE samplewise.meta SET value = 9 WHERE name = 'schema'")
    with pytest.raises(
        StoreError, match=f"schema version 9, this Samplewise knows {len(MIGRATIONS)}"
    ):
        await PostgresLedger.open(database)
    await execute(
        database, "DROP SCHEMA samplewise CASCADE", "CREATE SCHEMA samplewise",
        "CREATE TABLE samplewise.mine (x int)",
    )  # fmt: skip
    with pytest.raises(StoreError, match="is not a Samplewise ledger"):
        await PostgresLedger.open(database)


async def test_tables_that_vanished_are_not_made_anew(
    ledger: PostgresLedger, database: str
) -> None:
    await execute(database, "DROP SCHEMA samplewise CASCADE")
    with pytest.raises(StoreError):
        await ledger.reserve(wave(DAILY, ids=["a"]))
    with pytest.raises(StoreError, match="is gone"):
        await ledger.reserve(wave(DAILY, ids=["a"]))


def test_without_the_extra_the_message_says_what_to_install() -> None:
    program = (
        "import sys, asyncio; sys.modules['asyncpg'] = None\n"
        "from samplewise.proxy.build import preflight\n"
        "from samplewise.proxy.config import Config\n"
        "asyncio.run(preflight(Config(store='postgresql://u@h/db')))"
    )
    source = Path(samplewise.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert "ConfigError: store: PostgreSQL needs the extra: pip install" in done.stderr


async def test_many_open_an_empty_database_at_once(database: str) -> None:
    ledgers = await asyncio.gather(*(PostgresLedger.open(database) for _ in range(6)))
    found = await asyncio.gather(
        *(
            one.reserve(wave(DAILY, ids=[f"{i}.{n}" for n in range(3)]))
            for i, one in enumerate(ledgers)
        )
    )
    assert sum(grant.bundles for grant in found) == 10
    for one in ledgers:
        await one.close()
