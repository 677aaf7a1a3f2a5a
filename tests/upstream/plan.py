"""From an answer spec and a request to the tokens of one choice, before any of them is sent."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal, NamedTuple

from tests.upstream.request import Request
from tests.upstream.script import Answer, Feature, Timing

__all__ = ["Choice", "Part", "Token", "choice", "finish"]

Part = Literal["reasoning_content", "content", "refusal", "tool"]
_WORD = re.compile(r"\s*\S+")


class Token(NamedTuple):
    """One token: which part of the message it belongs to, what of it is shown, and its logprob.

    `tool` is the position of the tool call it belongs to. `shown` differs from `text` at a stop.
    """

    part: Part
    text: str
    shown: str
    logprob: float
    tool: int = 0
    others: tuple[tuple[str, float], ...] = ()


class Choice(NamedTuple):
    """A planned choice: its tokens, how it ends, and the spec with the rest."""

    tokens: list[Token]
    finish_reason: str
    stop_reason: str | None
    timing: Timing
    answer: Answer


def choice(answer: Answer, request: Request, ignores: tuple[Feature, ...]) -> Choice:
    """Plan a scripted answer."""
    parts: list[tuple[Part, str, int]] = [
        ("reasoning_content", answer.reasoning_content, 0),
        ("refusal", answer.refusal, 0),
        ("content", answer.text, 0),
        *(("tool", call.arguments, at) for at, call in enumerate(answer.tool_calls)),
    ]
    parts = [part for part in parts if part[1] or part[0] == "tool"] or [("content", "", 0)]
    levels = answer.logprobs if isinstance(answer.logprobs, tuple) else (answer.logprobs,)
    tokens: list[Token] = []
    for position, (part, text, tool) in enumerate(parts):
        pieces = _words(text)
        if answer.tokens is not None and position == len(parts) - 1:
            pieces = _even(text, max(0, answer.tokens - len(tokens)))
        for piece in pieces:
            level = levels[len(tokens) % len(levels)]
            tokens.append(Token(part, piece, piece, level, tool))
    reason = answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")
    return finish(tokens, reason, answer, answer, request, ignores)


def finish(
    tokens: list[Token],
    reason: str,
    timing: Timing,
    answer: Answer,
    request: Request,
    ignores: tuple[Feature, ...],
) -> Choice:
    """Cut the tokens at the first stop string and at the token limit."""
    stop = None
    if request.stops and "stop" not in ignores:
        tokens, stop = _stopped(tokens, request)
    limit = None if "max_tokens" in ignores else request.limit
    if limit is not None and limit < len(tokens):
        return Choice(tokens[:limit], "length", None, timing, answer)
    return Choice(tokens, reason if stop is None else "stop", stop, timing, answer)


def _stopped(tokens: list[Token], request: Request) -> tuple[list[Token], str | None]:
    text = "".join(token.text for token in tokens if token.part == "content")
    found = [(text.find(stop), -len(stop), stop) for stop in request.stops if stop and stop in text]
    if not found:
        return tokens, None
    start, _, stop = min(found)
    shown = start + (len(stop) if request.include_stop_str_in_output else 0)
    kept: list[Token] = []
    length = 0
    for token in tokens:
        if token.part != "content":
            kept.append(token)
            continue
        kept.append(token._replace(shown=token.text[: max(0, shown - length)]))
        length += len(token.text)
        if length >= start + len(stop):
            break
    return kept, stop


def _words(text: str) -> list[str]:
    pieces = _WORD.findall(text)
    if not pieces:
        return [text]
    pieces[-1] += text[sum(map(len, pieces)) :]
    return pieces


def _even(text: str, count: int) -> list[str]:
    bounds = [len(text) * at // max(1, count) for at in range(count + 1)]
    return [text[start:end] for start, end in pairwise(bounds)]
