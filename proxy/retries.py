"""The same request again: it joins the run that is on its way, or goes on where that was left.

Clients try again after a timeout, and libraries above them once more. What was bought for the first
try serves the next one: nothing is paid for twice. Runs are known to one process; `claims` says
which of them it is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import structlog

from samplewise.policies.evidence import Evidence
from samplewise.proxy.claims import Claims, key_reused
from samplewise.proxy.errors import AnswerError, RequestError
from samplewise.proxy.job import Answer, Job, Retry
from samplewise.proxy.kept import Kept, weight
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.metrics import Metrics
from samplewise.verifiers.base import Purpose, Sample

__all__ = ["Retries", "read_retry", "repeated", "whole_samples"]

_log = structlog.get_logger("samplewise.retries")
_LONGEST_KEY = 255


def read_retry(headers: Mapping[str, str], body: bytes, *, passed_on: bool = False) -> Retry:
    """Return what makes two requests the same, and whether this one says that it is a repetition.

    `passed_on` says that another process of this server sends it.

    Raises:
        RequestError: the idempotency key is too long.
    """
    key = headers.get("idempotency-key", "")
    if len(key) > _LONGEST_KEY:
        raise RequestError(
            f"idempotency-key: at most {_LONGEST_KEY} characters", param="idempotency-key"
        )
    # Whoever sends the key of somebody else must not get that one's answers.
    who = credentials(headers) or ""
    asked = sorted(f"{k}:{headers[k]}" for k in headers if k.startswith("x-samplewise-"))
    digest = _digest(who, *asked, body=body)
    name = _digest(who, key) if key else digest
    again = repeated(headers)
    return Retry(name, digest, again, keyed=bool(key), passed_on=passed_on, body=body)


def repeated(headers: Mapping[str, str]) -> bool:
    """Say whether a client repeats a request, or would not mind if it did."""
    count = headers.get("x-stainless-retry-count", "0")
    return bool(headers.get("idempotency-key")) or (count.isdecimal() and int(count) > 0)


def _digest(*texts: str, body: bytes = b"") -> bytes:
    said = blake2b(digest_size=16)
    for text in texts:
        said.update(text.encode("utf-8", "surrogateescape") + b"\0")
    said.update(body)
    return said.digest()


def whole_samples(evidence: Evidence) -> list[Sample]:
    """Return the samples of a run that another run of the same request can begin with."""
    return [
        sample
        for sample in sorted(evidence.samples.values(), key=lambda sample: sample.index)
        if sample.complete and not sample.parents and sample.purpose is Purpose.ANSWER
    ]


@dataclass(slots=True)
class _Run:
    """One run that can be joined. `done` has its answer in the end.

    `ended_alone` says that no client waited for it any more when it ended. `end` is what forgets it
    in time: a timer holds what it is to drop, so it is stopped with it.
    """

    job: Job
    digest: bytes
    done: asyncio.Future[Answer]
    ended_alone: bool = False
    samples: int = 0
    size: int = 0
    end: asyncio.TimerHandle | None = None

    @property
    def left(self) -> bool:
        """Whether its clients left before it ended; that they do afterwards is nothing."""
        return self.ended_alone if self.done.done() else self.job.left


@dataclass(slots=True)
class Retries:
    """The runs that are on their way, and those that have ended in the last `seconds`.

    Of the latter at most `most`, with at most `most_samples`, which hold about `most_bytes`; the
    newest is not too large in any case.
    """

    kept: Kept
    metrics: Metrics
    claims: Claims = field(default_factory=Claims)
    seconds: float = 60.0
    most: int = 1_000
    most_samples: int = 2_000
    most_bytes: int = 32 * 2**20
    _runs: dict[bytes, _Run] = field(default_factory=dict)
    _ended: OrderedDict[bytes, _Run] = field(default_factory=OrderedDict)
    _samples: int = 0
    _bytes: int = 0

    def has(self, name: bytes) -> bool:
        """Say whether a repetition of a request would find its run here."""
        return name in self._runs

    async def answer(self, job: Job, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of the same request if it is known or on its way, else of `run`.

        Raises:
            AnswerError: as `run` does; also when an idempotency key comes back with another body.
        """
        retry = job.retry
        if retry is None:
            return await run()
        while (found := self._runs.get(retry.name) if retry.again else None) is not None:
            if found.digest != retry.digest:
                raise key_reused()
            if not found.left and not (found.done.done() and found.done.cancelled()):
                return await self._join(found, job)
            if found.done.done():
                job.pool = self._pool(found.job)
                break
            # Its client has left, and it is about to end: then it is known what there is.
            await asyncio.wait([found.done])
        return await self._begin(retry, job, run)

    async def _join(self, found: _Run, job: Job) -> Answer:
        self.metrics.joined(job.route.name)
        _log.info("joined a run", request_id=job.request_id, route=job.route.name)
        if not found.done.done():
            # The run goes on until the last client has left.
            found.job.holders += 1
            job.when_left = found.job.leave
            if job.left:
                found.job.leave()
        return await asyncio.shield(found.done)

    async def _begin(self, retry: Retry, job: Job, run: Callable[[], Awaitable[Answer]]) -> Answer:
        loop = asyncio.get_running_loop()
        mine = _Run(job, retry.digest, loop.create_future())
        self._put(retry.name, mine)
        found_again = False
        try:
            answer = await run()
            mine.ended_alone = job.left
            mine.done.set_result(answer)
            found_again = True
        except AnswerError as error:
            # Where its client left, the next try takes over what was drawn.
            found_again = mine.ended_alone = job.left
            if not found_again:
                mine.done.set_exception(error)
                mine.done.exception()
            raise
        finally:
            mine.done.cancel()  # changes nothing where there is an answer or an error
            if found_again:
                self._keep(retry.name, mine)
            else:
                self._drop(retry.name, mine)
        return answer

    def _keep(self, name: bytes, run: _Run) -> None:
        # Another run may have its place by now: only what is kept counts, or it would for ever.
        if self._runs.get(name) is not run:
            return
        run.samples, run.size = _samples(run), weight(run.job)
        self._ended[name] = run
        self._samples += run.samples
        self._bytes += run.size
        self.claims.keep(name, self.seconds)
        run.end = asyncio.get_running_loop().call_later(self.seconds, self._drop, name, run)
        self._trim()

    def _pool(self, job: Job) -> list[Sample]:
        """Return the whole samples of a run whose client left."""
        evidence = self.kept.get(job.request_id)
        return whole_samples(evidence) if evidence else []

    def _put(self, name: bytes, run: _Run) -> None:
        self._forget(name)
        self._runs[name] = run

    def _trim(self) -> None:
        while (
            len(self._ended) > self.most
            or self._samples > self.most_samples
            or (self._bytes > self.most_bytes and len(self._ended) > 1)
        ):
            name, run = next(iter(self._ended.items()))
            self._drop(name, run)

    def _drop(self, name: bytes, run: _Run | None) -> None:
        if run is None or self._runs.get(name) is not run:
            return
        del self._runs[name]
        self._forget(name)
        self.claims.keep(name, 0)

    def _forget(self, name: bytes) -> None:
        run = self._ended.pop(name, None)
        if run is None:
            return
        self._samples -= run.samples
        self._bytes -= run.size
        if run.end is not None:
            run.end.cancel()


def _samples(run: _Run) -> int:
    """Return how many samples the answer of a run that has ended holds; none without one."""
    if run.done.cancelled() or run.done.exception() is not None:
        return 0
    return len(run.done.result().evidence.samples)
