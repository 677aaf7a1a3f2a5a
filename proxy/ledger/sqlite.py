"""The ledger of one machine: an SQLite file with one writer thread and group commit.

The thread takes every operation that is queued, loads the rows and counters they name, applies the
operations one after another in memory, writes the outcome and commits once for all. Room is read
inside the transaction, so limits are exact for any number of processes on the same file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import schema
from samplewise.proxy.ledger.accounts import (
    Totals,
    check_settlements,
    check_wave,
    utc_ms,
)
from samplewise.proxy.ledger.base import Account, Balance, Grant, Recent, Settlement, State, Wave
from samplewise.proxy.ledger.book import Book
from samplewise.proxy.ledger.claims import Claim, claim, let_go, sweep
from samplewise.proxy.ledger.orphans import Orphan, note_seen, take_over, without_held
from samplewise.proxy.ledger.spend import recent
from samplewise.proxy.ledger.totals import add_up
from samplewise.proxy.ledger.writer import Operation, Stats, Writer
from samplewise.proxy.threads import InThread

__all__ = ["SqliteLedger", "Stats", "Totals"]


class SqliteLedger:
    """A `Ledger` in one SQLite file. Every write that returned survives a crash and a power cut.

    Any number of processes may open the same file, on one machine. Create one with `open`.
    """

    def __init__(self, writer: Writer, in_thread: InThread = asyncio.to_thread) -> None:
        self._writer = writer
        self._in_thread = in_thread
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        clock: Callable[[], int] = utc_ms,
        connect: Callable[[str], sqlite3.Connection] = schema.connect,
        in_thread: InThread = asyncio.to_thread,
    ) -> SqliteLedger:
        """Open the ledger in `path`, or create it there; the folder must exist.

        Args:
            path: the file. Next to it SQLite keeps two more, `-wal` and `-shm`.
            clock: the time in UTC milliseconds, which picks the windows. Called by the writer.
            connect: opens the file by URI.
            in_thread: does long reads, beside the writer.

        Raises:
            StoreError: the file cannot be opened and written, or belongs to something else.
        """
        ledger = cls(Writer(Path(path), clock, connect), in_thread)
        try:
            await ledger._writer.submit(Operation(apply=lambda book: None))
        except (StoreError, asyncio.CancelledError):
            await ledger.close()
            raise
        return ledger

    @property
    def orphans_every_s(self) -> float:
        """Return how often to ask for orphans, in seconds."""
        return 10.0

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
        job = Operation(lambda book: book.reserve(wave), ids, wave.accounts)
        future = self._writer.submit(job)
        try:
            grant: Grant = await future
        except asyncio.CancelledError:
            undo = partial(_undo, wave=wave, reserving=job)
            with contextlib.suppress(StoreError):  # closed: the rows stay held, the safe side
                self._writer.submit(Operation(undo, ids, kept=True)).cancel()
            raise
        return grant

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Mark held rows as about to be sent; durable when it returns. Sent rows stay as they are.

        Raises:
            StoreError: the store failed, or a row is not open any more: none of them may be sent.
        """
        rows = tuple(ids)
        await self._writer.submit(Operation(lambda book: book.dispatch(rows), rows))

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
        return self._writer.submit(Operation(lambda book: book.settle(rows), ids, kept=True))

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Read accounts as of now, in the order given."""
        balances: list[Balance] = await self._read(partial(schema.balances, accounts=accounts))
        return balances

    def checkpoint(self, seen: Mapping[str, int]) -> asyncio.Future[None]:
        """Remember how far open rows have come; durable when the future is done.

        Raises:
            StoreError: the store failed. Nothing is remembered.
        """
        note = partial(note_seen, seen=dict(seen))
        return self._writer.submit(Operation(apply=lambda book: None, read=note))

    async def orphans(self) -> Sequence[Orphan]:
        """Take over the open rows of processes that died, and return those that may have cost.

        Held rows were never sent: they are released here. The others are ours from now on, to be
        settled as `recovered`.

        Raises:
            StoreError: the store failed. Nothing is lost: ask again.
        """
        writer = self._writer

        def take(db: sqlite3.Connection, now_ms: int) -> list[Orphan]:
            sweep(db, now_ms, epoch=writer.epoch, is_dead=writer.is_dead)
            return take_over(db, now_ms, epoch=writer.epoch, is_dead=writer.is_dead)

        job = Operation(apply=lambda book: None, read=take)
        return await without_held(self, await writer.submit(job))

    async def claim(self, name: bytes, digest: bytes, address: str) -> Claim | None:
        """Claim a request; return the claim of another process that lives and has it.

        Raises:
            StoreError: the store failed. Nothing is claimed.
        """
        writer = self._writer
        take = partial(
            claim,
            name=name,
            digest=digest,
            address=address,
            epoch=writer.epoch,
            is_dead=writer.is_dead,
        )
        found: Claim | None = await writer.submit(Operation(apply=lambda book: None, read=take))
        return found

    def let_go(self, ends: Mapping[bytes, int]) -> asyncio.Future[None]:
        """End claims of ours, see `ClaimStore`; durable when the future is done.

        Raises:
            StoreError: the store failed. Nothing is ended.
        """
        end = partial(let_go, ends=dict(ends), epoch=self._writer.epoch)
        return self._writer.submit(Operation(apply=lambda book: None, read=end))

    async def recent(self, route: str, days: int) -> Recent:
        """Return what requests of a route have cost in the last days, of the newest 10,000 rows.

        Read on a connection of its own, so that the writer does not wait for it.
        """
        since_ms = self._writer.clock() - days * 86_400_000
        return await self._in_thread(recent, self._writer.path, route, since_ms)

    async def open_rows(self) -> int:
        """Return how many rows are held or dispatched. Cheap."""
        return int(await self._read(schema.open_rows))

    async def totals(self) -> Totals:
        """Add up all rows and compare every counter with its rows.

        Reads the whole ledger, about 10 s per million rows, on a connection of its own.
        """
        await self.open_rows()  # what was asked for before is written by then
        return await self._in_thread(add_up, self._writer.path)

    async def close(self) -> None:
        """Write what is queued and close the file. Closing again waits for the same end.

        Raises:
            StoreError: settlements could not be written. Their rows stay reserved.
        """
        if self._closing is None:
            if not self._writer.alive:
                return
            self._closing = self._writer.submit(Operation(last=True))
        await asyncio.shield(self._closing)

    def _read(self, read: Callable[[sqlite3.Connection, int], Any]) -> asyncio.Future[Any]:
        return self._writer.submit(Operation(read=read))


def _undo(book: Book, wave: Wave, reserving: Operation) -> None:
    """Release what a wave got whose caller is gone; never rows that somebody else reserved."""
    if reserving.error is None and reserving.result is not None:
        bundles = wave.bundles[: reserving.result.bundles]
        book.settle(
            Settlement(hold.id, 0, state=State.RELEASED) for bundle in bundles for hold in bundle
        )
