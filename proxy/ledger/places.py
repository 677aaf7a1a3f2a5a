"""A ledger's store used by whoever can wait for it, beside the server: transactions of statements.

All stores have the same tables and understand the same plain statements, with `?` for the values
in their order, or `?1`, `?2` where one is needed twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.advice import store_error
from samplewise.proxy.ledger.turns import Turn

__all__ = ["Found", "Place", "Session", "SqlitePlace"]


class Found(Protocol):
    """What a statement has found."""

    def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        ...

    def fetchall(self) -> Sequence[Any]:
        """Return all rows that are left."""
        ...


class Session(Protocol):
    """A transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Found:
        """Do one statement."""
        ...


class Place(Protocol):
    """A store that can be used from any thread. Everything raises `StoreError` when it fails."""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        ...

    def check(self) -> None:
        """Bring the tables up to date; they must exist."""
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """Read in one transaction: all of one commit."""
        ...

    def changing(self, *, create: bool = False) -> AbstractContextManager[Session]:
        """Change something, whole or not at all, one at a time, so that servers notice.

        Only `create` makes a store that is not there.
        """
        ...

    def writing(self) -> AbstractContextManager[Session]:
        """Write what nobody waits for: whole or not at all, perhaps lost with the machine."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A ledger's file. Opened anew every time, so one that was replaced is seen."""

    path: Path

    @property
    def label(self) -> str:
        """Its path."""
        return str(self.path)

    def check(self) -> None:
        """Bring the file's tables up to date; it must exist.

        Raises:
            StoreError: there is no such file, or it is no ledger.
        """
        if not self.path.exists():
            raise StoreError(
                f"There is no ledger {self.path}. Name the server's file with --config or --store."
            )
        if not self.path.stat().st_size:
            raise StoreError(
                f"{self.path} is empty, not a Samplewise ledger. Name the server's file with "
                "--config or --store."
            )
        try:
            schema.open_file(self.path, create=False).close()
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read in one transaction."""
        try:
            # Not read-only: a write-ahead log cannot always be opened so.
            with closing(schema.connect(f"{self.path.absolute().as_uri()}?mode=rw")) as db:
                db.execute("BEGIN")
                yield db
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    @contextmanager
    def changing(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for a change, whole or not at all, that servers notice."""
        try:
            with closing(schema.open_file(self.path, create=create)) as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("UPDATE meta SET value = value + 1 WHERE name = 'keys'")
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, in turn with the ledger's own writers, without a sync."""
        turn = Turn(self.path)
        try:
            with (
                turn.taken(),
                closing(schema.connect(f"{self.path.absolute().as_uri()}?mode=rw")) as db,
            ):
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error
        finally:
            turn.close()

    def close(self) -> None:
        """Do nothing: nothing stays open."""
