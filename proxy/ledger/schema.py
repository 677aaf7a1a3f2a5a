"""The tables of the SQLite ledger, how a file is opened and migrated, and every statement on it.

A statement takes all rows of a batch at once. Python drops its global lock at every step of SQLite
and waits up to 5 ms to get it back from a busy event loop, so the steps per batch must be few.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger.accounts import (
    Counter,
    Key,
    account_key,
    window_starts,
)
from samplewise.proxy.ledger.advice import ADVICE
from samplewise.proxy.ledger.base import Account, Balance
from samplewise.proxy.ledger.book import Book, Row
from samplewise.proxy.ledger.claims import CLAIMS
from samplewise.proxy.records.tables import SQLITE as RECORDS

__all__ = [
    "MIGRATIONS",
    "balances",
    "check_file",
    "claim_epoch",
    "connect",
    "identity",
    "load_counters",
    "load_rows",
    "open_file",
    "open_rows",
    "store",
]

_APPLICATION_ID = 0x5357_4C44  # "SWLD"
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
_MOST_ROWS = 512  # per statement: 20 values each stay below SQLite's limit of 32,766

_RESERVATIONS = """
CREATE TABLE reservations (
    id TEXT PRIMARY KEY NOT NULL,
    request_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    sample_index INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    is_sample INTEGER NOT NULL CHECK (is_sample IN (0, 1)),
    route TEXT NOT NULL,
    "key" TEXT NOT NULL,
    backend TEXT NOT NULL,
    model TEXT NOT NULL,
    accounts TEXT NOT NULL, -- [[scope, name, window, window_start], ...]: settled there
    nano_held INTEGER NOT NULL CHECK (nano_held >= 0),
    tokens_held INTEGER NOT NULL CHECK (tokens_held >= 0),
    state TEXT NOT NULL CHECK (state IN
        ('held', 'dispatched', 'settled', 'released', 'recovering', 'recovered')),
    seen_tokens INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    nano_settled INTEGER NOT NULL DEFAULT 0,
    overrun_nano INTEGER NOT NULL DEFAULT 0,
    usage_source TEXT NOT NULL DEFAULT 'none',
    price_version TEXT NOT NULL,
    owner_epoch INTEGER NOT NULL, -- which opening of the file holds the row
    taken_at INTEGER,             -- when it was taken over from one that died; UTC ms, as all times
    held_at INTEGER NOT NULL,
    dispatched_at INTEGER,
    settled_at INTEGER
) STRICT"""

_COUNTERS = """
CREATE TABLE counters (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    "window" TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    spent_nano INTEGER NOT NULL,
    spent_tokens INTEGER NOT NULL,
    spent_samples INTEGER NOT NULL,
    reserved_nano INTEGER NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    reserved_samples INTEGER NOT NULL,
    overrun_nano INTEGER NOT NULL,
    PRIMARY KEY (scope, name, "window", window_start)
) STRICT, WITHOUT ROWID"""

_META = """
CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID"""

_CLIENT_KEYS = """
CREATE TABLE client_keys (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE, -- HMAC-SHA256 of the secret under the pepper
    terms TEXT NOT NULL,         -- JSON: routes, limits, rate, expiry, tags
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT"""

_AUDIT = """
CREATE TABLE audit (
    at INTEGER NOT NULL,  -- UTC ms
    actor TEXT NOT NULL,  -- who: the admin key, or the user of the command
    action TEXT NOT NULL, -- create, update, rotate or revoke
    key_id TEXT NOT NULL,
    name TEXT NOT NULL,
    terms TEXT NOT NULL   -- JSON, as they are after it
) STRICT"""
_KEPT = """
CREATE TRIGGER audit_{what} BEFORE {what} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END"""

# Item n leads from schema version n to n + 1. Never change an item that was released: add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        _RESERVATIONS,
        _COUNTERS,
        _META,
        "CREATE INDEX reservations_open ON reservations (owner_epoch)"
        " WHERE state IN ('held', 'dispatched')",
        "CREATE INDEX reservations_request ON reservations (request_id)",
        "INSERT INTO meta VALUES ('epoch', 0)",
    ),
    (
        _CLIENT_KEYS,
        "CREATE TABLE key_pepper (id INTEGER PRIMARY KEY CHECK (id = 1), value BLOB NOT NULL)"
        " STRICT",
        "INSERT INTO meta VALUES ('keys', 0)",  # grows with every change of a key
    ),
    (
        # The digest of the secret before, and until when it is good.
        "ALTER TABLE client_keys ADD COLUMN previous BLOB",
        "ALTER TABLE client_keys ADD COLUMN previous_until INTEGER",
        _AUDIT,
        _KEPT.format(what="UPDATE"),
        _KEPT.format(what="DELETE"),
    ),
    RECORDS,
    (CLAIMS,),
)

_ROW_COLUMNS = (
    'id, request_id, call_id, sample_index, purpose, is_sample, route, "key", backend, model,'
    " accounts, nano_held, tokens_held, state, price_version, owner_epoch, held_at, dispatched_at"
)
_SETTLED_COLUMNS = (
    "id, state, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, nano_settled,"
    " overrun_nano, usage_source, settled_at"
)
_COUNTER_COLUMNS = tuple(
    '"window"' if name == "window" else name for name in Counter.__struct_fields__
)

# How long a process waits for another one's write.
_BUSY_S = 30.0


def connect(uri: str) -> sqlite3.Connection:
    """Open a file by URI; the ledger begins and ends its transactions itself."""
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)


def open_file(
    path: Path,
    *,
    create: bool,
    connect: Callable[[str], sqlite3.Connection] = connect,
    migrations: Sequence[Sequence[str]] = MIGRATIONS,
) -> sqlite3.Connection:
    """Open the ledger in `path` and bring its tables up to date.

    Raises:
        StoreError: the file is no ledger, or one of a newer Samplewise.
        sqlite3.Error: it cannot be opened or written.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(
            f"The ledger needs SQLite 3.37; this Python has {sqlite3.sqlite_version}."
            " Use a newer Python, or PostgreSQL as `store`."
        )
    if path.exists() and not os.access(path, os.W_OK):
        # SQLite would open it and leave read-only files beside it, which outlive a chmod.
        raise StoreError(f"The ledger {path} is read-only.{ADVICE['SQLITE_READONLY']}")
    if create and not path.exists():
        with suppress(OSError):  # SQLite says better why a file cannot be made
            path.touch(mode=0o600)
    db = connect(f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}")
    with ExitStack() as undo:
        undo.callback(db.close)
        db.execute("BEGIN")  # all of one commit: another process may just be making the tables
        check_file(db, path, len(migrations))
        db.execute("COMMIT")
        _configure(db, path)
        _migrate(db, path, migrations)
        undo.pop_all()
    return db


def check_file(db: sqlite3.Connection, path: Path, newest: int) -> int:
    """Return the schema version; refuse a file that this program must not touch."""
    version = int(_value(db, "PRAGMA user_version"))
    application = int(_value(db, "PRAGMA application_id"))
    tables = int(_value(db, "SELECT count(*) FROM sqlite_master"))
    if application != _APPLICATION_ID and (application or version or tables):
        raise StoreError(
            f"{path} is an SQLite file, but not a Samplewise ledger. Name another file in `store`."
        )
    if version > newest:
        raise StoreError(
            f"The ledger {path} has schema version {version}, this Samplewise knows {newest}."
            " Start the newer Samplewise, or name another file in `store`."
        )
    return version


def _configure(db: sqlite3.Connection, path: Path) -> None:
    mode = _write_ahead(db)
    if mode != "wal":
        raise StoreError(
            f"The ledger {path} cannot use a write-ahead log (mode {mode}). Put it on a local disk."
        )
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("PRAGMA cache_size = -16384")  # KiB: ids are random, so old index pages come back


def _write_ahead(db: sqlite3.Connection) -> str:
    """Switch a file to a write-ahead log and return its mode.

    Only a new file needs it. SQLite does not wait then for another process that does the same, so
    the waiting is ours.
    """
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            return str(_value(db, "PRAGMA journal_mode = WAL"))
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]]) -> None:
    if int(_value(db, "PRAGMA user_version")) == len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    # Another process may have done it while this one waited for the lock.
    version = check_file(db, path, len(migrations))
    for statement in itertools.chain.from_iterable(migrations[version:]):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {len(migrations)}")
    db.execute("COMMIT")


def claim_epoch(db: sqlite3.Connection) -> int:
    """Return a number that no other opening of this file has; its rows carry it."""
    return int(_value(db, "UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value"))


def _value(db: sqlite3.Connection, sql: str, *parameters: Any) -> Any:
    return db.execute(sql, parameters).fetchall()[0][0]


# One result row holds everything that was found: reading row by row would be a step each.
_LOAD_ROWS = f"""
SELECT json_group_array(json_array({", ".join("r." + name for name in Row.__struct_fields__)}))
FROM json_each(?) AS wanted CROSS JOIN reservations AS r ON r.id = wanted.value"""

_LOAD_COUNTERS = f"""
SELECT json_group_array(json_array({", ".join("c." + name for name in _COUNTER_COLUMNS)}))
FROM json_each(?) AS wanted CROSS JOIN counters AS c
ON c.scope = json_extract(wanted.value, '$[0]') AND c.name = json_extract(wanted.value, '$[1]')
    AND c."window" = json_extract(wanted.value, '$[2]')
    AND c.window_start = json_extract(wanted.value, '$[3]')"""

_OPEN_ROWS = "SELECT count(*) FROM reservations WHERE state IN ('held', 'dispatched')"

_MARK_DISPATCHED = """
UPDATE reservations SET state = 'dispatched', dispatched_at = ?
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'held'"""


def load_rows(db: sqlite3.Connection, ids: Iterable[str]) -> list[Row]:
    """Return the rows that exist, once per id given."""
    found = _value(db, _LOAD_ROWS, msgspec.json.encode(list(ids)).decode())
    return msgspec.json.decode(found, type=list[Row])


def load_counters(db: sqlite3.Connection, keys: Iterable[Key]) -> list[Counter]:
    """Return the counters that exist, once per key given. No name may hold a NUL."""
    found = _value(db, _LOAD_COUNTERS, msgspec.json.encode(list(keys)).decode())
    return msgspec.json.decode(found, type=list[Counter])


def store(db: sqlite3.Connection, book: Book) -> bool:
    """Write what became of the rows and counters of a book; return whether there was anything."""
    if book.added:
        _for_all(db, _add_rows_sql, book.added)
    if book.sent:
        db.execute(_MARK_DISPATCHED, (book.now_ms, msgspec.json.encode(book.sent).decode()))
    if book.ended:
        _for_all(db, _settle_rows_sql, book.ended)
    if book.changed:
        counters = [msgspec.structs.astuple(counter) for counter in book.changed.values()]
        _for_all(db, _store_counters_sql, counters)
    return bool(book.added or book.sent or book.ended)


def balances(db: sqlite3.Connection, now_ms: int, accounts: Sequence[Account]) -> list[Balance]:
    """Return what accounts have spent and reserved in their windows of now."""
    starts = window_starts(now_ms)
    keys = [account_key(account, starts) for account in accounts]
    found = {counter.key: counter for counter in load_counters(db, keys)}
    return [
        found.get(key, Counter(*key)).balance(account)
        for key, account in zip(keys, accounts, strict=True)
    ]


def open_rows(db: sqlite3.Connection, now_ms: int) -> int:
    """Return how many rows are held or dispatched."""
    return int(_value(db, _OPEN_ROWS))


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at `path` from another one that takes its place."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _for_all(
    db: sqlite3.Connection, sql: Callable[[int], str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Run a statement on up to `_MOST_ROWS` rows at a time.

    Sizes are powers of two, filled up with empty rows, so that few statements are ever prepared.
    """
    for start in range(0, len(rows), _MOST_ROWS):
        part = rows[start : start + _MOST_ROWS]
        size = 1 << (len(part) - 1).bit_length()
        values = list(itertools.chain.from_iterable(part))
        values += [None] * ((size - len(part)) * len(part[0]))
        db.execute(sql(size), values)


def _values(size: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return f"(VALUES {', '.join([row] * size)})"


def _insert(table: str, columns: Sequence[str], size: int) -> str:
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {_values(size, len(columns))}"
        " WHERE column1 IS NOT NULL"
    )


@lru_cache(maxsize=16)
def _add_rows_sql(size: int) -> str:
    return _insert("reservations", _ROW_COLUMNS.split(", "), size)


@lru_cache(maxsize=16)
def _store_counters_sql(size: int) -> str:
    changes = ", ".join(f"{name} = excluded.{name}" for name in _COUNTER_COLUMNS[4:])
    return (
        _insert("counters", _COUNTER_COLUMNS, size)
        + f' ON CONFLICT (scope, name, "window", window_start) DO UPDATE SET {changes}'
    )


@lru_cache(maxsize=16)
def _settle_rows_sql(size: int) -> str:
    _, *names = _SETTLED_COLUMNS.split(", ")
    changes = ", ".join(f"{name} = new.column{number}" for number, name in enumerate(names, 2))
    rows = _values(size, len(names) + 1)
    return f"UPDATE reservations AS r SET {changes} FROM {rows} AS new WHERE r.id = new.column1"
