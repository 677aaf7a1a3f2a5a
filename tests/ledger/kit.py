"""Short ways to write waves and settlements, and small real stand-ins for time and files."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from samplewise.policies.price import Usage
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.base import (
    Account,
    Balance,
    Hold,
    Limit,
    Scope,
    Settlement,
    State,
    UsageSource,
    Wave,
    Window,
)
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres import PostgresLedger
from samplewise.proxy.ledger.sqlite import SqliteLedger

NOON = int(datetime(2024, 2, 29, 12, 30, tzinfo=UTC).timestamp()) * 1000
HOUR = 3_600_000
DAY = 24 * HOUR

AnyLedger: TypeAlias = SqliteLedger | PostgresLedger

_requests = itertools.count()


class Clock:
    """UTC milliseconds that pass only when a test says so; `stop` holds the writer in a batch."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now
        self.reached = threading.Event()
        self._go = threading.Event()
        self._go.set()

    def __call__(self) -> int:
        self.reached.set()
        self._go.wait()
        return self.now

    def stop(self) -> None:
        self.reached.clear()
        self._go.clear()

    def go(self) -> None:
        self._go.set()


class Disk:
    """Opens files like the ledger does, and can be made to fail: read-only, or with few pages."""

    def __init__(self) -> None:
        self.writable = True
        self.pages = 0
        self.statements: list[str] = []
        self.connections: list[sqlite3.Connection] = []

    def __call__(self, uri: str) -> sqlite3.Connection:
        if not self.writable:
            uri = uri.replace("mode=rwc", "mode=ro").replace("mode=rw", "mode=ro")
        db = sqlite3.connect(
            uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False
        )
        db.set_trace_callback(self.statements.append)
        self.connections.append(db)
        self._limit(db)
        return db

    def freeze(self) -> None:
        """Make the disk read-only, while the writer is idle."""
        self._set_writable(False)

    def thaw(self) -> None:
        """Make the disk writable again, while the writer is idle."""
        self._set_writable(True)

    def fill(self, pages: int) -> None:
        """Leave room for this many pages in all, while the writer is idle; 0 is no limit."""
        self.pages = pages
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed: it matters to the next one
            self._limit(self.connections[-1])

    def _set_writable(self, writable: bool) -> None:
        self.writable = writable
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed: it matters to the next one
            self.connections[-1].execute(f"PRAGMA query_only = {not writable}")

    def _limit(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA max_page_count = {self.pages or 2**30}")


def account(
    name: str = "alice",
    window: Window = Window.DAY,
    nano: int | None = None,
    *,
    tokens: int | None = None,
    samples: int | None = None,
    scope: Scope = Scope.KEY,
) -> Account:
    return Account(scope, name, window, Limit(nano, tokens, samples))


def hold(id_: str, nano: int = 100, tokens: int = 10, *, sample: bool = True) -> Hold:
    purpose = "sample" if sample else "verify"
    return Hold(id_, f"call-{id_}", 0, "local", "m", purpose, nano, tokens, "v1", sample)


def wave(
    *accounts: Account,
    ids: Sequence[str] = (),
    holds: Sequence[Hold] = (),
    bundles: Sequence[tuple[Hold, ...]] = (),
    dispatched: bool = True,
) -> Wave:
    """Make a wave of one bundle per id, per hold, or as given."""
    rows = tuple(bundles) or tuple((row,) for row in holds or [hold(id_) for id_ in ids])
    return Wave(f"req-{next(_requests)}", "math", "alice", accounts, rows, dispatched)


def spent(id_: str, nano: int, tokens: int = 0) -> Settlement:
    return Settlement(id_, nano, Usage(completion=tokens), UsageSource.PROVIDER)


def released(id_: str) -> Settlement:
    return Settlement(id_, 0, state=State.RELEASED)


def nano(balance: Balance) -> tuple[int | None, int | None]:
    """Return what is spent and what is reserved."""
    return balance.spent.nano, balance.reserved.nano


async def nano_of(ledger: AnyLedger, one: Account) -> tuple[int | None, int | None]:
    return nano((await ledger.balances([one]))[0])


async def check_sums(ledger: AnyLedger) -> None:
    """Every counter is the sum of its rows."""
    totals = await ledger.totals()
    assert totals.wrong_counters == 0, totals


def many_chunks() -> Chunks:
    """Return what leases room of every counter that is touched, at once."""
    return Chunks(size_nano=10**12, hot=0, least=1, most=6)


async def open_ledger(where: Path | str, clock: Callable[[], int] | None = None) -> AnyLedger:
    """Open the ledger in a file, or in the database at a URL."""
    if isinstance(where, str):
        return await PostgresLedger.open(where, clock=clock)
    return await SqliteLedger.open(where, clock=clock or utc_ms)


def content(path: Path) -> bytes | None:
    """Return what is in a file, None if there is none."""
    return path.read_bytes() if path.exists() else None


def rows(path: Path, columns: str = "*", where: str = "1") -> list[tuple[object, ...]]:
    """Read rows of the file with a connection of its own."""
    db = schema.connect(f"{path.as_uri()}?mode=ro")
    try:
        return db.execute(f"SELECT {columns} FROM reservations WHERE {where}").fetchall()
    finally:
        db.close()
