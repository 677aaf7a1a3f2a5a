"""A ledger read by a connection of its own, also beside a running server. Writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from samplewise.proxy.config_store import postgres_extra
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.advice import store_error
from samplewise.proxy.ledger.places import Session

__all__ = ["reading", "reading_file"]


@contextmanager
def reading(where: Path | str) -> Iterator[Session]:
    """Give a transaction in which all that is read is of one commit.

    `where` is the file of an SQLite ledger, or the URL of a database.

    Raises:
        StoreError: there is no such ledger, or it is one of a newer Samplewise.
        ConfigError: it is PostgreSQL, and the extra for that is not installed.
    """
    if isinstance(where, Path):
        with reading_file(where) as file:
            yield file
        return
    with postgres_extra():
        from samplewise.proxy.ledger.postgres_place import PostgresPlace
    # However long it takes: a report may read millions of rows.
    with closing(PostgresPlace(where, None)) as place, place.reading() as db:
        yield db


@contextmanager
def reading_file(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a read-only connection inside a transaction, so that all it reads is of one commit.

    A server goes on writing meanwhile; only its write-ahead log cannot shrink before the end.

    Raises:
        StoreError: there is no such file, it is no ledger, or one of a newer Samplewise.
    """
    if not path.exists():
        raise StoreError(f"There is no ledger {path}. Name the file of the server's `store`.")
    try:
        with closing(schema.connect(f"{path.absolute().as_uri()}?mode=ro")) as db:
            db.execute("BEGIN")
            if not schema.check_file(db, path, len(schema.MIGRATIONS)):
                raise StoreError(
                    f"{path} is empty, not a Samplewise ledger. Name the file of the server's"
                    " `store`."
                )
            yield db
    except sqlite3.Error as error:
        raise store_error(path, error) from error
