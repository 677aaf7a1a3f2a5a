"""What processes that died left open: one of the others ends it, on every kind of store."""

from __future__ import annotations

import asyncio

import pytest

from samplewise.policies.price import Usage
from samplewise.proxy.ledger.base import Hold, Limit, Settlement, State, UsageSource
from samplewise.proxy.ledger.orphans import RecoverableLedger
from tests.ledger.conftest import Store
from tests.ledger.kit import AnyLedger, Clock, account, check_sums, hold, nano_of, spent, wave

DAILY = account("alice", nano=1_000)


async def left(store: Store, *, dispatched: bool = True, ids: str = "ab") -> None:
    """Reserve rows in a process that dies."""
    ledger = await store.open()
    await ledger.reserve(wave(DAILY, ids=list(ids), dispatched=dispatched))
    await ledger.close()


async def test_it_is_recoverable(any_ledger: AnyLedger) -> None:
    contract: RecoverableLedger = any_ledger
    assert contract.orphans_every_s > 0


async def test_what_was_sent_is_handed_over_and_what_was_not_is_released(store: Store) -> None:
    await left(store)
    await left(store, ids="xy", dispatched=False)
    ledger = await store.open()
    await ledger.reserve(wave(DAILY, ids=["mine"]))
    found = await ledger.orphans()
    assert [(row.id, row.nano, row.tokens, row.state) for row in found] == [
        ("a", 100, 10, State.DISPATCHED),
        ("b", 100, 10, State.DISPATCHED),
    ]
    assert await nano_of(ledger, DAILY) == (0, 300)
    assert await ledger.open_rows() == 3
    states = await store.rows("id, state, taken_at IS NOT NULL", "id IN ('a', 'mine', 'x')")
    assert sorted(states) == [
        ("a", "dispatched", True), ("mine", "dispatched", False), ("x", "released", True),
    ]  # fmt: skip
    await ledger.close()


async def test_orphans_come_by_call_in_the_order_of_their_samples(store: Store) -> None:
    ledger = await store.open()
    holds = [
        Hold(f"{call}{i}", call, i, "local", "m", "answer", 1, 1, "v1")
        for call, i in (("d", 2), ("c", 1), ("d", 0), ("c", 0), ("d", 1))
    ]
    await ledger.reserve(wave(DAILY, holds=holds))
    await ledger.close()
    ledger = await store.open()
    assert [row.id for row in await ledger.orphans()] == ["c0", "c1", "d0", "d1", "d2"]
    await ledger.close()


async def test_rows_of_an_opening_that_lives_are_left_alone(store: Store) -> None:
    first, second = await store.open(), await store.open()
    await first.reserve(wave(DAILY, ids=["a"]))
    assert await second.orphans() == []
    await first.settle([spent("a", 40)])
    assert await nano_of(second, DAILY) == (40, 0)
    await first.close()
    await second.close()


async def test_every_orphan_has_one_heir(store: Store) -> None:
    await left(store, ids="abcdefgh")
    ledgers = [await store.open() for _ in range(4)]
    found = await asyncio.gather(*(ledger.orphans() for ledger in ledgers))
    assert sorted(row.id for rows in found for row in rows) == list("abcdefgh")
    for ledger in ledgers:
        await ledger.close()


async def test_what_an_heir_that_died_left_is_inherited_again(store: Store) -> None:
    await left(store)
    heir = await store.open()
    assert len(await heir.orphans()) == 2
    await heir.close()
    ledger = await store.open()
    assert [row.id for row in await ledger.orphans()] == ["a", "b"]
    await ledger.close()


async def test_a_recovered_row_counts_as_any_other(store: Store, clock: Clock) -> None:
    await left(store)
    ledger = await store.open()
    await ledger.orphans()
    end = Settlement("a", 90, Usage(3, 0, 4), UsageSource.RECONCILED, State.RECOVERED)
    await ledger.settle([end, Settlement("b", 0, state=State.RELEASED)])
    await ledger.settle([spent("a", 10), spent("b", 10)])
    (balance,) = await ledger.balances([DAILY])
    assert (balance.spent, balance.reserved) == (Limit(90, 7, 1), Limit(0, 0, 0))
    assert await ledger.orphans() == []
    await check_sums(ledger)
    await ledger.close()


@pytest.mark.parametrize("sample", [True, False])
async def test_verdicts_are_inherited_too(store: Store, sample: bool) -> None:
    ledger = await store.open()
    await ledger.reserve(wave(DAILY, holds=[hold("a", sample=sample)]))
    await ledger.close()
    ledger = await store.open()
    (row,) = await ledger.orphans()
    assert row.purpose == ("sample" if sample else "verify")
    await ledger.close()
