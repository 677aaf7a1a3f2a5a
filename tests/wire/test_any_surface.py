"""`/v1/responses` and `/v1/messages`, whatever a client sends and whatever an upstream answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.upstream import UpstreamProcess
from tests.wire.bodies import MESSAGES, RESPONSES
from tests.wire.faulty import Fixed, answering, config
from tests.wire.lawful import for_all
from tests.wire.odd import answers, bent
from tests.wire.proxy import Reply, backend, serve
from tests.wire.shapes import (
    check_message,
    check_message_events,
    check_response,
    check_response_events,
    events,
)

TURN = {"role": "user", "content": [{"type": "input_text", "text": "hi"}]}
IMAGE = {"type": "base64", "media_type": "image/png", "data": "AA=="}
ASKED: dict[str, dict[str, Any]] = {
    RESPONSES: {
        "model": "one",
        "input": [
            TURN,
            {"type": "reasoning", "summary": [], "content": [{"type": "x", "text": "hm"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]},
        ],
        "instructions": "be brief",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"],
        "max_output_tokens": 9,
        "temperature": 0.5,
        "stream": False,
        "samplewise": {"samples": 1},
    },
    MESSAGES: {
        "model": "one",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": IMAGE}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": "x"},
                    {"type": "document", "source": {"type": "content", "content": "y"}},
                ],
            },
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "stop_sequences": ["END"],
        "stream": False,
        "samplewise": {"samples": 1},
    },
}

PLAIN: dict[str, dict[str, Any]] = {
    RESPONSES: {"input": "hi"},
    MESSAGES: {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "thinking": {"type": "adaptive"},
    },
}


@st.composite
def _requests(draw: st.DrawFn) -> tuple[str, Any]:
    path = draw(st.sampled_from((RESPONSES, MESSAGES)))
    body: Any = ASKED[path]
    for _ in range(draw(st.integers(0, 3))):
        body = draw(bent(body))
    counted = path == MESSAGES and draw(st.integers(0, 4)) == 0
    return f"{path}/count_tokens" if counted else path, body


async def test_any_json_is_answered_or_refused_in_the_surfaces_own_shape(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    async def law(request: tuple[str, Any]) -> None:
        path, body = request
        reply = await proxy.post(path, json.dumps(body).encode())
        assert reply.status < 500, reply.body
        if reply.status != 200:
            assert reply.error["message"]
            assert (reply.json.get("type") == "error") == path.startswith(MESSAGES)

    routes = "routes:\n  one: {backends: [local]}\n"
    await upstream.script("m", "fine")
    async with serve(f"backends:\n{backend(upstream)}{routes}", tmp_path) as proxy:
        for path, body in ASKED.items():
            reply = await proxy.post(path, json.dumps(body).encode())
            assert reply.status == 200, reply.body
        await for_all(_requests(), law, examples=100)


def _check(path: str, reply: Reply) -> None:
    """Check that a reply is a whole answer or an error, in every part as its surface says."""
    assert reply.status in (200, 502), reply.body
    if reply.status == 502:
        assert reply.error["type"] == ("api_error" if path == MESSAGES else "upstream_error")
    elif reply.headers["content-type"].startswith("text/event-stream"):
        (check_message_events if path == MESSAGES else check_response_events)(events(reply))
    else:
        (check_message if path == MESSAGES else check_response)(reply.json)


async def test_any_answer_of_an_upstream_becomes_a_clean_answer_or_a_clean_error(
    tmp_path: Path,
) -> None:
    said = Fixed()
    async with answering(said) as upstream, serve(config(upstream), tmp_path) as proxy:

        async def law(answer: tuple[bytes, str]) -> None:
            said.body, said.content_type = answer
            for route, stream in (("one", False), ("one", True), ("many", False), ("live", True)):
                for path, body in PLAIN.items():
                    asked = {"model": route, "stream": stream, **body}
                    _check(path, await proxy.post(path, json.dumps(asked).encode()))

        await for_all(answers(), law, examples=25)
