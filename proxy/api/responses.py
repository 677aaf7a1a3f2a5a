"""`POST /v1/responses`, plain and streamed: a thin form of the same engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.deltas import answer_pieces, chosen_reason, event_piece
from samplewise.proxy.api.replies import error_reply, json_reply
from samplewise.proxy.api.responses_items import referred
from samplewise.proxy.api.responses_output import Event, Output
from samplewise.proxy.api.responses_request import NAMES, Translated, opened, translate
from samplewise.proxy.api.stored import items_named, items_of, keeps_responses, stored
from samplewise.proxy.api.streaming import EVENT_STREAM
from samplewise.proxy.api.surface import answer_request
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.completion import headers, report, usage_object
from samplewise.proxy.errors import AnswerError, error_body
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.service import Service
from samplewise.proxy.sse import COMMENT

__all__ = ["Responses", "answer_responses"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What the service promises to say of every response, where the request says nothing.
_DEFAULTS: Mapping[str, Any] = {
    "background": False,
    "parallel_tool_calls": True,
    "truncation": "disabled",
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
}
_REPEATED = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "safety_identifier",
    "prompt_cache_key",
)


async def answer_responses(request: Request, service: Service) -> Response:
    """Answer one request."""
    return await answer_request(request, service, Responses())


class Responses:
    """The wire format of `/v1/responses`."""

    names = NAMES

    async def read(self, body: bytes, service: Service, key: ClientKey | None) -> _Asked:
        """Read a request, and what it goes on from."""
        fields, items, name = opened(body)
        rows = "" if key is None else key.id
        before = [] if name is None else await items_of(service, name, rows)
        names = referred(items)
        known = await items_named(service, set(names.values()), rows)
        items = [known.get(names.get(at, ""), item) for at, item in enumerate(items)]
        found = translate(fields, [*before, *items], len(before))
        return _Asked(found, keeps_responses(service))

    def refuse(self, error: AnswerError, request_id: str) -> Response:
        """Return an error in OpenAI's shape."""
        return error_reply(error, request_id)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request; see `Asked`. `keeps` says that responses are kept here."""

    found: Translated
    keeps: bool
    created: int = field(default_factory=lambda: int(time()))

    @property
    def body(self) -> bytes:
        """The chat request as JSON text."""
        return self.found.body

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has no effect."""
        return self.found.warnings

    @property
    def also(self) -> Callable[[Answer], Mapping[str, Any]] | None:
        """What is kept of the response, where it may be."""
        return self._kept if self.keeps and self.found.store else None

    def _kept(self, answer: Answer) -> Mapping[str, Any]:
        return stored(self.found.items, self._whole(answer))

    def stream(self, job: Job) -> _Stream:
        """Return what writes the answer as events."""
        return _Stream(self, job)

    def reply(self, answer: Answer) -> Response:
        """Return the response as one JSON text."""
        return json_reply(encode(self._whole(answer)), headers(answer))

    def _whole(self, answer: Answer) -> dict[str, Any]:
        output = self.output(answer.job)
        for _ in _whole(output, answer):
            pass
        return self.resource(answer.job, output, answer)

    def output(self, job: Job) -> Output:
        """Return the output of an answer that has none yet."""
        return Output(_name(job), self.found.grouped)

    def resource(
        self, job: Job, output: Output | None = None, answer: Answer | None = None
    ) -> dict[str, Any]:
        """Return the response object: as it begins, or as it is in the end."""
        given = job.request.fields
        found: dict[str, Any] = {
            "id": f"resp_{_name(job)}",
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            **_DEFAULTS,
            **{name: msgspec.Raw(given[name]) for name in _REPEATED if name in given},
            **self.found.echo,
            "model": job.request.model,
            "store": self.also is not None,
            "output": [] if output is None else output.items,
            "usage": None,
        }
        return found if answer is None else found | _end(answer, self.created)


class _Stream:
    """A response as typed events, numbered from 0."""

    headers = EVENT_STREAM
    sign = COMMENT

    def __init__(self, asked: _Asked, job: Job) -> None:
        self._asked, self._job = asked, job
        self._output = asked.output(job)
        self._number = 0
        self._answered = False

    def forward(self, events: RawEvents) -> bytes:
        """Return what an upstream's own events add."""
        return b"".join(map(self._added, events))

    def _added(self, event: bytes) -> bytes:
        piece = event_piece(event)
        if piece is None:
            return b""
        self._answered = True
        return self._begun() + self._written(self._output.take(*piece))

    def tell(self, line: str) -> bytes:
        """Return a line as reasoning, which clients show apart from the answer."""
        return self._begun() + self._written(self._output.take({"reasoning_content": line}))

    def finish(self, answer: Answer) -> bytes:
        """Return the answer in pieces, or the end of what has passed through."""
        if not self._number:
            # A repetition has the name of the run that it joined, as far as it has none yet.
            self._job, self._output = answer.job, self._asked.output(answer.job)
        if self._answered:
            rest = self._output.close(cut=chosen_reason(answer) in _INCOMPLETE)
        else:
            rest = _whole(self._output, answer)
        data = self._begun() + self._written(rest)
        whole = self._asked.resource(self._job, self._output, answer)
        return data + self._event(f"response.{whole['status']}", {"response": whole})

    def failed(self, error: AnswerError) -> bytes:
        """Return an error both as the event that SDKs raise, and as the end of the response."""
        said = error_body(error)["error"]
        flat = {name: said[name] for name in ("code", "message", "param")}
        data = self._begun() + self._event("error", {**flat, "error": said})
        code = error.code or error.type
        end = {"status": "failed", "error": {"code": code, "message": error.message}}
        whole = self._asked.resource(self._job, self._output) | end
        return data + self._event("response.failed", {"response": whole})

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None

    def _begun(self) -> bytes:
        """Return the events that open the stream, the first time it is asked."""
        if self._number:
            return b""
        whole = {"response": self._asked.resource(self._job)}
        names = ("response.created", "response.in_progress")
        return b"".join(self._event(name, whole) for name in names)

    def _written(self, events: Iterable[Event]) -> bytes:
        # Each is written before the next one is made: they share what grows.
        return b"".join([self._event(name, fields) for name, fields in events])

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        data = encode({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _name(job: Job) -> str:
    return job.request_id.removeprefix("req_")


def _whole(output: Output, answer: Answer) -> Iterator[Event]:
    """Yield the events of an answer of which nothing was sent yet."""
    for delta, logprobs in answer_pieces(answer):
        yield from output.take(delta, logprobs)
    yield from output.close(cut=chosen_reason(answer) in _INCOMPLETE)


def _end(answer: Answer, created: int) -> dict[str, Any]:
    """Return what a response says when it has ended."""
    why = _INCOMPLETE.get(chosen_reason(answer))
    usage = usage_object(answer)
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "status": "incomplete" if why else "completed",
        "incomplete_details": {"reason": why} if why else None,
        "completed_at": None if why else created + round(answer.seconds),
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
            "cost": usage["cost"],
        },
        "samplewise": report(answer),
    }
