"""JSON with something wrong in it, and answers of upstreams that are."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

__all__ = ["answers", "bent"]

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROB = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
PLAIN: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "four", "refusal": None},
            "logprobs": {"content": [LOGPROB]},
            "finish_reason": "stop",
            "stop_reason": None,
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        },
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None},
}


def _chunk(choice: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return {"id": "x", "object": "chat.completion.chunk", "choices": choices, **fields}


CHUNKS: tuple[dict[str, Any], ...] = (
    _chunk({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, model="m"),
    _chunk({"delta": {"content": "fo"}, "logprobs": {"content": [LOGPROB]}}),
    _chunk({"delta": {"content": "ur", "reasoning_content": "hm"}}, usage=None),
    _chunk({"delta": {"tool_calls": [CALL]}}),
    _chunk({"delta": {}, "finish_reason": "stop"}),
    _chunk(None, usage=PLAIN["usage"]),
)
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 1.5, 10**30, "", "x", "\x00", "é😀", [], {}, [None], ["x"], [[]], [{}]),
    *({"index": 3}, {"content": 5}, [{"text": "a"}], {"message": "no"}, {"name": None}),
)


@st.composite
def bent(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with something in it replaced, left out or added."""
    if draw(st.integers(0, 5)) == 0 or not isinstance(value, dict | list) or not value:
        return draw(st.sampled_from(ODD))
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(bent(value[at])), *value[at + 1 :]]
    key = draw(st.sampled_from(sorted(value)))
    if draw(st.integers(0, 5)) == 0:
        return {name: inner for name, inner in value.items() if name != key}
    return {**value, key: draw(bent(value[key]))}


@st.composite
def _broken(draw: st.DrawFn, text: bytes) -> bytes:
    start = draw(st.integers(0, len(text)))
    end = start + draw(st.sampled_from((0, 1, 3, len(text))))
    piece = draw(
        st.sampled_from((b"", b"\xff", b"\0", b'"', b"}", b",", b"\\ud800", b"\n\n", b"NaN"))
    )
    return text[:start] + piece + text[end:]


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, str]:
    if draw(st.booleans()):
        body = json.dumps(draw(bent(PLAIN))).encode()
        kind = "application/json"
    else:
        chunks = list(CHUNKS)
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(chunks) - 1))
            chunks[at : at + draw(st.integers(0, 1))] = [draw(bent(draw(st.sampled_from(CHUNKS))))]
        end = draw(st.sampled_from((b"data: [DONE]\n\n", b"", b"data: [DONE]")))
        body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + end
        kind = "text/event-stream"
    return draw(_broken(body)) if draw(st.integers(0, 3)) == 0 else body, kind
