"""`POST /v1/chat/completions`, plain and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.relay import relay
from samplewise.proxy.api.replies import error_reply, json_reply, read_body
from samplewise.proxy.api.request_ids import given_id
from samplewise.proxy.api.streaming import EVENT_STREAM, Waiting, watching
from samplewise.proxy.completion import completion, headers
from samplewise.proxy.errors import AnswerError, Elsewhere, error_bytes
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.retries import read_retry
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job, room, stopping
from samplewise.proxy.sse import COMMENT, DONE, RawStream, Told, chunks, error_event
from samplewise.proxy.suffix import without_suffix
from samplewise.proxy.wire import parse_chat

__all__ = ["chat_completions"]


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer one chat request."""
    request_id = service.new_request_id()
    route, key, job = "other", None, None
    try:
        # Before the body is read: a wrong key costs a look-up, whatever it sends.
        key = service.guard.admit(credentials(request.headers))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        chat = parse_chat(body, request.headers)
        named, _ = without_suffix(chat, service.routes)
        route = named if named in service.routes else route
        retry = read_retry(request.headers, body, passed_on=service.peers.asks(request))
        client = Client(request_id, key, retry, given_id(request.headers))
        job = open_job(service, chat, client)
        if chat.options.dry_run:
            return json_reply(await service.estimate(job), {"x-request-id": request_id})
        if chat.stream:
            return Waiting(service, job, request, _ChatStream(job), chat.read_timeout_s)
        if service.setup.plain_keep_alive:
            return Waiting(service, job, request, _ChatBody(), chat.read_timeout_s)
        async with watching(request, job):
            try:
                found = await answer_job(service, job)
            except Elsewhere as elsewhere:
                return await relay(service, job, request, elsewhere)
        return json_reply(completion(found), {**headers(found), **await room(service, key)})
    except asyncio.CancelledError:
        if job is None:
            service.refused(route, stopping(), request_id, key)
        return error_reply(stopping(), request_id)
    except AnswerError as error:
        if job is None:
            service.refused(route, error, request_id, key)
        return error_reply(error, request_id)


class _ChatStream:
    """A chat completion as events."""

    headers = EVENT_STREAM
    sign = COMMENT

    def __init__(self, job: Job) -> None:
        self._raw = RawStream(job)
        self._told = Told(job)

    def forward(self, event: bytes) -> bytes:
        """Return an upstream's own event with our splices."""
        return self._raw.forward(event)

    def tell(self, line: str) -> bytes:
        """Return a line as reasoning, which clients show apart from the answer."""
        return self._told.line(line)

    def finish(self, answer: Answer) -> bytes:
        """Return the answer in pieces, or the end of what has passed through."""
        rest = chunks(answer, self._told.head) if self._told.head else self._raw.finish(answer)
        return b"".join(rest) + DONE

    def failed(self, error: AnswerError) -> bytes:
        """Return an error as an event; `[DONE]` follows it as ever."""
        return error_event(error) + DONE

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None


class _ChatBody:
    """A chat completion as one JSON text, with blank lines before it where it takes its time."""

    headers: Mapping[str, str] = {"content-type": "application/json"}
    sign = b"\n"

    def forward(self, event: bytes) -> bytes:
        """Nothing passes through: the answer is one text."""
        return b""

    def tell(self, line: str) -> bytes:
        """There is no place for it."""
        return b""

    def finish(self, answer: Answer) -> bytes:
        """Return the completion; its headers have left before."""
        return completion(answer)

    def failed(self, error: AnswerError) -> bytes:
        """Return the error in the body of what began as a 200."""
        return error_bytes(error)

    def reply(self, answer: Answer) -> Response | None:
        """Nothing was sent yet, so it has its headers like any other."""
        return json_reply(completion(answer), headers(answer))
