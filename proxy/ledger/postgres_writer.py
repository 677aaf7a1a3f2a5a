"""The task behind a PostgreSQL ledger: it alone has the connection, and does everything in order.

It takes every operation that is queued and does them with one call of a function in the database:
one commit for all. One connection is enough, because the operations are ordered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import msgspec
import structlog

from samplewise.proxy.errors import StoreError
from samplewise.proxy.ledger import postgres_connect as server
from samplewise.proxy.ledger.base import Grant, Settlement, State, Wave
from samplewise.proxy.ledger.chunks import Chunks
from samplewise.proxy.ledger.postgres_chunks import DENIED, GIVE_BACK, WORK_IN_CHUNKS
from samplewise.proxy.ledger.postgres_connect import STORE_ERRORS
from samplewise.proxy.ledger.postgres_jobs import (
    Batch,
    Job,
    encode,
    operations,
    outcome,
    settle_job,
)
from samplewise.proxy.ledger.postgres_leases import FENCED, Lease
from samplewise.proxy.ledger.sqlite import Stats

__all__ = ["Writer"]

_log = structlog.get_logger("samplewise.ledger")
_ANSWER_S = 15.0  # longer than the server waits for a lock
_RETRY_S = (0.05, 5.0)  # first and longest wait before what is kept is tried again
_WORK = "SELECT samplewise.work($1, $2, $3, $4, $5, $6)"

# What a caller did wrong, as opposed to the store. Found late, it must not fail a whole batch.
_CALLER_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    OverflowError,
    TypeError,
    UnicodeError,
)


class Writer:
    """The task that has the connection."""

    def __init__(
        self, url: str, clock: Callable[[], int] | None, chunks: Chunks | None = None
    ) -> None:
        self.url = url
        self.label = server.label(url)
        self.stats = Stats()
        self.alive = True
        self.lease = Lease()
        self.chunks = chunks
        self._clock = clock
        self._queue: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._kept: list[Job] = []
        self._db: Any = None
        self._number = 0
        self._doubt: Batch | None = None
        self._failing = False
        self._wait_s = _RETRY_S[0]
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Connect, make or migrate the tables, and start to work."""
        self._db = await server.connect(self.url, create=True)
        with contextlib.ExitStack() as undo:
            undo.callback(self._drop)
            await self.lease.claim(self._db)
            undo.pop_all()
        self._task = asyncio.create_task(self._run(), name="samplewise-ledger")

    def now(self) -> int | None:
        """Return the given clock's time, None where the server's counts."""
        return None if self._clock is None else self._clock()

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Queue a job. Returns at once."""
        if not self.alive:
            raise StoreError(f"The ledger {self.label} is closed.")
        job.future = asyncio.get_running_loop().create_future()
        self._queue.append(job)
        self._wake.set()
        return job.future

    def release(self, wave: Wave, grant: Grant) -> None:
        """Release what a wave got that nobody takes, before anything else that is queued."""
        rows = [hold.id for bundle in wave.bundles[: grant.bundles] for hold in bundle]
        if rows and self.alive:  # closed: the rows stay reserved, the safe side
            ends = [Settlement(id_, 0, state=State.RELEASED) for id_ in rows]
            self._queue.appendleft(settle_job(ends))
            self._wake.set()

    async def _run(self) -> None:
        jobs: list[Job] = []
        last = False
        try:
            while not last:
                jobs = await self._take()
                last = any(job.kind == "last" for job in jobs)
                await self._serve([job for job in jobs if job.kind != "last"])
                if last:
                    while self._queue and not self._kept:  # released just now
                        more = list(self._queue)
                        self._queue.clear()
                        await self._serve(more)
                        self._answer(more)
                    self.alive = False
                    if self._kept:
                        self._fail([job for job in jobs if job.kind == "last"], self._reason([]))
                    await self._leave()
                self._answer(jobs)
                jobs = []
        finally:
            # Also when the loop ends or a defect ends the task: then nothing may be sent any more.
            self.alive = False
            self._drop()
            jobs.extend(self._queue)
            self._queue.clear()
            self._fail(jobs, StoreError(f"The ledger {self.label} is closed."))
            self._answer(jobs)

    async def _take(self) -> list[Job]:
        """Wait for jobs, at most until the lease is to be renewed, or what failed to be tried."""
        if not self._queue:
            self._wake.clear()
            waiting = self._failing or self._kept or self._doubt is not None
            wait_s = self._wait_s if waiting else self._due_in_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            if waiting and not self._queue:
                self._wait_s = min(2 * self._wait_s, _RETRY_S[1])
        jobs = list(self._queue)
        self._queue.clear()
        return jobs

    @property
    def _due_in_s(self) -> float:
        """Seconds until something is to be done that nobody asks for."""
        chunk_s = None if self.chunks is None else self.chunks.due_in_s
        return self.lease.due_in_s if chunk_s is None else min(self.lease.due_in_s, chunk_s)

    async def _serve(self, jobs: list[Job]) -> None:
        kept, self._kept = self._kept, []
        if kept or self._doubt is not None or not (jobs or self._due_in_s):
            await self._attempt(kept)
        if self._kept:
            self._fail(jobs, self._reason(jobs))
        else:
            # Apart, because a read that has to be tried again must not do the writes again.
            for part in ([j for j in jobs if j.read is None], [j for j in jobs if j.read]):
                if part:
                    await self._attempt(part)
        self.stats.kept = len(self._kept)

    async def _attempt(self, jobs: list[Job]) -> None:
        """Do jobs in one transaction. One that cannot be done at all fails alone."""
        try:
            try:
                await self._transact(jobs)
            except STORE_ERRORS as error:
                if not _worth_another(error):
                    raise
                # The server was restarted, say, while nothing was asked: nobody need know.
                self._drop()
                await self._transact(jobs)
        except _CALLER_ERRORS as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._attempt([job])
            else:
                for job in jobs:
                    job.kept = False
                self._fail(jobs, StoreError(f"The ledger {self.label} refused: {error}"))
        except STORE_ERRORS as error:
            self._drop()
            reason = server.store_error(self.url, error)
            if not self._failing:
                _log.error("the ledger cannot be used", reason=str(reason))
            self._failing = True
            self._fail(jobs, reason)
        else:
            if self._failing:
                _log.info("the ledger can be used again", store=self.label)
            self._failing = False
            self._wait_s = _RETRY_S[0]

    async def _transact(self, jobs: list[Job]) -> None:
        async with asyncio.timeout(_ANSWER_S):
            db = await self._connected()
            known = await self._resolve(db)
            if not self.lease.due_in_s and not await self.lease.renew(db):
                await self._reclaim(db)
            if known is not jobs:
                await self._work(db, jobs)
            for job in jobs:
                if job.read is not None:
                    job.error, job.result = None, await job.read(db)

    async def _work(self, db: Any, jobs: list[Job]) -> None:
        groups, ops = operations(jobs)
        if not groups and (self.chunks is None or self.chunks.due_in_s != 0):
            return
        self._number += 1
        self._doubt = Batch(self._number, jobs, groups)
        accounts = {
            (a.scope, a.name, a.window): None
            for group in groups
            for job in group
            if job.wave
            for a in job.wave.accounts
        }
        asked = (
            self.lease.epoch,
            self._number,
            self.now(),
            [id_ for group in groups for job in group for id_ in job.ids],
            encode(list(accounts)),
            ops,
        )
        if self.chunks is None:
            reply = await db.fetchval(_WORK, *asked)
        else:
            waves = [job.wave for group in groups for job in group if job.wave]
            reply = await self._work_in_chunks(db, asked, self.chunks, waves)
        self._doubt = None
        self._read(groups, msgspec.json.decode(reply))
        self.stats.commits += 1
        self.stats.operations += sum(map(len, groups))

    async def _work_in_chunks(
        self, db: Any, asked: tuple[Any, ...], chunks: Chunks, waves: Sequence[Wave]
    ) -> Any:
        back, wishes = chunks.plan(waves)
        try:
            return await db.fetchval(WORK_IN_CHUNKS, *asked, encode(back), encode(wishes))
        except asyncpg.PostgresError as error:
            if error.sqlstate != DENIED:
                raise
        # Nothing was done. Without chunks there is all the room that the limits leave.
        return await db.fetchval(WORK_IN_CHUNKS, *asked, None, "[]")

    async def _resolve(self, db: Any) -> Sequence[Job] | None:
        """Find out whether the batch in doubt was committed; return its jobs if it was.

        It cannot be from then on: what the server still has of it comes too late.
        """
        if self._doubt is None:
            return None
        self._number += 1
        found = await db.fetchval("SELECT samplewise.fence($1, $2)", self.lease.epoch, self._number)
        doubt, self._doubt = self._doubt, None
        if found is None:
            await self._reclaim(db)
            return None
        number, reply = msgspec.json.decode(found)
        if number != doubt.number:
            return None
        self._read(doubt.groups, reply)
        for group in doubt.groups:
            for job in group:
                self._abandoned(job)
        return doubt.jobs

    async def _reclaim(self, db: Any) -> None:
        """Begin anew under another epoch: others took over what was open under the last one."""
        await self.lease.claim(db)
        self._number = 0
        if self.chunks is not None:
            self.chunks.forget()
        _log.error("the lease ran out: others book what was on its way")

    async def _connected(self) -> Any:
        if self._db is None or self._db.is_closed():
            self._drop()
            # Tables that are gone are not made anew: every limit would start at zero.
            self._db = await server.connect(self.url)
        return self._db

    def _read(self, groups: Sequence[Sequence[Job]], answers: Sequence[Any]) -> None:
        if self.chunks is not None:
            *answers, rooms = answers
            self.chunks.learn(rooms)
        for group, answer in zip(groups, answers, strict=True):
            for job in group:
                job.error, job.result = outcome(job, answer)
            if group[0].kind == "settle" and answer:
                self.stats.unknown += len(answer)
                _log.error("settled rows that the ledger does not have", ids=answer[:8])

    def _abandoned(self, job: Job) -> None:
        """Release what a reserve got whose caller is gone, or was told that the store failed."""
        granted = job.error is None and isinstance(job.result, Grant)
        if job.wave is not None and granted and (job.future is None or job.future.done()):
            self.release(job.wave, job.result)
            job.wave = None

    async def _leave(self) -> None:
        """Forget this opening of the ledger; a batch of it that is still on its way is refused."""
        if self._db is not None and self._doubt is None:
            with contextlib.suppress(*STORE_ERRORS):
                async with asyncio.timeout(_ANSWER_S):
                    async with self._db.transaction():
                        await self._db.fetchval(GIVE_BACK, self.lease.epoch)
                        await self._db.execute(
                            "DELETE FROM samplewise.writers WHERE epoch = $1", self.lease.epoch
                        )
                    await self._db.close()

    def _drop(self) -> None:
        """Give up the connection and whatever it has not committed. The next job opens another."""
        self.lease.doubt()
        if self._db is not None:
            self._db.terminate()
            self._db = None

    def _fail(self, jobs: list[Job], reason: StoreError) -> None:
        for job in jobs:
            # One error per job: a raised error collects the traceback of who waited for it.
            job.error = StoreError(str(reason))
            job.error.__cause__ = reason.__cause__
            if job.kept:
                self._kept.append(job)

    def _reason(self, more: list[Job]) -> StoreError:
        waiting = len(self._kept) + sum(job.kept for job in more)
        return StoreError(f"{self._kept[0].error} Settlements that wait to be written: {waiting}.")

    def _answer(self, jobs: list[Job]) -> None:
        """Wake everybody who waits for these jobs."""
        for job in jobs:
            self._abandoned(job)
            future, job.future = job.future, None
            if future is None or future.done():
                continue
            if job.error is None:
                future.set_result(job.result)
            else:
                future.set_exception(job.error)


def _worth_another(error: Exception) -> bool:
    """Tell whether a new connection, or another moment, may be all that is needed."""
    return (
        isinstance(
            error,
            asyncpg.PostgresConnectionError
            | asyncpg.OperatorInterventionError
            | asyncpg.TransactionRollbackError
            | asyncpg.InterfaceError
            | asyncpg.InternalClientError  # what it raises when cut between two messages
            | ConnectionError,
        )
        or getattr(error, "sqlstate", None) == FENCED
    )
