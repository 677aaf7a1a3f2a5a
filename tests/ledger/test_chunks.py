"""Room that one process leases: never more than the limit, never lost, never kept for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import Account, Limit, Scope, Window
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres import PostgresLedger
from tests.ledger import worker
from tests.ledger.kit import account, check_sums, nano_of, spent, wave
from tests.ledger.pg import execute, let_run_out
from tests.ledger.test_processes import said, workers
from tests.wire.books import soon

LIMIT = 100_000
ONE = account(nano=LIMIT)  # a row of a test holds 100


@asynccontextmanager
async def opened(url: str, chunks: Chunks | None = None) -> AsyncIterator[PostgresLedger]:
    ledger = await PostgresLedger.open(url, chunks=chunks)
    try:
        yield ledger
    finally:
        await ledger.close()


def eager(size_nano: int = 10**6, seconds: float = 600.0, most: int = 32) -> Chunks:
    """Return what leases at the first touch; a chunk is good for `most` such waves."""
    return Chunks(size_nano, hot=0, most=most, seconds=seconds)


async def main_nano(url: str) -> int:
    """Return what the counter that all share has spent and reserved."""
    columns = "coalesce(sum(spent_nano + reserved_nano), 0)::bigint"
    sql = f"SELECT {columns} FROM samplewise.counters WHERE scope = 'key' AND name = 'alice'"
    ((found,),) = await execute(url, sql)
    return int(str(found))


async def leased(url: str) -> int:
    ((found,),) = await execute(url, "SELECT count(*) FROM samplewise.chunks")
    return int(str(found))


async def test_a_chunk_is_reserved_for_all_and_counted_once(database: str) -> None:
    async with opened(database, eager()) as one, opened(database) as other:
        assert (await one.reserve(wave(ONE, ids=["a"]))).bundles == 1
        assert await main_nano(database) == 100 + 3_200  # the row, and 32 more
        for number in range(8):
            await one.reserve(wave(ONE, ids=[f"b{number}"]))
            await one.settle([spent(f"b{number}", 70)])
        await one.settle([spent("a", 30)])
        # The counter that all share was not touched, and what is shown is exact all the same.
        assert await main_nano(database) == 100 + 3_200
        assert await nano_of(other, ONE) == (8 * 70 + 30, 0)
        await check_sums(one)
    assert await leased(database) == 0
    assert await main_nano(database) == 8 * 70 + 30


async def test_every_last_row_that_fits_is_granted(database: str) -> None:
    async with opened(database, eager()) as ledger:
        granted = 0
        while (await ledger.reserve(wave(ONE, ids=[f"r{granted}"]))).bundles:
            granted += 1
            assert await main_nano(database) <= LIMIT
        assert granted == LIMIT // 100
        assert await nano_of(ledger, ONE) == (0, LIMIT)
        await check_sums(ledger)


async def test_room_that_another_process_leases_comes_back_in_time(database: str) -> None:
    async with opened(database, eager(seconds=0.2)) as idle, opened(database) as other:
        await idle.reserve(wave(ONE, ids=["a"]))
        assert await leased(database) == 1
        everything = (LIMIT - 100) // 100
        grant = await other.reserve(wave(ONE, ids=[f"o{n}" for n in range(everything)]))
        assert grant.bundles < everything

        async def fits() -> bool:
            rest = everything - grant.bundles
            return (await other.reserve(wave(ONE, ids=["last"]))).bundles == 1 and rest > 0

        await soon(fits, "the idle process has given back what it did not use")
        assert await leased(database) == 0


async def test_another_limit_counts_at_once(database: str) -> None:
    lower = account(nano=500)
    async with opened(database, eager()) as ledger:
        for number in range(5):
            await ledger.reserve(wave(ONE, ids=[f"a{number}"]))
        assert await leased(database) == 1
        assert (await ledger.reserve(wave(lower, ids=["b"]))).bundles == 0
        assert await leased(database) == 0
        assert await main_nano(database) == 500
        assert (await ledger.reserve(wave(ONE, ids=["c"]))).bundles == 1


async def test_what_costs_more_than_a_chunk_is_an_overrun_of_all(database: str) -> None:
    async with opened(database, eager()) as ledger:
        await ledger.reserve(wave(ONE, ids=["a", "b"]))
        await ledger.settle([spent("a", 50_000)])
        assert await main_nano(database) >= 50_000 + 100
        (balance,) = await ledger.balances([ONE])
        assert (balance.spent.nano, balance.overrun_nano) == (50_000, 49_900)
        await check_sums(ledger)


async def test_a_counter_that_is_seldom_used_is_not_leased(database: str) -> None:
    async with opened(database, Chunks(10**6, clock=lambda: 5.0)) as ledger:
        for number in range(8):
            await ledger.reserve(wave(ONE, ids=[f"a{number}"]))
        assert await leased(database) == 0
        await ledger.reserve(wave(ONE, ids=["more"]))
        assert await leased(database) == 1


async def test_rates_and_minutes_are_never_leased(database: str) -> None:
    rate = Account(Scope.REQUESTS, "alice", Window.DAY, Limit(samples=5))
    minute = account(window=Window.MINUTE, nano=LIMIT)
    async with opened(database, eager()) as ledger:
        assert (await ledger.reserve(wave(rate, minute, ids=["a"]))).bundles == 1
        assert await leased(database) == 0


async def test_a_chunk_too_small_to_pay_is_not_taken(database: str) -> None:
    async with opened(database, eager(size_nano=399)) as ledger:
        await ledger.reserve(wave(ONE, ids=["a"]))
        assert await leased(database) == 0


async def test_who_is_dead_leaves_no_chunk_behind(database: str) -> None:
    with workers(database, "forever", 20, chunks=True) as (process,):
        assert process.stdout
        heard = [process.stdout.readline() for _ in range(200)]
        process.kill()
        heard += said(process)
    assert await leased(database) == 2
    async with opened(database) as heir:
        await let_run_out(database, 1)
        found = await heir.orphans()
        assert await leased(database) == 0
        ended = {line.split()[1] for line in heard if line.startswith("settled")}
        assert found
        assert ended.isdisjoint(row.id for row in found)
        for balance in await heir.balances(worker.ACCOUNTS):
            assert balance.reserved.nano == len(found) * worker.NANO
        await heir.settle([spent(row.id, 1) for row in found])
        for balance in await heir.balances(worker.ACCOUNTS):
            assert balance.reserved == Limit(0, 0, 0)
        await check_sums(heir)


async def test_processes_with_chunks_are_never_above_their_limit(database: str) -> None:
    limit = 400_000
    async with opened(database) as ledger:
        with workers(database, "spend", limit, 4, chunks=True) as processes:
            listening = asyncio.gather(*(asyncio.to_thread(said, one) for one in processes))
            most = 0
            while not listening.done():
                assert await main_nano(database) <= limit
                most = max(most, await leased(database))
            nanos = [int(line) for lines in await listening for line in lines]
            codes = [process.wait() for process in processes]
        assert codes == [0] * 4
        assert most > 0
        (balance,) = await ledger.balances(worker.ACCOUNTS[:1])
        assert balance.spent.nano == sum(nanos) <= limit
        assert sum(nanos) > 0.9 * limit
        assert balance.reserved == Limit(0, 0, 0)
        assert await leased(database) == 0
        await check_sums(ledger)


async def test_who_was_taken_for_dead_begins_anew_without_chunks(database: str) -> None:
    async with opened(database, eager()) as one, opened(database) as other:
        await one.reserve(wave(ONE, ids=["a"]))
        await let_run_out(database, 1)
        await other.orphans()
        assert await leased(database) == 0
        with pytest.raises(StoreError):
            await one.dispatch(["a"])
        assert (await one.reserve(wave(ONE, ids=["b"]))).bundles == 1
        await check_sums(one)
