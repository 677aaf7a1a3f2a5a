"""What every surface that is answered by the engine does with a request, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.fields import naming
from samplewise.proxy.api.relay import relay
from samplewise.proxy.api.replies import OPEN_JSON, json_reply, read_body
from samplewise.proxy.api.request_ids import given_id
from samplewise.proxy.api.streaming import Dialect, Waiting, watching
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.errors import AnswerError, Elsewhere
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.retries import read_retry
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job, room, stopping
from samplewise.proxy.suffix import without_suffix
from samplewise.proxy.wire import parse_chat

__all__ = ["Asked", "Surface", "answer_request"]


class Asked(Protocol):
    """One request as its surface has read it, and how its answer is written."""

    @property
    def body(self) -> bytes:
        """The chat request that asks the same, as JSON text; repetitions are known by it."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Sentences for the answer's `warnings`: what of the request has no effect."""
        ...

    @property
    def also(self) -> Callable[[Answer], Mapping[str, Any]] | None:
        """What the record of the request has of it besides; None for nothing."""
        ...

    def stream(self, job: Job) -> Dialect:
        """Return what writes the answer as events."""
        ...

    def reply(self, answer: Answer) -> Response:
        """Return the answer as one body."""
        ...


class Surface(Protocol):
    """One wire format. `names` are what it calls fields of a chat request."""

    @property
    def names(self) -> Mapping[str, str]:
        """Its names by those of a chat."""
        ...

    async def read(self, body: bytes, service: Service, key: ClientKey | None) -> Asked:
        """Read a client's request; raises RequestError with the place of what is wrong."""
        ...

    def refuse(self, error: AnswerError, request_id: str) -> Response:
        """Return an error in the surface's own shape."""
        ...


async def answer_request(request: Request, service: Service, surface: Surface) -> Response:
    """Answer one request of a surface."""
    request_id = service.new_request_id()
    route, key, job = "other", None, None
    try:
        # Before the body is read: a wrong key costs a look-up, whatever it sends.
        key = service.guard.admit(credentials(request.headers))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        asked = await surface.read(body, service, key)
        passed_on = service.peers.asks(request)
        retry = read_retry(request.headers, asked.body, passed_on=passed_on)
        client = Client(request_id, key, replace(retry, body=body), given_id(request.headers))
        with naming(surface.names):
            chat = parse_chat(asked.body, request.headers)
            named, _ = without_suffix(chat, service.routes)
            route = named if named in service.routes else route
            job = open_job(service, chat, client)
        job.warnings.extend(asked.warnings)
        job.also = asked.also
        if chat.options.dry_run:
            return json_reply(await service.estimate(job), {"x-request-id": request_id})
        if chat.stream or service.setup.plain_keep_alive:
            dialect = asked.stream(job) if chat.stream else _Body(surface, asked, request_id)
            return Waiting(service, job, request, dialect, chat.read_timeout_s, surface.refuse)
        async with watching(request, job):
            try:
                found = await answer_job(service, job)
            except Elsewhere as elsewhere:
                return await relay(service, job, request, elsewhere)
        reply = asked.reply(found)
        reply.headers.update(await room(service, key))
        return reply
    except asyncio.CancelledError:
        if job is None:
            service.refused(route, stopping(), request_id, key)
        return surface.refuse(stopping(), request_id)
    except AnswerError as error:
        if job is None:
            service.refused(route, error, request_id, key)
        return surface.refuse(error, request_id)


class _Body:
    """An answer as one JSON text, with blank lines before it where it takes its time."""

    headers = OPEN_JSON
    sign = b"\n"

    def __init__(self, surface: Surface, asked: Asked, request_id: str) -> None:
        self._surface, self._asked, self._request_id = surface, asked, request_id

    def forward(self, events: RawEvents) -> bytes:
        """Nothing passes through: the answer is one text."""
        return b""

    def tell(self, line: str) -> bytes:
        """There is no place for it."""
        return b""

    def finish(self, answer: Answer) -> bytes:
        """Return the answer; its headers have left before."""
        return bytes(self._asked.reply(answer).body)

    def failed(self, error: AnswerError) -> bytes:
        """Return the error in the body of what began as a 200."""
        return bytes(self._surface.refuse(error, self._request_id).body)

    def reply(self, answer: Answer) -> Response | None:
        """Nothing was sent yet, so it has its headers like any other."""
        return self._asked.reply(answer)
