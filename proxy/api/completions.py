"""`POST /v1/completions`: prompts continued, plain and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.relay import relay
from samplewise.proxy.api.replies import OPEN_JSON, error_reply, json_reply, read_body
from samplewise.proxy.api.request_ids import given_id
from samplewise.proxy.api.streaming import EVENT_STREAM, Waiting, watching
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.errors import AnswerError, Elsewhere, error_bytes
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
        retry = read_retry(request.headers, body, passed_on=service.peers.asks(request))
        client = Client(request_id, key, retry, given_id(request.headers))
        jobs = open_texts(service, prompts, client)
        if first.options.dry_run:
            return json_reply(await service.estimate(*jobs), {"x-request-id": request_id})
        if first.stream or service.setup.plain_keep_alive:
            texts = _Texts(service, jobs)
            dialect = _TextStream(texts) if first.stream else _TextBody(texts)
            patience_s, others = first.read_timeout_s, jobs[1:]
            return Waiting(
                service, jobs[0], request, dialect, patience_s, others=others, work=texts.answer
            )
        async with watching(request, *jobs):
            try:
                found = await answer_texts(service, jobs)
            except Elsewhere as elsewhere:
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


class _Texts:
    """The prompts of a request that is waited for, and their answers in the end."""

    def __init__(self, service: Service, jobs: Sequence[Job]) -> None:
        self.service, self.jobs = service, jobs
        self.answers: Sequence[Answer] = ()
        if len(jobs) > 1:
            # Two streams of upstreams cannot be one.
            for job in jobs:
                job.tap = None

    async def answer(self) -> Answer:
        """Answer them all; return the first one's."""
        self.answers = await answer_texts(self.service, self.jobs)
        return self.answers[0]


class _TextStream:
    """A text completion as events."""

    headers = EVENT_STREAM
    sign = COMMENT

    def __init__(self, texts: _Texts) -> None:
        self._texts, self._raw = texts, RawStream(texts.jobs[0])

    def forward(self, events: RawEvents) -> bytes:
        """Return an upstream's own events with our splices."""
        return self._raw.forward(events)

    def tell(self, line: str) -> bytes:
        """There is no place for it in a text."""
        return b""

    def finish(self, answer: Answer) -> bytes:
        """Return the answer, or the end of what has passed through."""
        rest: Iterable[bytes]
        rest = self._raw.finish(answer) if self._raw.begun else text_chunks(self._texts.answers)
        return b"".join(rest) + DONE

    def failed(self, error: AnswerError) -> bytes:
        """Return an error as an event; `[DONE]` follows it as ever."""
        return error_event(error) + DONE

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None


class _TextBody:
    """A text completion as one JSON text, with blank lines before it where it takes its time."""

    headers = OPEN_JSON
    sign = b"\n"

    def __init__(self, texts: _Texts) -> None:
        self._texts = texts

    def forward(self, events: RawEvents) -> bytes:
        """Nothing passes through: the answer is one text."""
        return b""

    def tell(self, line: str) -> bytes:
        """There is no place for it."""
        return b""

    def finish(self, answer: Answer) -> bytes:
        """Return the completion; its headers have left before."""
        return text_completion(self._texts.answers)

    def failed(self, error: AnswerError) -> bytes:
        """Return the error in the body of what began as a 200."""
        return error_bytes(error)

    def reply(self, answer: Answer) -> Response | None:
        """Nothing was sent yet, so it has its headers like any other."""
        found = self._texts.answers
        return json_reply(text_completion(found), headers(found))
