"""A PostgreSQL ledger used by whoever can wait for it. Needs the extra `postgres`."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from samplewise.proxy.ledger import postgres_connect as server
from samplewise.proxy.ledger.places import Session

__all__ = ["PostgresPlace"]

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# It need not be on disk when it is told to be done: a crash may take the last of it.
_WRITE = "BEGIN; SET LOCAL synchronous_commit = off"
# The first thing that a change does: the next one waits here until it is committed.
_CHANGE = "BEGIN; UPDATE samplewise.meta SET value = value + 1 WHERE name = 'keys'"


class PostgresPlace:
    """A ledger's database, with one connection that stays open: servers look twice a second.

    The connection lives in a thread with a loop of its own, so it can be used from any other.
    """

    def __init__(self, url: str, timeout_s: float | None = 15.0, *, change: str = _CHANGE) -> None:
        """Open nothing yet. `change` is how a change begins; without it servers notice each."""
        self._url = url
        self._change = change
        self._timeout_s = timeout_s
        self._db: Any = None
        self._lock = threading.Lock()
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="samplewise-store")

    @property
    def label(self) -> str:
        """The URL, without its options."""
        return server.label(self._url)

    def check(self) -> None:
        """Bring the database's tables up to date; they must exist.

        Raises:
            StoreError: the database cannot be reached, or has no ledger.
        """
        with self._lock, self._told():
            self._connect(update=True)

    def reading(self) -> AbstractContextManager[Session]:
        """Read in one transaction."""
        return self._transaction(_READ, self._connect)

    def changing(self, *, create: bool = False) -> AbstractContextManager[Session]:
        """Change something, whole or not at all, one at a time, so that servers notice."""
        return self._transaction(self._change, lambda: self._connect(create=create, update=True))

    def writing(self) -> AbstractContextManager[Session]:
        """Write what nobody waits for, whole or not at all."""
        return self._transaction(_WRITE, self._connect)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()
            self._thread.submit(self._runner.close).result()
            self._thread.shutdown()

    @contextmanager
    def _transaction(self, begin: str, connect: Callable[[], None]) -> Iterator[_Session]:
        with self._lock, self._told(), ExitStack() as undo:
            undo.callback(self._drop)  # whatever fails, the connection with its transaction goes
            self._begin(begin, connect)
            yield _Session(self._run, self._db)
            self._run(self._db.execute("COMMIT"))
            undo.pop_all()

    def _begin(self, statement: str, connect: Callable[[], None]) -> None:
        if self._db is not None:
            try:
                self._run(self._db.execute(statement))
            except server.STORE_ERRORS:
                self._drop()  # the server was restarted, say, while nothing was asked
            else:
                return
        connect()
        self._run(self._db.execute(statement))

    def _connect(self, *, create: bool = False, update: bool = False) -> None:
        if self._db is None:
            self._db = self._run(server.connect(self._url, create=create, update=update))
            self._run(self._db.execute("SET search_path = samplewise"))

    def _drop(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            # In its loop, which must turn once more for it.
            self._run(_end(db))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._thread.submit(self._runner.run, self._in_time(work)).result()

    async def _in_time(self, work: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(self._timeout_s):
            return await work

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what is wrong with the database."""
        try:
            yield
        except server.STORE_ERRORS as error:
            raise server.store_error(self._url, error) from error


class _Session:
    """A transaction on a connection, for whoever cannot wait in an event loop."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], db: Any) -> None:
        self._run = run
        self._db = db

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Rows:
        """Do one statement with `?` for its values in their order, or `?1`, `?2`."""
        numbers = itertools.count(1)
        numbered = re.sub(r"\?(\d*)", lambda found: f"${found[1] or next(numbers)}", sql)
        return _Rows(self._run(self._db.fetch(numbered, *parameters)))


class _Rows:
    """What a statement has found."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None at the end."""
        return next(map(tuple, self._rows), None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows that are left."""
        return [tuple(row) for row in self._rows]


async def _end(db: Any) -> None:
    db.terminate()
