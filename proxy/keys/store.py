"""Client keys in the ledger's store: made, changed, rotated, revoked, read again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from samplewise.proxy.config_store import is_postgres, postgres_extra, store_path
from samplewise.proxy.errors import StoreError
from samplewise.proxy.keys.base import (
    ClientKey,
    KeyRefused,
    Terms,
    check_terms,
    digest,
    new_secret,
)
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.places import Place, Session, SqlitePlace

__all__ = ["KeyStore", "Ring", "key_store", "pepper"]

_COLUMNS = "id, name, digest, terms, created_at, revoked_at, previous, previous_until"
_AUDIT = "at, actor, action, key_id, name, terms"
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
    """The keys of one store. Every method raises `StoreError` when it cannot be used.

    `actor` says in the audit who makes the changes.

    They block, so not on the event loop; any thread may call them.
    """

    place: Place
    clock: Callable[[], int] = utc_ms
    actor: str = ""

    def version(self) -> int:
        """Return a number that grows with every change. One read of one row."""
        with self.place.reading() as db:
            return self._version(db)

    def load(self) -> Ring:
        """Read all keys, oldest first, revoked and expired ones too."""
        with self.place.reading() as db:
            version = self._version(db)
            found = db.execute("SELECT value FROM key_pepper").fetchone()
            rows = db.execute(f"SELECT {_COLUMNS} FROM client_keys ORDER BY created_at, rowid")
            keys = tuple(self._key(row) for row in rows.fetchall())
        return Ring(version, b"" if found is None else found[0], keys)

    def create(self, name: str, terms: Terms) -> tuple[ClientKey, str]:
        """Make a key; return it and its secret, which is kept nowhere.

        Raises:
            KeyRefused: the name is taken, or the terms cannot be.
        """
        check_terms(name, terms)
        secret = new_secret()
        with self.place.changing(create=True) as db:
            if db.execute(
                "SELECT 1 FROM client_keys WHERE name = ? AND revoked_at IS NULL", (name,)
            ).fetchone():
                raise KeyRefused(
                    f"there is a key {name!r} already: choose another name, or rotate or revoke it"
                )
            id_ = f"key_{secrets.token_hex(8)}"
            key = ClientKey(id_, name, digest(pepper(db), secret), terms, self.clock())
            row = (key.id, name, key.digest, _json(terms), key.created_at, None, None, None)
            db.execute(f"INSERT INTO client_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._note(db, "create", key)
        return key.with_accounts(), secret

    def update(self, name: str, change: Callable[[Terms], Terms]) -> ClientKey:
        """Give a key, named by name or id, other terms; what it has spent stays.

        Raises:
            KeyRefused: there is no such key that is not revoked, or the terms cannot be.
        """
        with self.place.changing() as db:
            key = self._find(db, name)
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
        with self.place.changing() as db:
            key = replace(self._find(db, name), revoked_at=self.clock())
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
        with self.place.changing() as db:
            key = self._find(db, name)
            before = (key.digest, self.clock() + overlap_ms) if overlap_ms else (None, None)
            key = replace(
                key,
                digest=digest(pepper(db), secret),
                previous=before[0],
                previous_until=before[1],
            )
            db.execute(
                "UPDATE client_keys SET digest = ?, previous = ?, previous_until = ? WHERE id = ?",
                (key.digest, *before, key.id),
            )
            self._note(db, "rotate", key)
        return key, secret

    def _note(self, db: Session, action: str, key: ClientKey) -> None:
        """Write a line of the audit, in the transaction of the change itself."""
        row = (self.clock(), self.actor, action, key.id, key.name, _json(key.terms))
        db.execute(f"INSERT INTO audit ({_AUDIT}) VALUES (?, ?, ?, ?, ?, ?)", row)

    def _version(self, db: Session) -> int:
        row = db.execute(_VERSION).fetchone()
        if row is None:
            raise StoreError(
                f"The ledger {self.place.label} has no keys: it is one of an older Samplewise."
            )
        return int(row[0])

    def _key(self, row: Sequence[Any]) -> ClientKey:
        id_, name, digest_, text, *rest = row
        try:
            terms = msgspec.json.decode(text, type=Terms)
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"The ledger {self.place.label} has a key {id_} that cannot be read: {error}"
            ) from error
        return ClientKey(id_, name, digest_, terms, *rest).with_accounts()

    def _find(self, db: Session, name: str) -> ClientKey:
        row = db.execute(
            f"SELECT {_COLUMNS} FROM client_keys WHERE ? IN (name, id) AND revoked_at IS NULL",
            (name,),
        ).fetchone()
        if row is None:
            raise KeyRefused(
                f"there is no key {name[:128]!r} that is not revoked: "
                "`samplewise keys list` shows all of them"
            )
        return self._key(row)

    def check(self) -> None:
        """Bring the tables up to date; the store must exist.

        Raises:
            StoreError: there is no such store, or it is no ledger.
        """
        self.place.check()

    def close(self) -> None:
        """Let go of what is open."""
        self.place.close()


def key_store(url: str, actor: str = "") -> KeyStore:
    """Return the keys of the store that a checked URL names; nothing is opened yet.

    `actor` is whoever is going to change them.

    Raises:
        ConfigError: it is PostgreSQL, and the extra for that is not installed.
    """
    if not is_postgres(url):
        return KeyStore(SqlitePlace(store_path(url)), actor=actor)
    with postgres_extra():
        from samplewise.proxy.ledger.postgres_place import PostgresPlace
    return KeyStore(PostgresPlace(url), actor=actor)


def _json(terms: Terms) -> str:
    return msgspec.json.encode(terms).decode()


def pepper(db: Session) -> bytes:
    """Return the store's secret under the digests of its keys, made where there is none."""
    fresh = secrets.token_bytes(_PEPPER_BYTES)
    db.execute("INSERT INTO key_pepper VALUES (1, ?) ON CONFLICT DO NOTHING", (fresh,))
    found: bytes = db.execute("SELECT value FROM key_pepper").fetchone()[0]
    return found
