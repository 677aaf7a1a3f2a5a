"""Ledgers with a store of their own, and a clock and a disk that obey the test."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import AnyLedger, Clock, Disk, many_chunks, rows
from tests.ledger.pg import execute


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest_asyncio.fixture
async def ledger(path: Path, clock: Clock, disk: Disk) -> AsyncIterator[SqliteLedger]:
    ledger = await SqliteLedger.open(path, clock=clock, connect=disk)
    yield ledger
    clock.go()
    await ledger.close()


class Store(Protocol):
    """One kind of store, empty at first."""

    async def open(self, clock: Clock | None = None) -> AnyLedger:
        """Open the ledger in it."""
        ...

    async def rows(self, columns: str, where: str = "1 = 1") -> list[tuple[object, ...]]:
        """Read rows on a connection of its own."""
        ...

    async def claims(self) -> list[tuple[object, ...]]:
        """Read the names of all claims on a connection of its own."""
        ...

    async def run(self, statement: str) -> None:
        """Change it from outside; tables are named as in a database."""
        ...


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self, clock: Clock | None = None) -> AnyLedger:
        return await SqliteLedger.open(self._path, clock=clock or utc_ms)

    async def rows(self, columns: str, where: str = "1 = 1") -> list[tuple[object, ...]]:
        return rows(self._path, columns, where)

    async def claims(self) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._path)) as db:
            return db.execute("SELECT name FROM claims").fetchall()

    async def run(self, statement: str) -> None:
        db = sqlite3.connect(self._path)
        with db:
            db.execute(statement.replace("samplewise.", ""))
        db.close()


class PostgresStore:
    def __init__(self, url: str, chunks: Callable[[], Chunks | None] = lambda: None) -> None:
        self._url = url
        self._chunks = chunks

    async def open(self, clock: Clock | None = None) -> AnyLedger:
        return await PostgresLedger.open(self._url, clock=clock, chunks=self._chunks())

    async def rows(self, columns: str, where: str = "1 = 1") -> list[tuple[object, ...]]:
        return await execute(
            self._url, f"SELECT {columns} FROM samplewise.reservations WHERE {where} ORDER BY id"
        )

    async def claims(self) -> list[tuple[object, ...]]:
        return await execute(self._url, "SELECT name FROM samplewise.claims")

    async def run(self, statement: str) -> None:
        await execute(self._url, statement)


@pytest.fixture(params=["sqlite", "postgres", "chunks"])
def store(request: pytest.FixtureRequest, path: Path) -> Store:
    """Every kind of store in turn; `chunks` leases room of every counter it touches."""
    if request.param == "chunks":
        return PostgresStore(request.getfixturevalue("database"), many_chunks)
    if request.param == "postgres":
        return PostgresStore(request.getfixturevalue("database"))
    return SqliteStore(path)


@pytest_asyncio.fixture
async def any_ledger(store: Store, clock: Clock) -> AsyncIterator[AnyLedger]:
    """A ledger on every kind of store in turn."""
    ledger = await store.open(clock)
    yield ledger
    await ledger.close()
