"""A fake OpenAI-compatible upstream that is never the bottleneck: prebuilt answers, raw protocol.

Every answer has 64 tokens (198 where the model is `fake-long`, streamed) and a text of its own that
ends in a line with a final answer, so that a vote has something to count. Honours `n` and streams
one event per write. It looks for `n`, `stream` and `include_usage` as compact JSON writes them.
`GET /counts` says how many calls and samples it gave.
Run: python -m bench.upstream PORT [SECONDS], where a plain answer takes so many seconds
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from functools import cache
from itertools import count
from typing import Any, cast

import msgspec
import uvloop

TOKENS = 64
# With a chunk for the role and one for the end: a stream of 200 chunks.
LONG_TOKENS = 198
TEXTS = 128
PROMPT_TOKENS = 250
_LAST_WORDS = 8
# Two in four answer 42, so that a vote is won but not unanimous.
_ANSWERS = ("42", "42", "41", "7")
_SUBJECTS = ("apples", "miles", "coins", "pages", "hours", "boxes", "litres", "steps")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_encode = msgspec.json.encode


def tokens(number: int, count: int = TOKENS) -> list[str]:
    """Return the tokens of one text."""
    subject = _SUBJECTS[number % len(_SUBJECTS)]
    reasoning = [f" {subject}{number + i}" for i in range(count - _LAST_WORDS)]
    answer = _ANSWERS[number % len(_ANSWERS)]
    return [*reasoning, "\n", "The", " final", " answer", " is", " ", answer, "."]


@cache
def whole(n: int, turn: int) -> bytes:
    """Return a plain answer with `n` choices, with its HTTP head."""
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": "".join(tokens((turn * n + i) % TEXTS))},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for i in range(n)
    ]
    body = _encode({**_frame("chat.completion"), "choices": choices, "usage": _usage(TOKENS * n)})
    return _HEAD % len(body) + body


@cache
def events(turn: int, usage: bool, count: int) -> tuple[bytes, ...]:
    """Return a streamed answer of so many tokens: one HTTP chunk per event."""
    frame = _frame("chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": token} for token in tokens(turn, count)]
    found = [_chunk(frame, [_choice(delta, None)]) for delta in deltas]
    found.append(_chunk(frame, [_choice({}, "stop")]))
    if usage:
        found.append(_chunk({**frame, "usage": _usage(count)}, []))
    found.append(_http_chunk(b"data: [DONE]\n\n"))
    return (_STREAM_HEAD + found[0], *found[1:-1], found[-1] + b"0\r\n\r\n")


def _frame(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_760_000_000, "model": "fake"}


def _usage(made: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": made,
        "total_tokens": PROMPT_TOKENS + made,
    }


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _chunk(frame: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
    return _http_chunk(b"data: " + _encode({**frame, "choices": choices}) + b"\n\n")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Counts:
    """What all connections have given so far."""

    def __init__(self, delay_s: float) -> None:
        """Begin at zero."""
        self.delay_s = delay_s
        self.calls = 0
        self.samples = 0
        self.turns = count()


class _Connection(asyncio.Protocol):
    """One connection: requests one after another, no pipelining."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._missing = 0
        self._pending: deque[bytes] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            data = b"".join((*self._parts, data))
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._parts = [data]
                return
            self._parts = []
            self._missing = _length(data[:end]) + end + 4
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            request, self._parts, self._missing = b"".join(self._parts), [], 0
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            said = _encode({"calls": self._counts.calls, "samples": self._counts.samples})
            self._transport.write(_HEAD % len(said) + said)
            return
        n, turn = _n(request), next(self._counts.turns)
        self._counts.calls += 1
        self._counts.samples += n
        if b'"stream":true' in request:
            usage = b'"include_usage":true' in request
            count = LONG_TOKENS if b'"fake-long"' in request else TOKENS
            self._pending.extend(events(turn % TEXTS, usage, count))
            self._send()
        else:
            answer = whole(n, turn % max(1, TEXTS // n))
            if self._counts.delay_s:
                self._loop.call_later(self._counts.delay_s, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _send(self) -> None:
        # One event per turn of the loop: an engine sends tokens as they come, not all at once.
        if self._pending and not self._transport.is_closing():
            self._transport.write(self._pending.popleft())
            self._loop.call_soon(self._send)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


def _n(request: bytes) -> int:
    _, found, rest = request.rpartition(b'"n":')
    if not found:
        return 1
    digits = rest[:4]
    return int(digits[: len(digits) - len(digits.lstrip(b"0123456789"))])


async def serve(port: int, delay_s: float = 0.0) -> None:
    """Serve until cancelled."""
    counts = Counts(delay_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(counts), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *map(float, sys.argv[2:])))
