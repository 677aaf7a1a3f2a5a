"""Fixtures for `tests/conftest.py`: one PostgreSQL server for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger.pg import Server, account_of_server, programs

__all__ = ["database", "postgres", "where"]


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


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Each kind of store in turn, empty: the file of an SQLite ledger, the URL of a database."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("database")
        return url
    return tmp_path / "ledger.db"
