"""A ledger file read by a connection of its own, also beside a running server. Writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.advice import store_error

__all__ = ["reading"]


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
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
