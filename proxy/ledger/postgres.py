"""The ledger of many machines: a PostgreSQL database. Needs the extra `postgres`.

Room is read under row locks, so limits are exact for any number of processes on any number of
machines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import postgres_connect as server
from samplewise.proxy.ledger.accounts import Counter, Totals, check_settlements, check_wave
from samplewise.proxy.ledger.base import Account, Balance, Grant, Recent, Settlement, Wave
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.claims import Claim
from samplewise.proxy.ledger.orphans import Orphan, ordered, without_held
from samplewise.proxy.ledger.postgres_claims import CLAIM, LET_GO, SWEEP_CLAIMS
from samplewise.proxy.ledger.postgres_jobs import Job, encode, encode_wave, repeated, settle_job
from samplewise.proxy.ledger.postgres_leases import NOTE_SEEN, TAKE_OVER
from samplewise.proxy.ledger.postgres_queries import OPEN_ROWS
from samplewise.proxy.ledger.postgres_writer import Writer
from samplewise.proxy.ledger.sqlite import Stats

__all__ = ["PostgresLedger"]


class PostgresLedger:
    """A `Ledger` in a PostgreSQL database. Every write that returned is committed there.

    To be used in the event loop it was opened in. Create one with `open`.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls, url: str, *, clock: Callable[[], int] | None = None, chunks: Chunks | None = None
    ) -> PostgresLedger:
        """Open the ledger in a database, or create its tables there; the database must exist.

        Args:
            url: `postgresql://user@host:port/database`; asyncpg reads PGPASSWORD and others.
            clock: the time in UTC milliseconds, which picks the windows; the server's if None.
            chunks: which room of hot counters this process leases; None for none.

        Raises:
            StoreError: the database cannot be reached and used, or belongs to something else.
        """
        writer = Writer(url, clock, chunks)
        try:
            await writer.begin()
        except server.STORE_ERRORS as error:
            raise server.store_error(url, error) from None
        return cls(writer)

    @property
    def orphans_every_s(self) -> float:
        """Return how often to ask for orphans, in seconds: three times in a lease."""
        return self._writer.lease.third_s

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
        if len(set(ids)) < len(ids):
            raise repeated(ids[0])
        try:
            body = encode_wave(wave)
        except (UnicodeEncodeError, TypeError) as error:
            raise StoreError(f"The ledger {self._writer.label} refused: {error}") from error
        future = self._writer.submit(Job("reserve", body, wave=wave))
        try:
            grant: Grant = await future
        except asyncio.CancelledError:
            # Otherwise the writer sees that nobody waits: it does not begin, or releases.
            if not future.cancelled() and future.exception() is None:
                self._writer.release(wave, future.result())
            raise
        if not self._writer.lease.holds:
            self._writer.release(wave, grant)
            raise self._paused()
        return grant

    async def dispatch(self, ids: Sequence[str]) -> None:
        """Mark held rows as about to be sent; durable when it returns. Sent rows stay as they are.

        Raises:
            StoreError: the store failed, or a row is not open any more: none of them may be sent.
        """
        rows = list(ids)
        body = msgspec.json.encode(("dispatch", rows))
        await self._writer.submit(Job("dispatch", body, rows))
        if not self._writer.lease.holds:
            raise self._paused()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """Post what rows cost and free their reservations. Settling a row again changes nothing.

        Queued when it returns: it is written even if nobody awaits it. Rows that the ledger does
        not have are counted, logged and ignored.

        Raises:
            StoreError: the store failed. The settlements are kept and written when it works again.
            ValueError: a state that is no end, or an amount that cannot be. Nothing is settled.
        """
        check_settlements(settlements)
        return self._writer.submit(settle_job(settlements))

    def checkpoint(self, seen: Mapping[str, int]) -> asyncio.Future[None]:
        """Remember how far open rows have come; durable when the future is done.

        Raises:
            StoreError: the store failed. Nothing is remembered.
        """
        body = encode(seen)
        return self._writer.submit(Job("read", read=lambda db: db.execute(NOTE_SEEN, body)))

    async def balances(self, accounts: Sequence[Account]) -> Sequence[Balance]:
        """Read accounts as of now, in the order given."""
        keys = encode([(a.scope, a.name, a.window) for a in accounts])

        async def read(db: Any) -> list[Balance]:
            now = self._writer.now()
            found = await db.fetchval("SELECT samplewise.balances($1, $2)", now, keys)
            counters = msgspec.json.decode(found, type=list[Counter])
            return [c.balance(a) for c, a in zip(counters, accounts, strict=True)]

        balances: list[Balance] = await self._writer.submit(Job("read", read=read))
        return balances

    async def orphans(self) -> Sequence[Orphan]:
        """Take over the open rows of processes that died, and return those that may have cost.

        Dead is who let its lease run out; it is refused from then on. Held rows were never sent:
        they are released here. The others are ours from now on, to be settled as `recovered`; those
        that were not are returned again.

        Raises:
            StoreError: the store failed. Nothing is lost: ask again.
        """
        writer = self._writer

        async def take(db: Any) -> Any:
            taken = await db.fetchval(TAKE_OVER, writer.lease.epoch)
            await db.execute(SWEEP_CLAIMS)
            return taken

        found: str = await writer.submit(Job("read", read=take))
        return await without_held(self, ordered(msgspec.json.decode(found)))

    async def claim(self, name: bytes, digest: bytes, address: str) -> Claim | None:
        """Claim a request; return the claim of another process that lives and has it.

        Raises:
            StoreError: the store failed. Nothing is claimed.
        """
        writer = self._writer

        async def take(db: Any) -> Claim | None:
            # Asked again after a break it is the same: what is ours stays ours.
            found = await db.fetchval(CLAIM, writer.lease.epoch, name, digest, address)
            if found is None:
                return None
            said, where, kept = msgspec.json.decode(found)
            return Claim(bytes.fromhex(said), where, kept)

        found: Claim | None = await writer.submit(Job("read", read=take))
        if found is None and not writer.lease.holds:
            raise self._paused()
        return found

    def let_go(self, ends: Mapping[bytes, int]) -> asyncio.Future[None]:
        """End claims of ours, see `ClaimStore`; durable when the future is done.

        Raises:
            StoreError: the store failed. Nothing is ended.
        """
        names, kept, writer = list(ends), list(ends.values()), self._writer
        return writer.submit(
            Job("read", read=lambda db: db.execute(LET_GO, writer.lease.epoch, names, kept))
        )

    async def recent(self, route: str, days: int) -> Recent:
        """Return what requests of a route have cost in the last days, of the newest 10,000 rows.

        Read on a connection of its own, so that the writer does not wait for it.
        """
        return await server.recent(self._writer.url, self._writer.now(), route, days)

    async def open_rows(self) -> int:
        """Return how many rows are held or dispatched. Cheap."""
        return int(await self._writer.submit(Job("read", read=lambda db: db.fetchval(OPEN_ROWS))))

    async def totals(self) -> Totals:
        """Add up all rows and compare every counter with its rows. Reads the whole ledger."""
        await self.open_rows()  # what was asked for before is written by then
        return await server.totals(self._writer.url)

    async def close(self) -> None:
        """Write what is queued and close the connection. Closing again waits for the same end.

        Raises:
            StoreError: settlements could not be written. Their rows stay reserved.
        """
        if self._closing is None:
            if not self._writer.alive:
                return
            self._closing = self._writer.submit(Job("last"))
        await asyncio.shield(self._closing)

    def _paused(self) -> StoreError:
        """Say that what was written just now may have been taken over meanwhile."""
        return StoreError(
            f"This process stood still for longer than its lease on the ledger {self._writer.label}"
            f" lasts ({self._writer.lease.lasts_s:g} s). Nothing is sent: try again."
        )
