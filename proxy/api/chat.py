"""`POST /v1/chat/completions`, plain and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.replies import error_reply, json_reply
from samplewise.proxy.api.streaming import EVENT_STREAM
from samplewise.proxy.api.surface import answer_request
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.completion import completion, headers
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.service import Service
from samplewise.proxy.sse import COMMENT, DONE, RawStream, Told, chunks, error_event

__all__ = ["chat_completions"]


async def chat_completions(request: Request, service: Service) -> Response:
    """Answer one chat request."""
    return await answer_request(request, service, _Chat())


class _Chat:
    """The wire format that all others are turned into."""

    names: Mapping[str, str] = {}

    async def read(self, body: bytes, service: Service, key: ClientKey | None) -> _Asked:
        """Return a request as it came."""
        return _Asked(body)

    def refuse(self, error: AnswerError, request_id: str) -> Response:
        """Return an error in OpenAI's shape."""
        return error_reply(error, request_id)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request; see `Asked`."""

    body: bytes
    warnings: tuple[str, ...] = ()
    also: None = None

    def stream(self, job: Job) -> _ChatStream:
        """Return what writes the answer as events."""
        return _ChatStream(job)

    def reply(self, answer: Answer) -> Response:
        """Return the completion as one JSON text."""
        return json_reply(completion(answer), headers(answer))


class _ChatStream:
    """A chat completion as events."""

    headers = EVENT_STREAM
    sign = COMMENT

    def __init__(self, job: Job) -> None:
        self._raw = RawStream(job)
        self._told = Told(job)

    def forward(self, events: RawEvents) -> bytes:
        """Return an upstream's own events with our splices."""
        return self._raw.forward(events)

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
