"""Deltas of chat messages, as surfaces with typed parts read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.proxy.completion import choice_object, finish_reason
from samplewise.proxy.job import Answer
from samplewise.proxy.jsontext import members_of
from samplewise.proxy.sse import pieces

__all__ = ["CallDelta", "answer_pieces", "chosen_reason", "delta_parts", "event_piece"]

_REASONING = ("reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What a delta brings of one tool call; empty what it does not bring.

    `number` says which call of the message it is; None where the server does not tell.
    """

    number: int | None
    id: str
    name: str
    arguments: str

    @classmethod
    def read(cls, call: Mapping[str, Any]) -> CallDelta:
        """Read a member of `tool_calls`."""
        function, number = call.get("function"), call.get("index")
        said = function if isinstance(function, dict) else {}
        texts = (call.get("id"), said.get("name"), said.get("arguments"))
        id_, name, arguments = (text if isinstance(text, str) else "" for text in texts)
        return cls(number if isinstance(number, int) else None, id_, name, arguments)


def delta_parts(delta: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a chat delta brings: `reasoning`, `refusal` or `text` and its text, or a `call`
    and its `CallDelta`.

    Servers use two names for reasoning, and some write text as a list of parts. What has another
    type than it should is left out: nothing of it could be shown.
    """
    reasoning = next((delta[name] for name in _REASONING if delta.get(name)), None)
    if isinstance(reasoning, str):
        yield "reasoning", reasoning
    refusal, content = delta.get("refusal"), delta.get("content")
    if isinstance(refusal, str) and refusal:
        yield "refusal", refusal
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(text for text in texts if isinstance(text, str))
    if isinstance(content, str) and content:
        yield "text", content
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            yield "call", CallDelta.read(call)


def answer_pieces(answer: Answer) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield the deltas of an answer of which nothing was sent yet, with their log-probabilities."""
    choice = msgspec.json.decode(choice_object(answer, answer.chosen[0], 0))
    for piece in pieces(choice, whole=answer.job.route.stream == "whole"):
        yield piece["delta"], piece.get("logprobs")


def event_piece(event: bytes) -> tuple[Mapping[str, Any], Any] | None:
    """Return the delta of an upstream's own event, and its log-probabilities; None without one."""
    choices = msgspec.json.decode(members_of(event).get("choices", b"null"))
    piece = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(piece, dict):
        return None
    delta = piece.get("delta")
    return delta if isinstance(delta, dict) else {}, piece.get("logprobs")


def chosen_reason(answer: Answer) -> str:
    """Return why the chosen answer ended, in the words of a chat completion."""
    sample = answer.chosen[0]
    reason = finish_reason(members_of(sample.choice).get("finish_reason"), sample)
    return str(msgspec.json.decode(reason))
