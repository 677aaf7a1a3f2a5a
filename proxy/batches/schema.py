"""The tables of files and batches: in a file beside an SQLite ledger, or in its database."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from samplewise.proxy.config_store import is_postgres, postgres_extra, store_path
from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.advice import store_error
from samplewise.proxy.ledger.places import Session

__all__ = ["BatchPlace", "FilePlace", "batch_place", "bring_up_to_date", "file_beside"]

_BUSY_S = 30.0
# Item n leads from version n to n + 1. Never change an item that was released: add one.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE files (
            id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,        -- the id of the client key, empty without one
            filename TEXT NOT NULL,
            purpose TEXT NOT NULL,
            bytes BIGINT NOT NULL,
            created_at BIGINT NOT NULL, -- UTC seconds, as all times but leases
            expires_at BIGINT,
            ready BIGINT NOT NULL,      -- 0 while it is being written
            batch TEXT,                 -- the batch whose results it shows,
            ok BIGINT                   -- and which of them: answers or errors
        )""",
        """
        CREATE TABLE file_parts (
            file TEXT NOT NULL,
            number BIGINT NOT NULL,
            data {blob} NOT NULL,
            PRIMARY KEY (file, number)
        )""",
        """
        CREATE TABLE batches (
            id TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            created_at BIGINT NOT NULL,
            expires_at BIGINT NOT NULL,
            input_file TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            metadata TEXT NOT NULL,     -- JSON
            max_nano BIGINT,
            status TEXT NOT NULL,
            times TEXT NOT NULL,        -- JSON: in_progress_at and its like
            errors TEXT NOT NULL,       -- JSON: why the whole of it was refused
            total BIGINT NOT NULL,
            completed BIGINT NOT NULL,  -- of its end; while it runs its results are counted
            failed BIGINT NOT NULL,
            output_file TEXT,
            error_file TEXT,
            runner TEXT,                -- the process that works on it,
            lease_until BIGINT NOT NULL -- while this has not passed; UTC ms
        )""",
        """
        CREATE TABLE batch_results (
            batch TEXT NOT NULL,
            line BIGINT NOT NULL,
            ok BIGINT NOT NULL,
            data {blob} NOT NULL,
            PRIMARY KEY (batch, line)
        )""",
        "CREATE INDEX batches_open ON batches (status, created_at)",
        "CREATE INDEX files_owner ON files (owner, created_at)",
    ),
    ("CREATE INDEX batches_owner ON batches (owner, created_at)",),
)


def file_beside(ledger: Path) -> Path:
    """Return the file of batches for a ledger's: apart, so that uploads never make money wait."""
    return ledger.with_name(f"{ledger.stem}.batches{ledger.suffix or '.db'}")


class BatchPlace(Protocol):
    """A store of files and batches, usable from any thread; what fails raises `StoreError`."""

    @property
    def label(self) -> str:
        """What it is called in messages."""
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """Read in one transaction."""
        ...

    def changing(self, *, create: bool = False) -> AbstractContextManager[Session]:
        """Change something, whole or not at all, on disk at the end. `create` makes the store."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


def batch_place(url: str) -> BatchPlace:
    """Return where the files and batches of a store are kept; nothing is opened yet.

    Raises:
        ConfigError: it is PostgreSQL, and the extra for that is not installed.
    """
    if not is_postgres(url):
        return FilePlace(file_beside(store_path(url)))
    with postgres_extra():
        from samplewise.proxy.ledger.postgres_place import PostgresPlace
    return PostgresPlace(url, change="BEGIN")


def bring_up_to_date(place: BatchPlace, *, database: bool) -> None:
    """Make the tables, or bring them up to date; one process at a time.

    Raises:
        StoreError: the store cannot be used, or is one of a newer Samplewise.
    """
    blob = "BYTEA" if database else "BLOB"
    with place.changing(create=True) as db:
        if database:
            # The ledger's own lock for changes of tables: who comes second finds them made.
            db.execute("SELECT pg_advisory_xact_lock(1398230084)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS batch_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)"
        )
        row = db.execute("SELECT value FROM batch_meta WHERE name = 'schema'").fetchone()
        version = 0 if row is None else int(row[0])
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"The batches in {place.label} have schema version {version}, this Samplewise "
                f"knows {len(_MIGRATIONS)}. Start the newer Samplewise."
            )
        for statement in itertools.chain.from_iterable(_MIGRATIONS[version:]):
            db.execute(statement.format(blob=blob))
        if version < len(_MIGRATIONS):
            db.execute("DELETE FROM batch_meta WHERE name = 'schema'")
            db.execute("INSERT INTO batch_meta VALUES ('schema', ?)", (len(_MIGRATIONS),))


@dataclass(frozen=True, slots=True)
class FilePlace:
    """An SQLite file, opened anew for every transaction."""

    path: Path

    @property
    def label(self) -> str:
        """Its path."""
        return str(self.path)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Read in one transaction."""
        with self._transaction("BEGIN", "rw") as db:
            yield db

    def writing(self) -> AbstractContextManager[Session]:
        """Write as any change: there is no writer beside this one to be quick for."""
        return self.changing()

    @contextmanager
    def changing(self, *, create: bool = False) -> Iterator[Session]:
        """Change something, whole or not at all."""
        with self._transaction("BEGIN IMMEDIATE", "rwc" if create else "rw") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, mode: str) -> Iterator[sqlite3.Connection]:
        if mode == "rwc":
            # Prompts and answers are in it: for nobody else on this machine.
            self._make()
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
            ) as db:
                if mode == "rwc":
                    db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(begin)
                yield db
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error

    def _make(self) -> None:
        try:
            self.path.touch(mode=0o600, exist_ok=True)
        except OSError as error:
            raise store_error(self.path, error) from error

    def close(self) -> None:
        """Do nothing: nothing stays open."""
