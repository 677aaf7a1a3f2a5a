"""Client keys in the ledger's SQLite file: made, changed, rotated, revoked, read again.

Every call opens the file anew, so it can be used from any thread and sees a file that was replaced.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import (
    ClientKey,
    KeyRefused,
    Terms,
    check_terms,
    digest,
    new_secret,
)
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.advice import store_error

__all__ = ["KeyStore", "Ring"]

_COLUMNS = "id, name, digest, terms, created_at, revoked_at, previous, previous_until"
_VERSION = "SELECT value FROM meta WHERE name = 'keys'"
_PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys as of one version of the store. `pepper` is empty until the first key was made."""

    version: int = 0
    pepper: bytes = b""
    keys: tuple[ClientKey, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyStore:
    """The keys of one file. Every method raises `StoreError` when it cannot be used.

    `actor` says in the audit who makes the changes.
    """

    path: Path
    clock: Callable[[], int] = utc_ms
    actor: str = ""

    def version(self) -> int:
        """Return a number that grows with every change. One read of one row."""
        with self._open() as db:
            return _version(db, self.path)

    def load(self) -> Ring:
        """Read all keys, oldest first, revoked and expired ones too."""
        with self._open() as db:
            db.execute("BEGIN")  # all three are of one commit
            version = _version(db, self.path)
            pepper = db.execute("SELECT value FROM key_pepper").fetchone()
            rows = db.execute(f"SELECT {_COLUMNS} FROM client_keys ORDER BY created_at, rowid")
            keys = tuple(map(_key, rows.fetchall()))
        return Ring(version, b"" if pepper is None else pepper[0], keys)

    def create(self, name: str, terms: Terms) -> tuple[ClientKey, str]:
        """Make a key; return it and its secret, which is kept nowhere.

        Raises:
            KeyRefused: the name is taken, or the terms cannot be.
        """
        check_terms(name, terms)
        secret = new_secret()
        with self._changing(create=True) as db:
            if db.execute(
                "SELECT 1 FROM client_keys WHERE name = ? AND revoked_at IS NULL", (name,)
            ).fetchone():
                raise KeyRefused(
                    f"there is a key {name!r} already: choose another name, or rotate or revoke it"
                )
            id_ = f"key_{secrets.token_hex(8)}"
            key = ClientKey(id_, name, digest(_pepper(db), secret), terms, self.clock())
            row = (key.id, name, key.digest, _json(terms), key.created_at, None, None, None)
            db.execute(f"INSERT INTO client_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._note(db, "create", key)
        return key.with_accounts(), secret

    def update(self, name: str, change: Callable[[Terms], Terms]) -> ClientKey:
        """Give a key, named by name or id, other terms; what it has spent stays.

        Raises:
            KeyRefused: there is no such key that is not revoked, or the terms cannot be.
        """
        with self._changing() as db:
            key = _find(db, name)
            key = replace(key, terms=change(key.terms)).with_accounts()
            check_terms(key.name, key.terms)
            db.execute("UPDATE client_keys SET terms = ? WHERE id = ?", (_json(key.terms), key.id))
            self._note(db, "update", key)
        return key

    def revoke(self, name: str) -> ClientKey:
        """End a key for good, named by name or id.

        Raises:
            KeyRefused: there is no such key that is not revoked already.
        """
        with self._changing() as db:
            key = replace(_find(db, name), revoked_at=self.clock())
            db.execute(
                "UPDATE client_keys SET revoked_at = ? WHERE id = ?", (key.revoked_at, key.id)
            )
            self._note(db, "revoke", key)
        return key

    def rotate(self, name: str, overlap_ms: int = 0) -> tuple[ClientKey, str]:
        """Give a key a new secret; return both. Limits and spend stay.

        The secret before is good for `overlap_ms` more; one that was on its way out ends at once.

        Raises:
            KeyRefused: there is no such key that is not revoked already.
        """
        secret = new_secret()
        with self._changing() as db:
            key = _find(db, name)
            before = (key.digest, self.clock() + overlap_ms) if overlap_ms else (None, None)
            key = replace(
                key,
                digest=digest(_pepper(db), secret),
                previous=before[0],
                previous_until=before[1],
            )
            db.execute(
                "UPDATE client_keys SET digest = ?, previous = ?, previous_until = ? WHERE id = ?",
                (key.digest, *before, key.id),
            )
            self._note(db, "rotate", key)
        return key, secret

    def _note(self, db: sqlite3.Connection, action: str, key: ClientKey) -> None:
        """Write a line of the audit, in the transaction of the change itself."""
        row = (self.clock(), self.actor, action, key.id, key.name, _json(key.terms))
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", row)

    @contextmanager
    def _changing(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
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
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # Not read-only: a write-ahead log cannot always be opened so.
            with closing(schema.connect(f"{self.path.absolute().as_uri()}?mode=rw")) as db:
                yield db
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            raise store_error(self.path, error) from error

    def check(self) -> None:
        """Bring the file's tables up to date; it must exist.

        Raises:
            StoreError: there is no such file, or it is no ledger.
        """
        if not self.path.exists():
            raise StoreError(
                f"There is no ledger {self.path}. Name the server's file with --config or --store."
            )
        try:
            schema.open_file(self.path, create=False).close()
        except (sqlite3.Error, OSError) as error:
            raise store_error(self.path, error) from error


def _version(db: sqlite3.Connection, path: Path) -> int:
    row = db.execute(_VERSION).fetchone()
    if row is None:
        raise StoreError(f"The ledger {path} has no keys: it is one of an older Samplewise.")
    return int(row[0])


def _json(terms: Terms) -> str:
    return msgspec.json.encode(terms).decode()


def _key(row: tuple[Any, ...]) -> ClientKey:
    id_, name, digest_, text, *rest = row
    terms = msgspec.json.decode(text, type=Terms)
    return ClientKey(id_, name, digest_, terms, *rest).with_accounts()


def _find(db: sqlite3.Connection, name: str) -> ClientKey:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM client_keys WHERE (name = ?1 OR id = ?1) AND revoked_at IS NULL",
        (name,),
    ).fetchall()
    if not rows:
        raise KeyRefused(
            f"there is no key {name[:128]!r} that is not revoked: "
            "`samplewise keys list` shows all of them"
        )
    return _key(rows[0])


def _pepper(db: sqlite3.Connection) -> bytes:
    fresh = secrets.token_bytes(_PEPPER_BYTES)
    db.execute("INSERT OR IGNORE INTO key_pepper VALUES (1, ?)", (fresh,))
    pepper: bytes = db.execute("SELECT value FROM key_pepper").fetchone()[0]
    return pepper
