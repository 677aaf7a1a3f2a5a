"""`POST /v1/completions`: prompts continued, plain and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.relay import relay
from samplewise.proxy.api.replies import error_reply, json_reply, read_body
from samplewise.proxy.api.request_ids import given_id
from samplewise.proxy.api.streaming import EVENT_STREAM, Waiting, watching
from samplewise.proxy.errors import AnswerError, Elsewhere, RequestError, error_bytes
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.keys.guard import credentials
from samplewise.proxy.retries import read_retry
from samplewise.proxy.service import Service
from samplewise.proxy.serving import Client, room, stopping
from samplewise.proxy.serving_texts import answer_texts, open_texts
from samplewise.proxy.sse import COMMENT, DONE, RawStream, error_event
from samplewise.proxy.text_completion import headers, text_chunks, text_completion
from samplewise.proxy.texts import parse_texts

__all__ = ["completions"]


async def completions(request: Request, service: Service) -> Response:
    """Continue the prompts of one request."""
    request_id = service.new_request_id()
    key, jobs = None, list[Job]()
    try:
        key = service.guard.admit(credentials(request.headers))
        service.rates.check(key)
        body = await read_body(request, service.setup.max_body_bytes)
        prompts = parse_texts(body, request.headers)
        first = prompts[0]
        if first.stream and len(prompts) > 1:
            raise RequestError(
                "stream: a stream continues one prompt; send each in a request of its own, or "
                "leave stream out",
                param="stream",
            )
        passed_on = service.peers.asks(request)
        retry = read_retry(request.headers, body, passed_on=passed_on)
        client = Client(request_id, key, retry, given_id(request.headers))
        jobs = open_texts(service, prompts, client)
        if first.options.dry_run:
            return json_reply(await service.estimate(jobs[0]), {"x-request-id": request_id})
        if first.stream:
            return Waiting(service, jobs[0], request, _TextStream(jobs[0]), first.read_timeout_s)
        if service.setup.plain_keep_alive and len(jobs) == 1:
            return Waiting(service, jobs[0], request, _TextBody(), first.read_timeout_s)
        async with watching(request, *jobs):
            try:
                found = await answer_texts(service, jobs)
            except Elsewhere as elsewhere:
                if len(jobs) > 1:
                    raise
                return await relay(service, jobs[0], request, elsewhere)
        return json_reply(text_completion(found), {**headers(found), **await room(service, key)})
    except asyncio.CancelledError:
        if not jobs:
            service.refused("other", stopping(), request_id, key)
        return error_reply(stopping(), request_id)
    except AnswerError as error:
        if not jobs:
            service.refused("other", error, request_id, key)
        return error_reply(error, request_id)


class _TextStream:
    """A text completion as events."""

    headers = EVENT_STREAM
    sign = COMMENT

    def __init__(self, job: Job) -> None:
        self._raw = RawStream(job)

    def forward(self, event: bytes) -> bytes:
        """Return an upstream's own event with our splices."""
        return self._raw.forward(event)

    def tell(self, line: str) -> bytes:
        """There is no place for it in a text."""
        return b""

    def finish(self, answer: Answer) -> bytes:
        """Return the answer, or the end of what has passed through."""
        rest: Iterable[bytes]
        rest = self._raw.finish(answer) if self._raw.begun else text_chunks([answer])
        return b"".join(rest) + DONE

    def failed(self, error: AnswerError) -> bytes:
        """Return an error as an event; `[DONE]` follows it as ever."""
        return error_event(error) + DONE

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None


class _TextBody:
    """A text completion as one JSON text, with blank lines before it where it takes its time."""

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
        return text_completion([answer])

    def failed(self, error: AnswerError) -> bytes:
        """Return the error in the body of what began as a 200."""
        return error_bytes(error)

    def reply(self, answer: Answer) -> Response | None:
        """Nothing was sent yet, so it has its headers like any other."""
        return json_reply(text_completion([answer]), headers([answer]))
