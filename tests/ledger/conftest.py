"""A ledger in a file of its own, with a clock and a disk that obey the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from samplewise.proxy.ledger.sqlite import SqliteLedger
from tests.ledger.kit import Clock, Disk
from tests.ledger.pg import Server, account_of_server, programs


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of this process."""
    folder, user = programs(), account_of_server()
    if folder is None or user is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    server = Server(folder, user)
    yield server
    server.remove()


@pytest.fixture
def database(postgres: Server) -> str:
    """The URL of an empty database."""
    return postgres.new_database()
