"""A ledger remembers how far open rows have come, and tells it to whoever takes them over."""

from __future__ import annotations

from pathlib import Path

from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.conftest import Store
from tests.ledger.kit import AnyLedger, Disk, account, check_sums, rows, spent, wave

DAILY = account()


async def test_open_rows_remember_how_far_they_have_come(
    any_ledger: AnyLedger, store: Store
) -> None:
    await any_ledger.reserve(wave(DAILY, ids=["a", "b", "c"]))
    await any_ledger.reserve(wave(DAILY, ids=["held"], dispatched=False))
    await any_ledger.settle([spent("b", 7, 3)])
    await any_ledger.checkpoint({"a": 4, "b": 5, "held": 6, "unknown": 7})
    await any_ledger.checkpoint({"a": 6})
    found = await store.rows("id, state, seen_tokens")
    assert sorted(found) == [
        ("a", "dispatched", 6), ("b", "settled", 0), ("c", "dispatched", 0), ("held", "held", 0),
    ]  # fmt: skip
    await check_sums(any_ledger)


async def test_many_rows_are_one_statement(ledger: SqliteLedger, path: Path, disk: Disk) -> None:
    ids = [f"r{i}" for i in range(2_000)]
    await ledger.reserve(wave(DAILY, ids=ids))
    disk.statements.clear()
    await ledger.checkpoint({id_: 9 for id_ in ids})
    assert sum("UPDATE" in statement for statement in disk.statements) == 1
    assert rows(path, "sum(seen_tokens)") == [(9 * 2_000,)]


async def test_who_takes_a_row_over_learns_how_far_it_had_come(path: Path) -> None:
    dead = await SqliteLedger.open(path)
    await dead.reserve(wave(DAILY, ids=["a", "b"]))
    await dead.checkpoint({"a": 4})
    await dead.close()  # the rows stay open, and their owner is gone
    heir = await SqliteLedger.open(path)
    assert {row.id: row.seen for row in await heir.orphans()} == {"a": 4, "b": 0}
    await heir.close()
