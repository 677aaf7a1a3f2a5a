"""The ledger of one machine: an SQLite file with one writer thread and group commit.

The thread takes every operation that is queued, loads the rows and counters they name, applies the
operations one after another in memory, writes the outcome and commits once for all. Room is read
inside the transaction, so limits are exact for any number of processes on the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import (
    Book,
    Totals,
    check_settlements,
    check_wave,
    utc_ms,
)
from samplewise.proxy.ledger.base import Account, Balance, Grant, Recent, Settlement, State, Wave
from samplewise.proxy.ledger.spend import recent

__all__ = ["SqliteLedger", "Stats", "Totals"]

_log = structlog.get_logger("samplewise.ledger")
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
    commit_seconds: float = 0.0
    unknown: int = 0
    kept: int = 0


@dataclass(slots=True, eq=False)
class _Job:
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


class SqliteLedger:
    """A `Ledger` in one SQLite file. Every write that returned survives a crash and a power cut.

    Any number of processes may open the same file, on one machine. Create one with `open`.
    """

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        clock: Callable[[], int] = utc_ms,
        connect: Callable[[str], sqlite3.Connection] = schema.connect,
    ) -> SqliteLedger:
        """Open the ledger in `path`, or create it there; the folder must exist.

        Args:
            path: the file. Next to it SQLite keeps two more, `-wal` and `-shm`.
            clock: the time in UTC milliseconds, which picks the windows. Called by the writer.
            connect: opens the file by URI.

        Raises:
            StoreError: the file cannot be opened and written, or belongs to something else.
        """
        ledger = cls(_Writer(Path(path), clock, connect))
        try:
            await ledger._writer.submit(_Job(apply=lambda book: None))
        except (StoreError, asyncio.CancelledError):
            await ledger.close()
            raise
        return ledger

    @property
    def stats(self) -> Stats:
        """Return counts that grow while the ledger works."""
        return self._writer.stats

    async def reserve(self, wave: Wave) -> Grant:
        """Reserve as many leading bundles as fit into all accounts; durable when it returns.

        When the caller is cancelled meanwhile, whatever was reserved is released again.

        Raises:
            StoreError: the store failed, or has one of the rows already. Nothing is reserved.
            ValueError: an amount is negative or too large, or a name holds a NUL.
        """
        check_wave(wave)
        ids = [hold.id for bundle in wave.bundles for hold in bundle]
        job = _Job(lambda book: book.reserve(wave), ids, wave.accounts)
        future = self._writer.submit(job)
        try:
            grant: Grant = await future
        except asyncio.CancelledError:
            undo = partial(_undo, wave=wave, reserving=job)
            with contextlib.suppress(StoreError):  # closed: the rows stay held, the safe side
                self._writer.submit(_Job(undo, ids, kept=True)).cancel()
            raise
        return grant

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Mark held rows as about to be sent; durable when it returns. Sent rows stay as they are.

        Raises:
            StoreError: the store failed, or a row is not open any more: none of them may be sent.
        """
        rows = tuple(ids)
        await self._writer.submit(_Job(lambda book: book.dispatch(rows), rows))

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """Post what rows cost and free their reservations. Settling a row again changes nothing.

        Queued when it returns: it is written even if nobody awaits it. Rows that the ledger does
        not have are counted, logged and ignored.

        Raises:
            StoreError: the store failed. The settlements are kept and written when it works again.
            ValueError: a state that is no end, or an amount that cannot be. Nothing is settled.
        """
        check_settlements(settlements)
        rows = tuple(settlements)  # the caller's own may change before the writer reads it
        ids = [row.id for row in rows]
        return self._writer.submit(_Job(lambda book: book.settle(rows), ids, kept=True))

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Read accounts as of now, in the order given."""
        balances: list[Balance] = await self._read(partial(schema.balances, accounts=accounts))
        return balances

    async def recent(self, route: str, days: int) -> Recent:
        """Return what requests of a route have cost in the last days, of the newest 10,000 rows.

        Read on a connection of its own, so that the writer does not wait for it.
        """
        since_ms = self._writer.clock() - days * 86_400_000
        return await asyncio.to_thread(recent, self._writer.path, route, since_ms)

    async def open_rows(self) -> int:
        """Return how many rows are held or dispatched. Cheap."""
        return int(await self._read(schema.open_rows))

    async def totals(self) -> Totals:
        """Add up all rows and compare every counter with its rows.

        Reads the whole ledger, about 10 s per million rows, on a connection of its own.
        """
        await self.open_rows()  # what was asked for before is written by then
        return await asyncio.to_thread(schema.totals, self._writer.path)

    async def close(self) -> None:
        """Write what is queued and close the file. Closing again waits for the same end.

        Raises:
            StoreError: settlements could not be written. Their rows stay reserved.
        """
        if self._closing is None:
            if not self._writer.alive:
                return
            self._closing = self._writer.submit(_Job(last=True))
        await asyncio.shield(self._closing)

    def _read(self, read: Callable[[sqlite3.Connection, int], Any]) -> asyncio.Future[Any]:
        return self._writer.submit(_Job(read=read))


class _Writer:
    """The thread that has the connection. Everything but `submit` and `alive` runs in it."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], int],
        connect: Callable[[str], sqlite3.Connection],
    ) -> None:
        self.stats = Stats()
        self.alive = True
        self.path = path
        self.clock = clock
        self._connect = connect
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._kept: list[_Job] = []
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._epoch = 0
        self._crowd = 0
        self._doubted = False
        # A daemon: a program that ends without `close` must end all the same.
        threading.Thread(target=self._run, name="samplewise-ledger", daemon=True).start()

    def submit(self, job: _Job) -> asyncio.Future[Any]:
        """Queue a job for the running loop. Returns at once."""
        with self._lock:
            if not self.alive:
                raise StoreError(f"The ledger {self.path} is closed.")
            future = job.future = asyncio.get_running_loop().create_future()
            self._queue.put(job)
        return future

    def _run(self) -> None:
        jobs: list[_Job] = []
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

    def _take(self) -> list[_Job]:
        jobs = [self._queue.get()]
        if self._crowd > 1:
            # Others are at work: a moment later more have come, and one write does for all.
            time.sleep(_GATHER_S)
        while not self._queue.empty():
            jobs.append(self._queue.get())
        self._crowd = len(jobs)
        return jobs

    def _serve(self, jobs: list[_Job]) -> None:
        if self._kept:
            # Alone, because a settlement may find room on a full disk where a reservation does not.
            kept, self._kept = self._kept, []
            self._attempt(kept)
        if self._kept:
            self._fail(jobs, self._reason(jobs))
        elif jobs:
            self._attempt(jobs)
        self.stats.kept = len(self._kept)

    def _attempt(self, jobs: list[_Job]) -> None:
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
            self._fail(jobs, schema.store_error(self.path, error))

    def _transact(self, jobs: list[_Job]) -> None:
        db = self._connected()
        writes = sum(job.apply is not None for job in jobs)
        start = time.perf_counter()
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
        if wrote:
            self._doubted = False
        elif self._doubted:
            self._drop()  # opened while the file was read-only, it would stay so
        if writes:
            self.stats.commits += 1
            self.stats.operations += writes
            self.stats.commit_seconds += time.perf_counter() - start
        if book.unknown:
            self.stats.unknown += len(book.unknown)
            _log.error("settled rows that the ledger does not have", ids=book.unknown[:8])

    def _book(self, db: sqlite3.Connection, now: int, jobs: list[_Job]) -> Book:
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
            self._epoch, self._file = schema.claim_epoch(db), file
        return db

    def _drop(self) -> None:
        """Give up the connection and whatever it has not committed. The next job opens another."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _fail(self, jobs: list[_Job], reason: StoreError) -> None:
        for job in jobs:
            # One error per job: a raised error collects the traceback of who waited for it.
            job.error = StoreError(str(reason))
            job.error.__cause__ = reason.__cause__
            if job.kept:
                self._kept.append(job)

    def _reason(self, more: list[_Job]) -> StoreError:
        waiting = len(self._kept) + sum(job.kept for job in more)
        return StoreError(f"{self._kept[0].error} Settlements that wait to be written: {waiting}.")

    def _answer(self, jobs: list[_Job]) -> None:
        """Wake everybody who waits for these jobs, with one call per event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in jobs:
            if job.future is not None:
                loops.setdefault(job.future.get_loop(), []).append(job)
        for loop, done in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_resolve, done)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        future, job.future = job.future, None
        if future is None or future.done():  # cancelled: what was asked for is done all the same
            continue
        if job.error is None:
            future.set_result(job.result)
        else:
            future.set_exception(job.error)


def _undo(book: Book, wave: Wave, reserving: _Job) -> None:
    """Release what a wave got whose caller is gone; never rows that somebody else reserved."""
    if reserving.error is None and reserving.result is not None:
        bundles = wave.bundles[: reserving.result.bundles]
        book.settle(
            Settlement(hold.id, 0, state=State.RELEASED) for bundle in bundles for hold in bundle
        )
