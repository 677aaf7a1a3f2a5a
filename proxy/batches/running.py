"""Batches in the background of a server: taken up, kept, brought to their end.

A batch belongs to one process at a time, by a lease. When that process dies another one, or the
next start, goes on: lines with a result are never asked again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from samplewise.proxy.background import begin
from samplewise.proxy.batches.answering import unread_line
from samplewise.proxy.batches.base import Batch, Problem, Result, Status, Stored
from samplewise.proxy.batches.lines import lines, look_at, read_line
from samplewise.proxy.batches.store import BatchStore
from samplewise.proxy.batches.work import Work, one_by_one
from samplewise.proxy.boundary import boundary
from samplewise.proxy.errors import RequestError, StoreError
from samplewise.proxy.keys.guard import unauthorized
from samplewise.proxy.logs import where
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client

__all__ = ["Runner", "Sizes", "running_batches"]

_log = structlog.get_logger("samplewise.batches")
_LEASE_S = 5.0
_EVERY_S = 1.0
_CLEAN_EVERY_S = 3600.0
_MOST_BATCHES = 8
_MOST_WRITES = 4
# How long lines that run when the server stops may take to end.
_LAST_WORDS_S = 5.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a server takes in. `at_once` lines run at a time, of all batches of one process."""

    at_once: int = 16
    file_bytes: int = 200 * 2**20
    most_lines: int = 50_000
    days: float = 30.0


class _Why(Enum):
    """Why no more lines are begun."""

    LOST = auto()
    CANCELLED = auto()
    EXPIRED = auto()


@dataclass(slots=True)
class Runner:
    """Works on the batches of a store, beside other processes that do the same."""

    service: Service
    store: BatchStore
    sizes: Sizes
    lease_s: float = _LEASE_S
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _places: asyncio.Semaphore = field(init=False)
    _runs: set[_Run] = field(default_factory=set)
    _stopping: bool = False
    _clean_at: float = 0.0

    def __post_init__(self) -> None:
        """Begin with all places free."""
        self._places = asyncio.Semaphore(self.sizes.at_once)

    async def run(self) -> None:
        """Take up batches until cancelled."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                # A name for each time: a run that has lost its lease, to this same process even,
                # must not be able to write.
                name = secrets.token_hex(8)
                batch = await self._claimed(name)
                if batch is not None:
                    run = _Run(self, batch, name)
                    self._runs.add(run)
                    if self._stopping:
                        run.leave()  # claimed while the server began to stop
                    group.create_task(self._work(run, batch))
                    continue
                self.wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_EVERY_S):
                        await self.wake.wait()

    def stop(self) -> None:
        """Begin no more lines; `run` returns when those that run have ended."""
        self._stopping = True
        for run in self._runs:
            run.leave()
        self.wake.set()

    async def _claimed(self, name: str) -> Batch | None:
        try:
            if len(self._runs) >= _MOST_BATCHES or not await self.store.in_thread(self.store.there):
                return None
            now = asyncio.get_running_loop().time()
            if now >= self._clean_at:
                self._clean_at = now + _CLEAN_EVERY_S
                await self.store.in_thread(self.store.clean_up, self.sizes.days)
            return await self.store.in_thread(self.store.claim, name, self.lease_s)
        except StoreError as error:
            _log.warning("batches cannot be read", error=str(error))
            return None

    async def _work(self, run: _Run, batch: Batch) -> None:
        _log.info("batch taken up", batch=batch.id, status=batch.status.value)
        try:
            with boundary(_Crashed):
                await run.run()
                await self.store.in_thread(self.store.let_go, batch.id, run.name)
        except _Crashed as error:
            # The lease ends by itself, and somebody tries again.
            _log.error("batch cannot go on", batch=batch.id, error=str(error))
        finally:
            self._runs.discard(run)


class _Crashed(Exception):
    """A batch met what it must not: the message is for the log."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error} {where(error)}"[:2000])


class _Run:
    """One batch while this process works on it."""

    def __init__(self, runner: Runner, batch: Batch, name: str) -> None:
        self.name = name
        self._runner, self._batch, self._store = runner, batch, runner.store
        self._why: _Why | None = None
        self._queue: asyncio.Queue[Result | None] = asyncio.Queue()
        self._work = Work(runner.service, (batch.endpoint,), self._client, runner._places)

    def leave(self) -> None:
        """Leave what is not begun yet to another process."""
        self._stop(_Why.LOST)

    async def run(self) -> None:
        """Bring it to its end, or as far as this process may."""
        keeping = asyncio.create_task(self._keep())
        try:
            file = await self._input()
            if file is not None:
                await self._lines(file)
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _input(self) -> Stored | None:
        """Return the input, looked at; None when there is nothing to run."""
        batch, store, name = self._batch, self._store, self.name
        file = await store.in_thread(store.find_file, batch.input_file, batch.owner)
        if file is None:
            gone = Problem("input_file_missing", f"the file {batch.input_file} is gone")
            await store.in_thread(store.refuse, batch, name, (gone,))
            return None
        if batch.status is Status.VALIDATING:
            longest, most = self._longest, self._runner.sizes.most_lines
            total, problems = await store.in_thread(look_at, store.content(file), longest, most)
            if problems:
                await store.in_thread(store.refuse, batch, name, problems)
                _log.info("batch refused", batch=batch.id, problems=len(problems))
                return None
            if not await store.in_thread(store.begin, batch, name, total):
                return None  # cancelled meanwhile: whoever claims it next ends it
        if batch.status is Status.CANCELLING:
            await self._end(Status.CANCELLED)
            return None
        return file

    async def _lines(self, file: Stored) -> None:
        done = await self._store.in_thread(self._store.done_lines, self._batch.id)
        writing = asyncio.create_task(self._write())
        try:
            found = lines(self._store.content(file), self._longest)
            await self._work.run(
                one_by_one(found, done, self._store.in_thread), self._queue.put_nowait
            )
            if self._why is _Why.EXPIRED:
                await self._expire(file)
        finally:
            # What was answered is written, also when this process stops.
            self._queue.put_nowait(None)
            await asyncio.shield(writing)
        if self._why is None:
            await self._end(Status.COMPLETED)
        elif self._why is not _Why.LOST:
            expired = self._why is _Why.EXPIRED
            await self._end(Status.EXPIRED if expired else Status.CANCELLED)

    async def _end(self, status: Status) -> None:
        id_, name, days = self._batch.id, self.name, self._runner.sizes.days
        await self._store.in_thread(self._store.end, id_, name, status, days)
        _log.info("batch ended", batch=id_, status=status.value)

    async def _write(self) -> None:
        """Write results as they come, all that are there in one transaction."""
        last = False
        while not last:
            results = [await self._queue.get()]
            while not self._queue.empty():
                results.append(self._queue.get_nowait())
            last = results[-1] is None
            await self._put([result for result in results if result is not None])
            for _ in results:
                self._queue.task_done()

    async def _put(self, results: list[Result]) -> None:
        """Write results; while that cannot be, nothing more is bought."""
        for _ in range(_MOST_WRITES if results else 0):
            try:
                kept = await self._store.in_thread(
                    self._store.put, self._batch.id, self.name, results
                )
            except StoreError as error:
                _log.error("results cannot be written", batch=self._batch.id, error=str(error))
                self._stop(_Why.LOST)
                await asyncio.sleep(_EVERY_S)
                continue
            if not kept:
                self._stop(_Why.LOST)
            return

    async def _expire(self, file: Stored) -> None:
        """Give every line that was not asked in time an error of its own."""
        await self._queue.join()
        done = await self._store.in_thread(self._store.done_lines, self._batch.id)
        found = lines(self._store.content(file), self._longest)
        async for number, text in one_by_one(found, done, self._store.in_thread):
            custom_id = None
            with suppress(RequestError):
                custom_id = read_line(text or b"", (self._batch.endpoint,)).custom_id
            why = "was not asked before the batch expired"
            said = unread_line(number, "batch_expired", why, custom_id=custom_id)
            self._queue.put_nowait(Result(number, said.ok, said.data))

    async def _keep(self) -> None:
        """Keep the lease, and notice when the batch is to be stopped."""
        batch, runner = self._batch, self._runner
        while True:
            if self._store.clock() >= batch.expires_at:
                self._stop(_Why.EXPIRED)
            await asyncio.sleep(runner.lease_s / 5)
            try:
                status = await self._store.in_thread(
                    self._store.renew, batch.id, self.name, runner.lease_s
                )
            except StoreError as error:
                _log.warning("lease cannot be kept", batch=batch.id, error=str(error))
                continue
            if status is None:
                self._stop(_Why.LOST)
                return
            if status is Status.CANCELLING:
                self._stop(_Why.CANCELLED)

    def _stop(self, why: _Why) -> None:
        if self._why is None:
            self._why = why
        self._work.stopped.set()

    @property
    def _longest(self) -> int:
        return self._runner.service.setup.max_body_bytes

    def _client(self) -> Client:
        """Return who asks, as that one's key is now."""
        service, batch = self._runner.service, self._batch
        key = service.guard.find(batch.owner) if batch.owner else None
        if key is None and (batch.owner or service.guard.required):
            raise unauthorized("the key that made this batch is gone")
        if key is not None and key.state(service.guard.clock()) != "active":
            raise unauthorized("the key that made this batch is expired or revoked")
        return Client(service.new_request_id(), key, accounts=(batch.account,))


@asynccontextmanager
async def running_batches(
    service: Service, store: BatchStore, sizes: Sizes, make: Callable[..., Runner] = Runner
) -> AsyncIterator[Runner]:
    """Work on batches while the body runs; what runs at its end is left to the next process."""
    runner = make(service, store, sizes)
    running = begin(runner.run(), "work on batches")
    try:
        yield runner
    finally:
        runner.stop()
        await asyncio.wait([running], timeout=_LAST_WORDS_S)
        running.cancel()
        await asyncio.wait([running])
        await store.in_thread(store.close)
