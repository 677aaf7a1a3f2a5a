"""Keeps records of requests that ended: written behind them, a moment later, in batches.

A record is no part of the bill: what a crash takes is the last quarter of a second of records.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from samplewise.policies.evidence import Evidence
from samplewise.proxy.background import beside
from samplewise.proxy.boundary import boundary
from samplewise.proxy.errors import AnswerError, StoreError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.ledger.accounts import utc_ms
from samplewise.proxy.ledger.places import Place
from samplewise.proxy.records.content import Words, content
from samplewise.proxy.records.store import Record, delete_before, hash_secret, write
from samplewise.proxy.threads import InThread

__all__ = ["Keeper", "Keeping"]

_log = structlog.get_logger("samplewise.records")
_EVERY_S = 0.25
_PRUNE_EVERY_S = 3600.0
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the configuration says of records: for how many days, and whether with their text."""

    days: float = 30.0
    text: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    job: Job
    evidence: Evidence
    end: Answer | AnswerError
    text: bool
    at: int

    def record(self, secret: bytes) -> Record:
        """Return what is written: worked out in a thread, because it takes a while."""
        job = self.job
        key = "" if job.key is None else job.key.id
        said = content(job, self.evidence, self.end, Words(self.text, secret))
        return Record(
            job.request_id, job.given_id, key, job.route.name, self.at, encode(said).decode()
        )


class _Unwritable(Exception):
    """A record that cannot be made; the message is for the log."""


def _written_out(ended: Iterable[_Ended], secret: bytes) -> list[Record]:
    """Return the records of requests, without those that cannot be made."""
    records = []
    for one in ended:
        try:
            # What an operator's policy tells of its decision may be no JSON.
            with boundary(lambda error: _Unwritable(f"{type(error).__name__}: {error}"[:300])):
                records.append(one.record(secret))
        except _Unwritable as error:
            _log.error("record lost", request_id=one.job.request_id, error=str(error))
    return records


@dataclass(slots=True)
class Keeper:
    """Writes records to a place. At most `most` wait, or `most_bytes`; the oldest are given up."""

    place: Place
    clock: Callable[[], int] = utc_ms
    in_thread: InThread = asyncio.to_thread
    most: int = 10_000
    most_bytes: int = 64 * 2**20
    _ended: deque[_Ended] = field(default_factory=deque)
    _written: deque[Record] = field(default_factory=deque)
    _some: asyncio.Event = field(default_factory=asyncio.Event)
    _flushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _failing: bool = False
    _secret: bytes = field(default=b"", repr=False)

    def keep(self, job: Job, end: Answer | AnswerError, keeping: Keeping) -> None:
        """Take a request that ended; nothing is waited for. One that never began has no record."""
        if job.evidence is None or not keeping.days:
            return
        self._ended.append(_Ended(job, job.evidence, end, keeping.text, self.clock()))
        if len(self._ended) > self.most:
            self._ended.popleft()
        self._some.set()

    async def flush(self) -> None:
        """Write all that was taken so far. What cannot be written waits for the next time."""
        async with self._flushing:
            try:
                if self._ended:
                    self._written += await self._records()
                    self._bound()
                batch = list(self._written)
                if batch:
                    await self.in_thread(write, self.place, batch)
            except StoreError as error:
                self._some.set()
                if not self._failing:
                    _log.warning("records cannot be written", error=str(error))
                self._failing = True
                return
            self._failing = False
            for _ in batch:
                self._written.popleft()

    async def _records(self) -> list[Record]:
        ended, self._ended = self._ended, deque()
        try:
            return await self.in_thread(self._made, ended)
        except (asyncio.CancelledError, StoreError):
            self._ended.extendleft(reversed(ended))  # for another flush, which is to come
            raise

    def _made(self, ended: Iterable[_Ended]) -> list[Record]:
        self._secret = self._secret or hash_secret(self.place)
        return _written_out(ended, self._secret)

    def _bound(self) -> None:
        size = sum(len(record.content) for record in self._written)
        lost = 0
        while len(self._written) > self.most or size > self.most_bytes:
            size -= len(self._written.popleft().content)
            lost += 1
        if lost:
            _log.warning("records lost", records=lost)

    @asynccontextmanager
    async def running(self, keeping: Callable[[], Keeping]) -> AsyncIterator[None]:
        """Keep records during the body, and write the last of them."""
        try:
            async with beside(self.run(keeping), "writing of records"):
                yield
        finally:
            await self.flush()

    async def run(
        self,
        keeping: Callable[[], Keeping],
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Write records as they come, and delete those that are too old, until cancelled."""
        loop = asyncio.get_running_loop()
        prune_at = loop.time()
        while True:
            if loop.time() >= prune_at:
                prune_at = loop.time() + _PRUNE_EVERY_S
                await self.prune(keeping())
            try:
                async with asyncio.timeout_at(prune_at):
                    await self._some.wait()
            except TimeoutError:
                continue
            self._some.clear()
            await pause(_EVERY_S)
            await self.flush()

    async def prune(self, keeping: Keeping) -> None:
        """Delete what is too old, a few at a time, so that nobody waits for it."""
        before = self.clock() - round(keeping.days * _DAY_MS)
        try:
            while await self.in_thread(delete_before, self.place, before):
                pass
        except StoreError as error:
            _log.warning("old records cannot be deleted", error=str(error))
