"""`POST /v1/chat/completions`, plain and streamed."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.replies import error_reply, json_reply, read_body
from samplewise.proxy.api.streaming import EVENT_STREAM, Waiting, watching
from samplewise.proxy.completion import completion, headers
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.retries import read_retry
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, answer_job, open_job, stopping
from samplewise.proxy.sse import COMMENT, DONE, RawStream, error_event
from samplewise.proxy.wire import parse_chat

__all__ = ["chat_completions"]


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer one chat request."""
    request_id = service.new_request_id()
    route, key, job = "other", None, None
    try:
        # Before the body is read: a wrong key costs a look-up, whatever it sends.
        key = service.guard.admit(request.headers.get("authorization"))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        chat = parse_chat(body, request.headers)
        route = chat.model if chat.model in service.routes else route
        client = Client(request_id, key, read_retry(request.headers, body))
        job = open_job(service, chat, client)
        if chat.options.dry_run:
            return json_reply(await service.estimate(job), {"x-request-id": request_id})
        if chat.stream:
            return Waiting(service, job, request, _ChatStream(job))
        async with watching(request, job):
            found = await answer_job(service, job)
        return json_reply(completion(found), headers(found))
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

    def forward(self, event: bytes) -> bytes:
        """Return an upstream's own event with our splices."""
        return self._raw.forward(event)

    def finish(self, answer: Answer) -> bytes:
        """Return the answer in pieces, or the end of what has passed through."""
        return b"".join(self._raw.finish(answer)) + DONE

    def failed(self, error: AnswerError) -> bytes:
        """Return an error as an event; `[DONE]` follows it as ever."""
        return error_event(error) + DONE

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None
