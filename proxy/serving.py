"""Answers a chat-shaped request, whichever surface it came through: this is where all of them meet.

A surface reads its own wire format into a `ChatRequest`, says who asks, and writes the `Answer` in
its own words. It never calls the engine itself, so limits, repetitions, places, counting and
records are the same everywhere. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.boundary import boundary, internal_error
from samplewise.proxy.engine import answer
from samplewise.proxy.errors import AnswerError, Elsewhere, StoreError, store_error
from samplewise.proxy.job import Answer, Job, Retry
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.room import room_headers
from samplewise.proxy.ledger.base import Account
from samplewise.proxy.service import Service
from samplewise.proxy.wire import ChatRequest

__all__ = ["Client", "answer_job", "open_job", "placed", "room", "serve_chat", "stopping"]

T = TypeVar("T")

_log = structlog.get_logger("samplewise.serving")


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. `request_id` is our own name for the request, from `Service.new_request_id`.

    `key` is None where none is needed, `retry` where a repetition must not be looked for.
    `given_id` is the name that the client or a proxy in front has for it, or empty. `accounts` are
    counters that it must fit into beside all others, those of a batch for example.
    """

    request_id: str
    key: ClientKey | None = None
    retry: Retry | None = None
    given_id: str = ""
    accounts: tuple[Account, ...] = ()


async def serve_chat(
    service: Service,
    request: ChatRequest,
    client: Client,
    sink: Callable[[RawEvents], None] | None = None,
) -> Answer:
    """Answer a request. `sink` takes the events of an upstream whose one sample passes through.

    That is `open_job` and `answer_job`. A surface that must know the job before its answer is there
    (to stream, or to tell it that the client has left) calls these two itself.

    Raises:
        AnswerError: there is no answer; it was counted and logged.
    """
    try:
        job = open_job(service, request, client)
    except AnswerError as error:
        service.refused("other", error, client.request_id, client.key)
        raise
    if sink is not None and job.tap is not None:
        job.tap = sink
    return await answer_job(service, job)


def open_job(service: Service, request: ChatRequest, client: Client) -> Job:
    """Put together what a request may do; nothing is bought, counted or written yet.

    Raises:
        RequestError: the model is unknown, or more is asked for than route and key allow.
    """
    job = service.job(request, client.request_id, client.key)
    job.retry, job.given_id = client.retry, client.given_id
    job.tagged += client.accounts
    return job


async def answer_job(service: Service, job: Job) -> Answer:
    """Answer a request that was opened, or join the same one on its way; count how it ended.

    Raises:
        Elsewhere: another process works on it; that was neither counted nor logged.
        AnswerError: there is no answer; it was counted and logged.
    """
    endpoint = job.request.endpoint
    try:
        if job.retry is None or not job.retry.passed_on:  # counted where it came in
            with _paid(job):
                await service.rates.count(job.key, job.request_id)
        return await _joined(service, job)
    except Elsewhere:
        raise
    except AnswerError as error:
        service.refused(job.route.name, error, job.request_id, job.key, endpoint)
        raise
    except asyncio.CancelledError:
        service.refused(job.route.name, stopping(), job.request_id, job.key, endpoint)
        raise


async def placed(service: Service, job: Job, work: Callable[[], Awaitable[T]]) -> T:
    """Do paid work for a job that is no run of samples, counted and bounded as all requests are.

    Raises:
        AnswerError: it cannot be done; nothing was counted or logged of that yet.
    """
    with _paid(job), boundary(internal_error, AnswerError, StoreError):
        await service.rates.count(job.key, job.request_id)
        async with service.gate.place(job):
            return await work()


async def room(service: Service, key: ClientKey | None) -> dict[str, str]:
    """Return the headers that say what a key may still send."""
    return await room_headers(service.engine.ledger, key, service.rates.clock())


def stopping() -> AnswerError:
    """Return what a client is told whose request is cut; only a server that stops does that."""
    return AnswerError(
        "the server is stopping; try again",
        status=503,
        code="server_stopping",
        headers={"retry-after": "1"},
    )


async def _joined(service: Service, job: Job) -> Answer:
    try:
        return await service.retries.answer(job, lambda: _bought(service, job))
    except Elsewhere as elsewhere:
        if not elsewhere.address or await service.peers.reaches(elsewhere.address):
            raise
    # That process has just ended, and its claim with it where the store can tell.
    return await service.retries.answer(job, lambda: _bought(service, job))


async def _bought(service: Service, job: Job) -> Answer:
    with _paid(job), boundary(internal_error, AnswerError, StoreError):
        await service.retries.claims.make(job.retry)
        async with service.gate.place(job):
            with _recorded(service, job):
                found = await answer(job, service.engine)
    service.answered(found)
    if service.records is not None:
        service.records.keep(job, found, service.setup.records)
        if job.also is not None:
            # The client may come back with its name at once, and meet another process.
            await service.records.flush()
    service.mirrors.offer(found, service.engine, service.new_request_id, service.job)
    return found


@contextmanager
def _recorded(service: Service, job: Job) -> Iterator[None]:
    """Keep what is known of a request that ends without an answer: that is asked for most."""
    try:
        yield
    except AnswerError as error:
        if service.records is not None:
            service.records.keep(job, error, service.setup.records)
        raise


@contextmanager
def _paid(job: Job) -> Iterator[None]:
    """Turn an error of the ledger into what the client is told."""
    try:
        yield
    except StoreError as error:
        _log.error("ledger unreachable", request_id=job.request_id, error=str(error))
        raise store_error(error) from error
