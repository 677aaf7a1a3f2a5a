"""`POST /v1/messages`, plain and streamed: Anthropic's form of the same engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from samplewise.proxy.api.deltas import answer_pieces, chosen_reason, event_piece
from samplewise.proxy.api.messages_output import Blocks, Event
from samplewise.proxy.api.messages_request import NAMES, Translated, translate
from samplewise.proxy.api.replies import json_reply
from samplewise.proxy.api.shapes import message_error, message_error_body
from samplewise.proxy.api.streaming import EVENT_STREAM
from samplewise.proxy.api.surface import answer_request
from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.completion import headers, report, usage_object
from samplewise.proxy.errors import AnswerError
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode, members_of
from samplewise.proxy.keys.base import ClientKey
from samplewise.proxy.service import Service
from samplewise.proxy.sse import COMMENT

__all__ = ["Messages", "answer_messages"]

_STOPS = {"length": "max_tokens", "content_filter": "refusal"}


async def answer_messages(request: Request, service: Service) -> Response:
    """Answer one request."""
    return await answer_request(request, service, Messages())


class Messages:
    """The wire format of `/v1/messages`; `counting` that of its `count_tokens`."""

    def __init__(self, *, counting: bool = False) -> None:
        """Read requests for answers, or for counts of their tokens."""
        self._counting = counting

    @property
    def names(self) -> Mapping[str, str]:
        """Its names for fields of a chat request."""
        return NAMES

    async def read(self, body: bytes, service: Service, key: ClientKey | None) -> _Asked:
        """Read a request."""
        return _Asked(translate(body, counting=self._counting))

    def refuse(self, error: AnswerError, request_id: str) -> Response:
        """Return an error in Anthropic's shape."""
        return message_error(error, request_id)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request; see `Asked`. Nothing more is kept of it than of any other."""

    found: Translated
    also: None = None

    @property
    def body(self) -> bytes:
        """The chat request as JSON text."""
        return self.found.body

    @property
    def warnings(self) -> tuple[str, ...]:
        """What has no effect."""
        return self.found.warnings

    def stream(self, job: Job) -> _Stream:
        """Return what writes the answer as events."""
        return _Stream(self, job)

    def reply(self, answer: Answer) -> Response:
        """Return the message as one JSON text."""
        blocks = self.blocks(answer.job)
        for _ in _whole(blocks, answer):
            pass
        said = {
            **self.message(answer.job),
            "content": blocks.blocks,
            **self.stop(answer, blocks),
            "usage": _usage(answer),
            "samplewise": report(answer),
        }
        fields = {k: v for k, v in headers(answer).items() if not k.startswith("openai-")}
        return json_reply(encode(said), {**fields, "request-id": answer.job.request_id})

    def blocks(self, job: Job) -> Blocks:
        """Return the blocks of an answer that has none yet."""
        return Blocks(_name(job), thinking=self.found.thinking)

    def message(self, job: Job) -> dict[str, Any]:
        """Return the message as it begins."""
        return {
            "id": f"msg_{_name(job)}",
            "type": "message",
            "role": "assistant",
            "model": job.request.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def stop(self, answer: Answer, blocks: Blocks) -> dict[str, Any]:
        """Return why the message has ended."""
        reason = chosen_reason(answer)
        if reason in _STOPS:
            return {"stop_reason": _STOPS[reason], "stop_sequence": None}
        if blocks.refused:
            return {"stop_reason": "refusal", "stop_sequence": None}
        if blocks.calls:
            return {"stop_reason": "tool_use", "stop_sequence": None}
        # Only some servers tell which sequence it was.
        raw = members_of(answer.chosen[0].choice).get("stop_reason", b"null")
        sequence = msgspec.json.decode(raw)
        if isinstance(sequence, str) and sequence in self.found.stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
        return {"stop_reason": "end_turn", "stop_sequence": None}


class _Stream:
    """A message as events."""

    sign = COMMENT

    def __init__(self, asked: _Asked, job: Job) -> None:
        self._asked, self._job = asked, job
        self._blocks = asked.blocks(job)
        self._begun = self._answered = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the stream."""
        return {**EVENT_STREAM, "request-id": self._job.request_id}

    def forward(self, events: RawEvents) -> bytes:
        """Return what an upstream's own events add."""
        return b"".join(map(self._added, events))

    def _added(self, event: bytes) -> bytes:
        piece = event_piece(event)
        if piece is None:
            return b""
        self._answered = True
        return self._opening() + _written(self._blocks.take(piece[0]))

    def tell(self, line: str) -> bytes:
        """Return a line as thinking, where the client wants to see some."""
        if not self._asked.found.thinking:
            return b""
        return self._opening() + _written(self._blocks.take({"reasoning_content": line}))

    def finish(self, answer: Answer) -> bytes:
        """Return the answer in pieces, or the end of what has passed through."""
        if not self._begun:
            # A repetition has the name of the run that it joined, as far as it has none yet.
            self._job, self._blocks = answer.job, self._asked.blocks(answer.job)
        usage = _usage(answer)
        data = self._opening({**usage, "output_tokens": 0})
        blocks = self._blocks
        data += _written(blocks.close() if self._answered else _whole(blocks, answer))
        last = {"delta": self._asked.stop(answer, blocks), "usage": usage}
        data += _event("message_delta", {**last, "samplewise": report(answer)})
        return data + _event("message_stop", {})

    def failed(self, error: AnswerError) -> bytes:
        """Return an error as the event that ends the stream."""
        return _event("error", message_error_body(error, self._job.request_id))

    def reply(self, answer: Answer) -> Response | None:
        """A stream was asked for, so it is one however soon the answer is there."""
        return None

    def _opening(self, usage: Mapping[str, Any] | None = None) -> bytes:
        """Return the event that opens the stream, the first time it is asked."""
        if self._begun:
            return b""
        self._begun = True
        message = self._asked.message(self._job)
        return _event("message_start", {"message": {**message, "usage": usage or message["usage"]}})


def _whole(blocks: Blocks, answer: Answer) -> Iterator[Event]:
    """Yield the events of an answer of which nothing was sent yet."""
    for delta, _ in answer_pieces(answer):
        yield from blocks.take(delta)
    yield from blocks.close()


def _written(events: Iterable[Event]) -> bytes:
    return b"".join([_event(name, fields) for name, fields in events])


def _event(name: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode({"type": name, **fields}) + b"\n\n"


def _name(job: Job) -> str:
    return job.request_id.removeprefix("req_")


def _usage(answer: Answer) -> dict[str, Any]:
    """Return `usage`: cached tokens of the prompt stand apart from the others here."""
    usage = usage_object(answer)
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"thinking_tokens": reasoning},
        "cost": usage["cost"],
    }
