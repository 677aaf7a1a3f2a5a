"""Requests that another process of this server works on: passed on to it, and its answer returned.

Whoever leaves here is gone there too: the connection between the two ends with the client's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import aiohttp
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from samplewise.proxy.errors import AnswerError, Elsewhere
from samplewise.proxy.job import Job
from samplewise.proxy.peers import returned
from samplewise.proxy.service import Service

__all__ = ["has_run", "relay", "relay_stream"]

_log = structlog.get_logger("samplewise.relay")
T = TypeVar("T")


async def has_run(request: Request, service: Service) -> Response:
    """Tell a peer whether its request would find a run here."""
    if not service.peers.asks(request):
        raise HTTPException(404)  # as any page that there is not
    try:
        name = bytes.fromhex(request.path_params["name"])
    except ValueError:
        raise HTTPException(404) from None
    return Response(status_code=200 if service.retries.has(name) else 404)


async def relay(service: Service, job: Job, request: Request, elsewhere: Elsewhere) -> Response:
    """Return the whole answer of the process that works on a request.

    Raises:
        Elsewhere: it cannot be reached, or ended meanwhile. That is counted and logged.
        AnswerError: the client left (499); the same.
    """

    async def whole() -> Response:
        async with _passed_on(service, job, request, elsewhere) as reply:
            return Response(await reply.read(), reply.status, returned(reply.headers))

    return await _watched(service, job, whole(), elsewhere)


async def relay_stream(
    service: Service,
    job: Job,
    request: Request,
    elsewhere: Elsewhere,
    send: Send,
    failed: Callable[[AnswerError], bytes],
) -> None:
    """Send the answer of the process that works on a request as it comes.

    `failed` writes what its client sees of an end in the middle.

    Raises:
        Elsewhere: it cannot be reached, or ended before it answered. Nothing was sent.
        AnswerError: the client left before (499).
    """
    began = False

    async def streamed() -> None:
        nonlocal began
        async with _passed_on(service, job, request, elsewhere) as reply:
            began = True
            headers = [(k.encode(), v.encode()) for k, v in returned(reply.headers).items()]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for piece in _pieces(reply, failed):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    try:
        await _watched(service, job, streamed(), elsewhere)
    except AnswerError:
        if not began:
            raise


def _passed_on(
    service: Service, job: Job, request: Request, elsewhere: Elsewhere
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    if not elsewhere.address or job.retry is None:
        raise elsewhere
    _log.info("passed on", request_id=job.request_id, route=job.route.name)
    return service.peers.passed_on(elsewhere.address, request, job.retry.body)


async def _pieces(
    reply: aiohttp.ClientResponse, failed: Callable[[AnswerError], bytes]
) -> AsyncIterator[bytes]:
    try:
        async for piece in reply.content.iter_any():
            yield piece
    except aiohttp.ClientError:
        # It has ended in the middle; its client sees what is left of the answer, and that.
        lost = AnswerError("the process that worked on this request has ended; try again")
        yield failed(lost)


async def _watched(
    service: Service, job: Job, work: Coroutine[Any, Any, T], elsewhere: Elsewhere
) -> T:
    """Do the work until its client leaves."""
    asking = asyncio.create_task(work)
    job.holders, job.when_left = 1, asking.cancel
    if job.left:
        asking.cancel()
    error: AnswerError = elsewhere
    try:
        return await asking
    except (aiohttp.ClientError, OSError, Elsewhere):
        pass
    except asyncio.CancelledError:
        if not job.left:
            raise
        error = AnswerError("the client left", status=499, code="client_gone")
    service.refused(job.route.name, error, job.request_id, job.key)
    raise error
