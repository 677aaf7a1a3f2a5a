"""The thread that has the connection of an SQLite ledger: takes what is queued, commits once."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.advice import store_error
from samplewise.proxy.ledger.base import Account
from samplewise.proxy.ledger.book import Book
from samplewise.proxy.ledger.owners import Owner, is_dead
from samplewise.proxy.ledger.turns import Turn

__all__ = ["Operation", "Stats", "Writer"]

_log = structlog.get_logger("samplewise.ledger")
# What the writer waits for more operations where several come at once.
_GATHER_S = 0.001

# What a caller did wrong, as opposed to the store. Found late, it must not fail a whole batch.
_CALLER_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
)


@dataclass(slots=True)
class Stats:
    """What the writer has done since it was opened, for metrics.

    `unknown` counts settlements of rows that the ledger does not have, `kept` those that the store
    could not take yet.
    """

    commits: int = 0
    operations: int = 0
    unknown: int = 0
    kept: int = 0


@dataclass(slots=True, eq=False)
class Operation:
    """One operation: `apply` changes a book of the rows `ids`, `read` looks at what was written.

    A job that is `kept` is not given up when the store fails, but done again before anything else.
    """

    apply: Callable[[Book], Any] | None = None
    ids: Sequence[str] = ()
    accounts: Sequence[Account] = ()
    read: Callable[[sqlite3.Connection, int], Any] | None = None
    kept: bool = False
    last: bool = False
    future: asyncio.Future[Any] | None = None
    result: Any = None
    error: StoreError | None = None


class Writer:
    """The thread that has the connection. Everything but `submit` and `alive` runs in it."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], int],
        connect: Callable[[str], sqlite3.Connection],
        turn: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Start the thread. `turn` is held while it writes; by default that of the file."""
        self.stats = Stats()
        self.alive = True
        self.path = path
        self.clock = clock
        self._connect = connect
        self._turns = Turn(path)
        self._turn = turn or self._turns.taken
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Operation] = queue.SimpleQueue()
        self._kept: list[Operation] = []
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._epoch = 0
        self._owner: Owner | None = None
        self._crowd = 0
        self._doubted = False
        # A daemon: a program that ends without `close` must end all the same.
        threading.Thread(target=self._run, name="samplewise-ledger", daemon=True).start()

    def epoch(self) -> int:
        """Return the number of this opening of the file."""
        return self._epoch

    def is_dead(self, epoch: int) -> bool:
        """Say whether the process of another opening has ended."""
        return is_dead(self.path, epoch)

    def submit(self, job: Operation) -> asyncio.Future[Any]:
        """Queue a job for the running loop. Returns at once."""
        with self._lock:
            if not self.alive:
                raise StoreError(f"The ledger {self.path} is closed.")
            future = job.future = asyncio.get_running_loop().create_future()
            self._queue.put(job)
        return future

    def _run(self) -> None:
        jobs: list[Operation] = []
        last = False
        try:
            while not last:
                jobs = self._take()
                last = any(job.last for job in jobs)
                self._serve([job for job in jobs if not job.last])
                if last:
                    self._end()
                    if self._kept:
                        self._fail([job for job in jobs if job.last], self._reason([]))
                self._answer(jobs)
                jobs = []
        finally:
            # Also when a defect ends the thread: then nothing may be sent any more.
            self._end()
            while not self._queue.empty():
                jobs.append(self._queue.get())
            self._fail(jobs, StoreError(f"The ledger {self.path} is closed."))
            self._answer(jobs)

    def _end(self) -> None:
        with self._lock:  # from now on nothing is queued that nobody would take
            self.alive = False
        self._drop()
        self._turns.close()
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _take(self) -> list[Operation]:
        jobs = [self._queue.get()]
        if self._crowd > 1:
            # Others are at work: a moment later more have come, and one write does for all.
            time.sleep(_GATHER_S)
        while not self._queue.empty():
            jobs.append(self._queue.get())
        self._crowd = len(jobs)
        return jobs

    def _serve(self, jobs: list[Operation]) -> None:
        if self._kept:
            # Alone, because a settlement may find room on a full disk where a reservation does not.
            kept, self._kept = self._kept, []
            self._attempt(kept)
        if self._kept:
            self._fail(jobs, self._reason(jobs))
        elif jobs:
            self._attempt(jobs)
        self.stats.kept = len(self._kept)

    def _attempt(self, jobs: list[Operation]) -> None:
        """Do jobs in one transaction. One that cannot be done at all fails alone."""
        try:
            self._transact(jobs)
        except _CALLER_ERRORS as error:
            self._drop()
            if len(jobs) > 1:
                for job in jobs:
                    self._attempt([job])
                return
            jobs[0].kept = False
            self._fail(jobs, StoreError(f"The ledger {self.path} refused: {error}"))
        except (StoreError, sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            self._drop()
            self._doubted = True
            self._fail(jobs, store_error(self.path, error))

    def _transact(self, jobs: list[Operation]) -> None:
        db = self._connected()
        writes = sum(job.apply is not None for job in jobs)
        with self._turn() if writes else nullcontext():
            wrote = self._commit(db, jobs, writes)
        if wrote:
            self._doubted = False
        elif self._doubted:
            self._drop()  # opened while the file was read-only, it would stay so
        if writes:
            self.stats.commits += 1
            self.stats.operations += writes

    def _commit(self, db: sqlite3.Connection, jobs: list[Operation], writes: int) -> bool:
        """Do jobs and commit; return whether rows were written."""
        db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        now = self.clock()  # not before: the wait for the lock can be long
        book = self._book(db, now, jobs)
        for job in jobs:
            if job.apply is not None:
                job.error = None
                try:
                    job.result = job.apply(book)
                except StoreError as error:
                    job.error = error
        wrote = schema.store(db, book)
        for job in jobs:
            if job.read is not None:
                job.error, job.result = None, job.read(db, now)
        db.execute("COMMIT")
        if book.unknown:
            self.stats.unknown += len(book.unknown)
            _log.error("settled rows that the ledger does not have", ids=book.unknown[:8])
        return wrote

    def _book(self, db: sqlite3.Connection, now: int, jobs: list[Operation]) -> Book:
        ids = [id_ for job in jobs for id_ in job.ids]
        book = Book(schema.load_rows(db, ids) if ids else (), now, self._epoch)
        keys = book.keys(account for job in jobs for account in job.accounts)
        if keys:
            book.adopt(schema.load_counters(db, keys))
        return book

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None and schema.identity(self.path) == self._file:
            return self._db
        self._drop()
        # Once opened, a file that is gone is not made anew: every limit would start at zero.
        db = schema.open_file(self.path, create=self._file is None, connect=self._connect)
        self._db, file = db, schema.identity(self.path)
        if file != self._file:
            epoch = schema.claim_epoch(db)
            owner, before = Owner(self.path, epoch), self._owner
            self._owner, self._epoch, self._file = owner, epoch, file
            if before is not None:
                before.close()
        return db

    def _drop(self) -> None:
        """Give up the connection and whatever it has not committed. The next job opens another."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _fail(self, jobs: list[Operation], reason: StoreError) -> None:
        for job in jobs:
            # One error per job: a raised error collects the traceback of who waited for it.
            job.error = StoreError(str(reason))
            job.error.__cause__ = reason.__cause__
            if job.kept:
                self._kept.append(job)

    def _reason(self, more: list[Operation]) -> StoreError:
        waiting = len(self._kept) + sum(job.kept for job in more)
        return StoreError(f"{self._kept[0].error} Settlements that wait to be written: {waiting}.")

    def _answer(self, jobs: list[Operation]) -> None:
        """Wake everybody who waits for these jobs, with one call per event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[Operation]] = {}
        for job in jobs:
            if job.future is not None:
                loops.setdefault(job.future.get_loop(), []).append(job)
        for loop, done in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_resolve, done)


def _resolve(jobs: list[Operation]) -> None:
    for job in jobs:
        future, job.future = job.future, None
        if future is None or future.done():  # cancelled: what was asked for is done all the same
            continue
        if job.error is None:
            future.set_result(job.result)
        else:
            future.set_exception(job.error)
