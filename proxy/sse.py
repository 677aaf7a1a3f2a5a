"""Answers as event streams: framing, keep-alive comments, the chosen answer in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from time import time
from typing import Any

import msgspec

from samplewise.proxy.backends.base import RawEvents
from samplewise.proxy.completion import choice_object, finish_reason, report, usage_object
from samplewise.proxy.errors import AnswerError, error_bytes
from samplewise.proxy.job import Answer, Job
from samplewise.proxy.jsontext import encode, members_of, object_text
from samplewise.verifiers.base import Sample

__all__ = ["COMMENT", "DONE", "RawStream", "Told", "chunks", "error_event", "event", "pieces"]

COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
# What an upstream says under these names is not the bill of this request.
_OURS = ("usage", "samplewise")
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
_FRAGMENT = 48  # characters of a tool call's arguments
# Stands for the text of an event while all around it is rewritten.
_MARK = b"<text of the event>"
# About a line of text: few enough events to be cheap, small enough to look alive.
_PIECES = re.compile(r"(?:\s*\S+){1,8}\s*|\s+")


def event(data: bytes) -> bytes:
    """Frame one JSON text as an event."""
    # A line end in JSON text is only ever space, but in a stream it would end the event.
    return b"data: " + data.translate(_ONE_LINE) + b"\n\n"


def error_event(error: AnswerError) -> bytes:
    """Frame an error that came after the status was sent; `[DONE]` still follows it."""
    return event(error_bytes(error))


def chunks(answer: Answer, begun: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """Yield the chosen answer as chat completion chunks, without `[DONE]`.

    `begun` has the fields of a stream that has chunks already. The `samplewise` object is on the
    last chunk: the usage chunk where the client asked for one, else the last finish chunk.
    """
    job = answer.job
    frame = _Frame(answer, begun or {})
    last = len(answer.chosen) - 1
    for index, sample in enumerate(answer.chosen):
        choice = msgspec.json.decode(choice_object(answer, sample, index))
        if begun is None or index:
            yield frame.chunk(_delta(index, {"role": "assistant", "content": ""}))
        yield from _choice_chunks(frame, choice, whole=job.route.stream == "whole")
        final = index == last and not job.include_usage
        finish = {**_rest(choice), "index": index, "delta": {}}
        yield frame.chunk(finish, final=final)
    if job.include_usage:
        yield frame.usage()


class _Frame:
    """The fields that every chunk of one stream shares."""

    def __init__(self, answer: Answer, begun: Mapping[str, bytes]) -> None:
        head = members_of(answer.head)
        for name in _OURS:
            head.pop(name, None)
        self._head = {**_new_head(answer.job), **head, **_fixed(answer.job), **begun}
        self._answer = answer

    def chunk(self, choice: dict[str, Any], *, final: bool = False) -> bytes:
        """Return one event with one choice."""
        fields = {**self._head, "choices": encode([choice])}
        if final:
            fields["samplewise"] = encode(report(self._answer))
        return event(object_text(fields.items()))

    def usage(self) -> bytes:
        """Return the usage event, the only one without choices."""
        fields = {
            **self._head,
            "choices": b"[]",
            "usage": encode(usage_object(self._answer)),
            "samplewise": encode(report(self._answer)),
        }
        return event(object_text(fields.items()))


def _new_head(job: Job) -> dict[str, bytes]:
    return {"id": encode(f"chatcmpl-{job.request_id}"), "created": encode(int(time()))}


def _fixed(job: Job) -> dict[str, bytes]:
    """Return the fields that the upstream has no say in."""
    fields = {"object": b'"chat.completion.chunk"', "model": encode(job.request.model)}
    return {**fields, "usage": b"null"} if job.include_usage else fields


class Told:
    """Lines of progress as reasoning of the answer that will come, in the same stream."""

    def __init__(self, job: Job) -> None:
        """Begin nothing yet."""
        self._job = job
        self.head: dict[str, bytes] | None = None

    def line(self, text: str) -> bytes:
        """Return the events for one line; the first opens the stream's message."""
        delta: dict[str, Any] = {"reasoning_content": text}
        if self.head is None:
            self.head = {**_new_head(self._job), **_fixed(self._job)}
            delta = {"role": "assistant", "content": "", **delta}
        choices = encode([_delta(0, delta)])
        return event(object_text({**self.head, "choices": choices}.items()))


def _rest(choice: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in choice.items() if k not in ("message", "index", "logprobs")}


def _choice_chunks(frame: _Frame, choice: dict[str, Any], *, whole: bool) -> Iterator[bytes]:
    index = choice["index"]
    for piece in pieces(choice, whole=whole):
        yield frame.chunk({**_delta(index, piece["delta"]), **piece})


def pieces(choice: dict[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
    """Yield a choice's message as a stream brings it: each piece has its `delta`.

    Text has `logprobs` beside it. With `whole` no text is cut.
    """
    message = dict(choice["message"])
    content, calls = message.pop("content", None), message.pop("tool_calls", None)
    message = {k: v for k, v in message.items() if k != "role" and v is not None}
    if message:
        # Reasoning, refusal and fields we do not know come before the answer, as they were.
        yield {"delta": message}
    if isinstance(content, str) and content:
        logprobs = choice.get("logprobs")
        # Log-probabilities belong to the text as a whole, so the text stays whole with them.
        texts = [content] if whole or logprobs else _PIECES.findall(content)
        for text in texts:
            yield {"delta": {"content": text}, "logprobs": logprobs}
    elif content:
        yield {"delta": {"content": content}}
    for number, call in enumerate(calls or ()):
        for fragment in _fragments(call, whole=whole):
            yield {"delta": {"tool_calls": [{"index": number, **fragment}]}}


def _fragments(call: dict[str, Any], *, whole: bool) -> Iterator[dict[str, Any]]:
    """Yield a tool call as clients put it together: who is called, then how, bit by bit."""
    function = call.get("function") or {}
    arguments = function.get("arguments") or ""
    if whole or len(arguments) <= _FRAGMENT:
        yield call
        return
    yield {**call, "function": {**function, "arguments": ""}}
    for at in range(0, len(arguments), _FRAGMENT):
        yield {"function": {"arguments": arguments[at : at + _FRAGMENT]}}


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": None}


class RawStream:
    """An upstream's own events on their way to the client, with only our splices.

    The model is the client's name for it, usage goes into a chunk of its own, and the finish chunk
    is held back until the bill is known.
    """

    def __init__(self, job: Job) -> None:
        """Begin a stream for one job."""
        self._job = job
        self._model = encode(job.request.model)
        self._held: dict[str, bytes] | None = None
        self._begun = False
        # What stands around the text of events: as they came, and as they are sent.
        self._form: tuple[bytes, bytes] | None = None
        self._frame: tuple[bytes, bytes] | None = None

    @property
    def begun(self) -> bool:
        """Whether an event of the upstream's was passed on, or is held back."""
        return self._begun

    def forward(self, events: RawEvents) -> bytes:
        """Return what to send for events of the upstream; may be empty."""
        if not events.tail:
            return self._rewritten(events.head)
        form = events.head, events.tail
        if form != self._form:
            # All but the text is the same in them, so it is rewritten once.
            before, mark, after = self._rewritten(_MARK.join(form)).partition(_MARK)
            self._form, self._frame = form, (before, after) if mark else None
        if self._frame is None:
            return b"".join(map(self._rewritten, events))
        before, after = self._frame
        return before + (after + before).join(events.texts) + after

    def _rewritten(self, data: bytes) -> bytes:
        fields = members_of(data)
        for name in _OURS:
            fields.pop(name, None)
        fields["model"] = self._model
        if self._job.include_usage:
            fields["usage"] = b"null"
        choices = fields.get("choices", b"[]")
        if choices.strip() in (b"[]", b"null"):
            return b""
        self._begun = True
        if b'"finish_reason"' in choices and _finished(choices):
            self._held = fields
            return b""
        return event(object_text(fields.items()))

    def finish(self, answer: Answer) -> Iterator[bytes]:
        """Yield the held finish chunk and the usage, with the report on the last of them.

        An upstream that did not stream has sent no events: then the answer comes in pieces.
        """
        if not self._begun:
            yield from chunks(answer)
            return
        held = self._held or members_of(answer.head)
        if not self._job.include_usage:
            held["samplewise"] = encode(report(answer))
        if self._held is not None:
            held["choices"] = _with_known_reason(held["choices"], answer.chosen[0])
            yield event(object_text(held.items()))
        if self._job.include_usage:
            yield _Frame(answer, {}).usage()


def _with_known_reason(choices: bytes, sample: Sample) -> bytes:
    # The only choice there is: what is passed on raw was asked for once.
    (choice,) = msgspec.json.decode(choices, type=list[dict[str, msgspec.Raw]])
    reason = finish_reason(bytes(choice["finish_reason"]), sample)
    return encode([{**choice, "finish_reason": msgspec.Raw(reason)}])


def _finished(choices: bytes) -> bool:
    return any(choice.get("finish_reason") for choice in msgspec.json.decode(choices))
