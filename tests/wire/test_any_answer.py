"""Whatever bytes an upstream answers with: a clean answer or a clean error, and never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.wire.faulty import CAP, PROMPT_NANO, TOKEN_NANO, Fixed, answering, config
from tests.wire.lawful import for_all
from tests.wire.proxy import Reply, serve

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
def _bent(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with something in it replaced, left out or added."""
    if draw(st.integers(0, 5)) == 0 or not isinstance(value, dict | list) or not value:
        return draw(st.sampled_from(ODD))
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(_bent(value[at])), *value[at + 1 :]]
    key = draw(st.sampled_from(sorted(value)))
    if draw(st.integers(0, 5)) == 0:
        return {name: inner for name, inner in value.items() if name != key}
    return {**value, key: draw(_bent(value[key]))}


@st.composite
def _broken(draw: st.DrawFn, text: bytes) -> bytes:
    start = draw(st.integers(0, len(text)))
    end = start + draw(st.sampled_from((0, 1, 3, len(text))))
    piece = draw(
        st.sampled_from((b"", b"\xff", b"\0", b'"', b"}", b",", b"\\ud800", b"\n\n", b"NaN"))
    )
    return text[:start] + piece + text[end:]


@st.composite
def _answers(draw: st.DrawFn) -> tuple[bytes, str]:
    if draw(st.booleans()):
        body = json.dumps(draw(_bent(PLAIN))).encode()
        kind = "application/json"
    else:
        chunks = list(CHUNKS)
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(chunks) - 1))
            chunks[at : at + draw(st.integers(0, 1))] = [draw(_bent(draw(st.sampled_from(CHUNKS))))]
        end = draw(st.sampled_from((b"data: [DONE]\n\n", b"", b"data: [DONE]")))
        body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + end
        kind = "text/event-stream"
    return draw(_broken(body)) if draw(st.integers(0, 3)) == 0 else body, kind


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _check(reply: Reply) -> None:
    """Check that a reply is either a whole answer or an error, and JSON in every part."""
    assert reply.status in (200, 502), reply.body
    if reply.headers["content-type"].startswith("text/event-stream"):
        lines = reply.body.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [_strict(line.removeprefix("data: ")) for line in lines[:-2]]
        if "error" in events[-1] and "choices" not in events[-1]:
            return
        reasons = [c.get("finish_reason") for event in events for c in event["choices"]]
        assert len([reason for reason in reasons if reason]) == 1
        assert events[-1]["samplewise"]["samples"]["ok"] >= 1
        return
    found = _strict(reply.body.decode())
    if reply.status == 502:
        assert found["error"]["type"] == "upstream_error"
        return
    (choice,) = found["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in ("stop", "length", "tool_calls", "content_filter")
    assert found["usage"]["completion_tokens"] >= 0


async def test_random_answers_become_clean_answers_or_clean_errors(tmp_path: Path) -> None:
    said = Fixed()
    async with answering(said) as upstream, serve(config(upstream), tmp_path) as proxy:

        async def law(answer: tuple[bytes, str]) -> None:
            said.body, said.content_type = answer
            before = await proxy.ledger_spent()
            for route, stream in (("one", False), ("one", True), ("many", False), ("live", True)):
                _check(await proxy.chat(route, stream=stream))
            # What cannot be true is never billed, so nobody's budget is spent by a wrong number.
            most = 12 * (CAP * TOKEN_NANO + 200 * PROMPT_NANO) + 4 * 10**9 * TOKEN_NANO
            assert 0 <= await proxy.ledger_spent() - before <= most

        await for_all(_answers(), law, examples=40)
