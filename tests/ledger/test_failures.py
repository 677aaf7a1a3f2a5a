"""A store that cannot be used: nothing is granted, the message helps, and work goes on after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.base import Grant
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import (
    Disk,
    account,
    check_sums,
    content,
    nano_of,
    released,
    rows,
    spent,
    wave,
)

DAILY = account("alice", nano=10**9)


async def fill(ledger: SqliteLedger) -> None:
    """Reserve until the store refuses."""
    for number in range(10_000):
        await ledger.reserve(wave(DAILY, ids=[f"fill {number}"]))


async def test_a_full_disk_grants_nothing_and_works_again_with_space(
    ledger: SqliteLedger, disk: Disk
) -> None:
    disk.fill(20)
    with pytest.raises(StoreError, match="The disk or a quota is full: free space"):
        await fill(ledger)
    taken = (await ledger.totals()).rows
    assert taken > 0
    assert await nano_of(ledger, DAILY) == (0, 100 * taken)
    with contextlib.suppress(StoreError):  # where the row lies decides whether it needs a page
        await ledger.settle([spent("fill 0", 1)])
    disk.fill(0)
    assert await ledger.reserve(wave(DAILY, ids=["more"])) == Grant(1)
    assert await nano_of(ledger, DAILY) == (1, 100 * taken)
    await check_sums(ledger)


async def test_a_store_that_turns_read_only_takes_nothing_until_it_is_writable(
    ledger: SqliteLedger, disk: Disk, path: Path
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"], dispatched=False))
    disk.freeze()
    for _ in range(2):  # on the connection that was open, then on a new one
        with pytest.raises(StoreError, match=r"ledger\.db .*readonly.* Make the file.* writable"):
            await ledger.reserve(wave(DAILY, ids=["b"]))
    with pytest.raises(StoreError, match="readonly"):
        await ledger.dispatch(["a"])
    assert await nano_of(ledger, DAILY) == (0, 100)  # reading is still possible
    disk.thaw()
    await ledger.dispatch(["a"])
    assert await ledger.reserve(wave(DAILY, ids=["b"])) == Grant(1)
    assert rows(path, "id, state") == [("a", "dispatched"), ("b", "dispatched")]


async def test_settlements_that_the_store_could_not_take_are_written_when_it_can(
    ledger: SqliteLedger, disk: Disk
) -> None:
    await ledger.reserve(wave(DAILY, ids=["a", "b", "c"]))
    disk.freeze()
    with pytest.raises(StoreError, match="readonly"):
        await ledger.settle([spent("a", 40)])
    with pytest.raises(StoreError, match="readonly"):
        await ledger.settle([spent("b", 50), spent("a", 60)])
    with pytest.raises(StoreError, match="wait to be written: 3"):
        await ledger.settle([released("c")])
    assert ledger.stats.kept == 3
    disk.thaw()
    assert await nano_of(ledger, DAILY) == (90, 0)
    assert ledger.stats.kept == 0
    await check_sums(ledger)


async def test_closing_says_what_could_not_be_written(path: Path, disk: Disk) -> None:
    ledger = await SqliteLedger.open(path, connect=disk)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    disk.freeze()
    with pytest.raises(StoreError, match="readonly"):
        await ledger.settle([spent("a", 40)])
    with pytest.raises(StoreError, match="wait to be written: 1"):
        await ledger.close()
    assert rows(path, "state") == [("dispatched",)]


async def test_closing_writes_what_could_not_be_written_before(path: Path, disk: Disk) -> None:
    ledger = await SqliteLedger.open(path, connect=disk)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    disk.freeze()
    with pytest.raises(StoreError, match="readonly"):
        await ledger.settle([spent("a", 40)])
    disk.thaw()
    await ledger.close()
    assert rows(path, "state, nano_settled") == [("settled", 40)]


async def test_a_reserve_cancelled_while_the_store_fails_holds_nothing_later(
    ledger: SqliteLedger, disk: Disk
) -> None:
    disk.freeze()
    reserving = asyncio.ensure_future(ledger.reserve(wave(DAILY, ids=["a"])))
    await asyncio.sleep(0)
    reserving.cancel()
    await asyncio.wait([reserving])
    with contextlib.suppress(StoreError):
        await ledger.open_rows()  # queued behind it, so the writer has failed on it by now
    disk.thaw()
    assert await nano_of(ledger, DAILY) == (0, 0)


async def test_a_locked_store_fails_and_works_again(ledger: SqliteLedger, path: Path) -> None:
    await ledger.close()
    impatient = await SqliteLedger.open(
        path, connect=lambda uri: sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
    )
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"Another process has locked it"):
        await impatient.reserve(wave(DAILY, ids=["a"]))
    other.execute("COMMIT")
    other.close()
    assert await impatient.reserve(wave(DAILY, ids=["a"])) == Grant(1)
    await impatient.close()


async def test_a_file_that_vanished_is_not_made_anew(ledger: SqliteLedger, path: Path) -> None:
    await ledger.reserve(wave(DAILY, ids=["a"]))
    os.replace(path, path.with_name("moved.db"))
    with pytest.raises(StoreError, match="Check that file and folder exist"):
        await ledger.reserve(wave(DAILY, ids=["b"]))
    with pytest.raises(StoreError, match="Check that file and folder exist"):
        await ledger.totals()
    assert content(path) is None


async def test_a_file_that_was_replaced_is_the_ledger_from_then_on(
    ledger: SqliteLedger, path: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    await ledger.reserve(wave(DAILY, ids=["a"]))
    source, target = sqlite3.connect(path), sqlite3.connect(backup)
    source.backup(target)
    source.close()
    target.close()
    await ledger.reserve(wave(DAILY, ids=["b"]))
    for end in ("-wal", "-shm"):
        os.remove(f"{path}{end}")
    os.replace(backup, path)
    assert await nano_of(ledger, DAILY) == (0, 100)
    assert await ledger.reserve(wave(DAILY, ids=["c"])) == Grant(1)
    assert rows(path, "id, owner_epoch") == [("a", 1), ("c", 2)]


async def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/x\.db .*Check that file and folder exist"):
        await SqliteLedger.open(tmp_path / "missing" / "x.db")
    assert not (tmp_path / "missing").exists()


async def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        await SqliteLedger.open(tmp_path)


async def test_a_read_only_file_does_not_open(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    disk = Disk()
    disk.writable = False
    with pytest.raises(
        StoreError, match="Make the file, its -wal and -shm and their folder writable"
    ):
        await SqliteLedger.open(path, connect=disk)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_file_without_write_permission_opens_once_it_has_it(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    os.chmod(path, 0o444)
    with pytest.raises(StoreError, match=r"is read-only\. Make the file"):
        await SqliteLedger.open(path)
    os.chmod(path, 0o644)
    await (await SqliteLedger.open(path)).close()


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    file.write_bytes(b"my passwords " * 100)
    return file


async def test_a_file_of_something_else_is_left_alone(path: Path, passwords: Path) -> None:
    os.replace(passwords, path)
    with pytest.raises(StoreError, match="no SQLite database: name another"):
        await SqliteLedger.open(path)
    assert content(path) == b"my passwords " * 100


@pytest.mark.parametrize(
    "made", ["CREATE TABLE mine (x)", "PRAGMA user_version = 7", "PRAGMA application_id = 7"]
)
async def test_a_database_of_something_else_is_left_alone(path: Path, made: str) -> None:
    other = sqlite3.connect(path)
    other.execute(made)
    other.close()
    before = content(path)
    with pytest.raises(StoreError, match="not a Samplewise ledger"):
        await SqliteLedger.open(path)
    assert content(path) == before


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    newer = [*schema.MIGRATIONS, ("ALTER TABLE reservations ADD COLUMN tip TEXT",)]
    schema.open_file(path, create=False, migrations=newer).close()
    before, known = content(path), len(schema.MIGRATIONS)
    said = f"schema version {known + 1}, this Samplewise knows {known}"
    with pytest.raises(StoreError, match=said):
        await SqliteLedger.open(path)
    assert content(path) == before


async def test_migrations_run_once_and_forward(path: Path) -> None:
    ledger = await SqliteLedger.open(path)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.close()
    newer = [
        *schema.MIGRATIONS,
        ("ALTER TABLE reservations ADD COLUMN tip TEXT", "UPDATE reservations SET tip = 'x'"),
        ("UPDATE reservations SET tip = tip || 'y'",),
    ]
    for _ in range(2):
        schema.open_file(path, create=False, migrations=newer).close()
    assert rows(path, "id, tip") == [("a", "xy")]


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    await (await SqliteLedger.open(path)).close()
    broken = [*schema.MIGRATIONS, ("ALTER TABLE reservations ADD COLUMN tip TEXT", "NONSENSE")]
    with pytest.raises(sqlite3.OperationalError):
        schema.open_file(path, create=False, migrations=broken)
    ledger = await SqliteLedger.open(path)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.close()


async def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "100% safe? #1 & mode=ro.db"
    ledger = await SqliteLedger.open(path)
    await ledger.reserve(wave(DAILY, ids=["a"]))
    await ledger.close()
    assert rows(path, "id") == [("a",)]


async def test_every_commit_reaches_the_disk(ledger: SqliteLedger, disk: Disk) -> None:
    (db,) = disk.connections
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA busy_timeout").fetchone() == (30_000,)
