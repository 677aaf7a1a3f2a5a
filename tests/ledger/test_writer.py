"""The writer thread: one commit for many, nobody's error but one's own, nothing lost on the way."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.base import Grant, Settlement, Wave
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import (
    Clock,
    Disk,
    account,
    check_sums,
    content,
    hold,
    nano_of,
    released,
    rows,
    spent,
    wave,
)

DAILY = account("alice", nano=1_000)


async def stop_writer(ledger: SqliteLedger, clock: Clock) -> asyncio.Future[int]:
    """Hold the writer inside a batch, so that what is asked for next is queued behind it."""
    clock.stop()
    first = asyncio.ensure_future(ledger.open_rows())
    await asyncio.to_thread(clock.reached.wait)
    return first


async def settled(ledger: SqliteLedger, *ends: Settlement) -> None:
    """Settle when this is run: `settle` itself queues as soon as it is called."""
    await ledger.settle(ends)


def commits(disk: Disk) -> int:
    return sum(statement == "COMMIT" for statement in disk.statements)


async def test_one_commit_serves_all_that_waits(
    ledger: SqliteLedger, clock: Clock, disk: Disk
) -> None:
    first = await stop_writer(ledger, clock)
    reserving = [asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=[str(i)]))) for i in range(9)]
    await asyncio.sleep(0)
    before = commits(disk)
    clock.go()
    await asyncio.gather(first, *reserving)
    assert commits(disk) - before == 2  # of the batch that was stopped, and of everything behind it
    assert ledger.stats.operations == 10  # and one to open the ledger
    assert await nano_of(ledger, DAILY) == (0, 900)


async def test_a_batch_of_any_size_takes_a_few_statements(
    ledger: SqliteLedger, clock: Clock, disk: Disk
) -> None:
    first = await stop_writer(ledger, clock)
    everyone = [account(f"key {i}") for i in range(60)]
    jobs = [
        asyncio.ensure_future(ledger.reserve(wave(one, ids=[one.name]))) for one in everyone
    ] + [asyncio.ensure_future(settled(ledger, spent(one.name, 1))) for one in everyone]
    await asyncio.sleep(0)
    disk.statements.clear()
    clock.go()
    await asyncio.gather(first, *jobs)
    assert len(disk.statements) <= 12
    await check_sums(ledger)


async def test_operations_of_one_batch_apply_in_the_order_they_were_asked_for(
    ledger: SqliteLedger, clock: Clock
) -> None:
    first = await stop_writer(ledger, clock)
    waves = [wave(DAILY, holds=[hold(f"{i}", 700)], dispatched=False) for i in range(3)]
    jobs = [
        asyncio.ensure_future(job)
        for job in (
            ledger.reserve(waves[0]),
            ledger.reserve(waves[1]),
            ledger.dispatch(["0"]),
            settled(ledger, spent("0", 200)),
            ledger.reserve(waves[2]),
            settled(ledger, spent("0", 300)),
        )
    ]
    await asyncio.sleep(0)
    clock.go()
    outcomes = await asyncio.gather(first, *jobs)
    assert outcomes[1:] == [Grant(1), Grant(0, DAILY), None, None, Grant(1), None]
    assert await nano_of(ledger, DAILY) == (200, 700)
    await check_sums(ledger)


def broken_waves() -> list[Wave]:
    return [
        wave(DAILY, ids=["0"]),
        wave(DAILY, ids=["\ud800"]),
        wave(account("\ud800"), ids=["surrogate"]),
        Wave("req", "\ud800", "alice", (DAILY,), ((hold("route"),),)),
        wave(DAILY, holds=[hold("float", 1.5)]),  # type: ignore[arg-type]
        Wave("req", "math", None, (DAILY,), ((hold("null"),),)),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("number", range(len(broken_waves())))
async def test_one_impossible_operation_fails_alone(
    ledger: SqliteLedger, clock: Clock, number: int
) -> None:
    broken = broken_waves()[number]
    first = await stop_writer(ledger, clock)
    jobs: list[asyncio.Future[object]] = [
        asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["0"]))),
        asyncio.ensure_future(ledger.reserve(broken)),
        asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["1"]))),
        asyncio.ensure_future(settled(ledger, spent("1", 40))),
    ]
    await asyncio.sleep(0)
    clock.go()
    outcomes = await asyncio.gather(first, *jobs, return_exceptions=True)
    assert outcomes[1] == outcomes[3] == Grant(1)
    assert isinstance(outcomes[2], StoreError)
    assert outcomes[4] is None
    assert await nano_of(ledger, DAILY) == (40, 100)
    await check_sums(ledger)


async def test_a_cancelled_settle_is_written_all_the_same(
    ledger: SqliteLedger, clock: Clock
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    first = await stop_writer(ledger, clock)
    settling = asyncio.ensure_future(ledger.settle([spent("a", 40)]))
    await asyncio.sleep(0)
    settling.cancel()
    clock.go()
    await first
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert await nano_of(ledger, DAILY) == (40, 0)


async def test_the_list_given_to_settle_is_the_callers_again_at_once(
    ledger: SqliteLedger, clock: Clock
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    first = await stop_writer(ledger, clock)
    settlements = [spent("a", 40)]
    settling = asyncio.ensure_future(ledger.settle(settlements))
    await asyncio.sleep(0)
    settlements.clear()
    clock.go()
    await asyncio.gather(first, settling)
    assert await nano_of(ledger, DAILY) == (40, 0)


async def test_a_cancelled_reserve_holds_nothing(
    ledger: SqliteLedger, clock: Clock, path: Path
) -> None:
    first = await stop_writer(ledger, clock)
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=list("abcdefghijkl"))))
    await asyncio.sleep(0)
    reserving.cancel()
    clock.go()
    await first
    with pytest.raises(asyncio.CancelledError):
        await reserving
    assert await nano_of(ledger, DAILY) == (0, 0)
    assert set(rows(path, "state")) <= {("released",)}
    assert ledger.stats.unknown == 0


async def test_a_reserve_cancelled_between_commit_and_answer_holds_nothing(
    ledger: SqliteLedger, clock: Clock
) -> None:
    first = await stop_writer(ledger, clock)

    async def cancel() -> int:
        count = await ledger.open_rows()
        reserving.cancel()
        return count

    # Both are answered at once, in this order: the cancellation meets a grant not yet taken.
    cancelling = asyncio.ensure_future(cancel())
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["a"])))
    await asyncio.sleep(0)
    clock.go()
    await first
    with pytest.raises(asyncio.CancelledError):
        await reserving
    assert await cancelling == 1
    assert await nano_of(ledger, DAILY) == (0, 0)


async def test_a_cancelled_repeat_leaves_the_rows_of_the_first(
    ledger: SqliteLedger, clock: Clock
) -> None:
    same = wave(DAILY, ids=["a"])
    await ledger.reserve(same)
    first = await stop_writer(ledger, clock)
    repeat = asyncio.ensure_future(ledger.reserve(same))
    await asyncio.sleep(0)
    repeat.cancel()
    clock.go()
    await first
    await asyncio.wait([repeat])
    assert await nano_of(ledger, DAILY) == (0, 100)


async def test_closing_writes_what_is_queued(path: Path, clock: Clock, disk: Disk) -> None:
    ledger = await SqliteLedger.open(path, clock=clock, connect=disk)
    await ledger.reserve(wave(DAILY, ids=["a", "b"]))
    first = await stop_writer(ledger, clock)
    settling = asyncio.ensure_future(ledger.settle([spent("a", 40)]))
    await asyncio.sleep(0)
    settling.cancel()
    closing = asyncio.ensure_future(ledger.close())
    late = asyncio.ensure_future(ledger.settle([released("b")]))
    await asyncio.sleep(0)
    clock.go()
    await asyncio.gather(first, closing, late)
    assert content(path.with_name("ledger.db-wal")) is None  # really closed, not about to be
    assert rows(path, "id, state, nano_settled") == [("a", "settled", 40), ("b", "released", 0)]


async def test_a_closed_ledger_says_so_and_closes_again(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    await asyncio.gather(ledger.close(), ledger.close())
    await ledger.close()
    with pytest.raises(StoreError, match="closed"):
        await ledger.reserve(wave(DAILY, ids=["a"]))
    with pytest.raises(StoreError, match="closed"):
        await ledger.settle([spent("a", 1)])


def test_a_ledger_outlives_the_loop_it_was_opened_in(path: Path, clock: Clock) -> None:
    ledger = asyncio.run(SqliteLedger.open(path, clock=clock))

    async def leave() -> None:
        await stop_writer(ledger, clock)
        asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["a"])))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(leave())  # its futures are cancelled, and its loop is closed before the writer ends
    clock.go()
    assert asyncio.run(nano_of(ledger, DAILY)) == (0, 0)
    asyncio.run(ledger.close())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_defect_in_the_writer_stops_everything_instead_of_hanging(path: Path) -> None:
    calls = iter([0, 0])
    ledger = await SqliteLedger.open(path, clock=lambda: next(calls))
    assert await ledger.open_rows() == 0
    jobs = [ledger.reserve(wave(DAILY, ids=["a"])), ledger.settle([spent("a", 1)])]
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        assert isinstance(outcome, StoreError)
    with pytest.raises(StoreError, match="closed"):
        await ledger.reserve(wave(DAILY, ids=["b"]))
    await ledger.close()
    for thread in threading.enumerate():
        if thread.name == "samplewise-ledger":
            await asyncio.to_thread(thread.join)  # it reports the defect before it ends


async def test_rows_tell_which_opening_of_the_file_holds_them(path: Path) -> None:
    first = await SqliteLedger.open(path)
    second = await SqliteLedger.open(path)
    await second.reserve(wave(DAILY, ids=["b"]))
    await first.reserve(wave(DAILY, ids=["a"]))
    await first.close()
    await second.close()
    third = await SqliteLedger.open(path)
    await third.reserve(wave(DAILY, ids=["c"]))
    await third.close()
    assert rows(path, "id, owner_epoch, taken_at") == [
        ("b", 2, None),
        ("a", 1, None),
        ("c", 3, None),
    ]


@pytest.mark.parametrize("given", [None, 0o640])
async def test_a_new_file_is_for_its_owner_alone_and_one_that_is_there_keeps_its_mode(
    path: Path, given: int | None
) -> None:
    before = os.umask(0o022)
    try:
        if given is not None:
            os.close(os.open(path, os.O_CREAT))
            os.chmod(path, given)
        ledger = await SqliteLedger.open(path)
        await ledger.reserve(wave(DAILY, ids=["1"]))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await ledger.close()
    finally:
        os.umask(before)
    for ending in ("", "-wal", "-shm"):
        assert modes[path.name + ending] == (given or 0o600), ending
    # What lies beside it while it is open lets nobody else in either.
    assert not any(mode & 0o007 for mode in modes.values())
