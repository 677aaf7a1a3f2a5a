"""What `/v1/responses` and `/v1/messages` refuse: with its place, in their shape, for nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.upstream import UpstreamProcess
from tests.wire.bodies import MESSAGES, RESPONSES
from tests.wire.proxy import Proxy, Reply, backend, serve

# One proxy serves all of them: after a refusal it must be as good as new.
pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
IMAGE = {"type": "base64", "media_type": "image/png", "data": "AA=="}


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    """Return a turn with these parts."""
    return {"role": role, "content": list(parts)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    upstream_process: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    vote = "{backends: [local], policy: 'majority_vote:8'}"
    routes = f"routes:\n  one: {{backends: [local]}}\n  vote: {vote}\n"
    config = f"backends:\n{backend(upstream_process)}{routes}"
    async with serve(config, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared: Proxy, upstream: UpstreamProcess) -> Proxy:
    await upstream.script("m", "fine")
    return shared


async def refused(proxy: Proxy, upstream: UpstreamProcess, path: str, body: Any) -> Reply:
    """Return the reply to a request that must have cost nothing."""
    spent = await proxy.ledger_spent()
    reply = await proxy.post(path, body if isinstance(body, bytes) else msgspec.json.encode(body))
    assert reply.status == 400, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert await upstream.records() == []
    assert await proxy.ledger_spent() == spent
    return reply


_ITEMS: list[tuple[Any, str]] = [
    ({"type": "message", "role": "tool", "content": "x"}, "input.0.role"),
    ({"role": "user"}, "input.0"),
    ({"role": "user", "content": 7}, "input.0.content"),
    ({"role": "user", "content": [{"type": "output_text", "text": "x"}]}, "input.0.content.0.type"),
    ({"role": "user", "content": [{"text": "x"}]}, "input.0.content.0.type"),
    ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0"),
    ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "input.0.content.0"),
    ({"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}, "input.0.content.0"),
    ({"role": "user", "content": [{"type": "input_text", "text": "x"}, 7]}, "input.0.content.1"),
    (
        {"role": "assistant", "content": [{"type": "input_text", "text": "x"}]},
        "input.0.content.0.type",
    ),
    (
        {"role": "developer", "content": [{"type": "input_image", "image_url": "u"}]},
        "input.0.content.0.type",
    ),
    ({"type": "item_reference", "id": "msg_1"}, "input.0"),
    ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, "input.0.type"),
    ({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": ""}, "input.0.type"),
    ({"type": "function_call", "call_id": "c", "name": "n"}, "input.0"),
    ({"type": "function_call", "call_id": "c", "name": "n", "arguments": {}}, "input.0.arguments"),
    ({"type": "function_call_output", "call_id": "c", "output": "x"}, "input.0.call_id"),
    ({}, "input.0.type"),
    ("text", "input.0"),
]
_TOOLS: list[tuple[Any, str]] = [
    ({"type": "web_search"}, "tools.0.type"),
    ({"type": "custom", "name": "patch"}, "tools.0.type"),
    ({"type": "mcp", "server_label": "s"}, "tools.0.type"),
    (
        {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "c"}]},
        "tools.0.tools.0.type",
    ),
    ({"type": "namespace", "name": "n"}, "tools.0"),
    ({"type": "function"}, "tools.0"),
    ({"type": "function", "name": "f", "parameters": []}, "tools.0.parameters"),
    ({"name": "f"}, "tools.0"),
    (7, "tools.0"),
]
_RESPONSES: list[tuple[dict[str, Any], str]] = [
    *(({"input": [item]}, place) for item, place in _ITEMS),
    *(({"tools": [tool]}, place) for tool, place in _TOOLS),
    ({"tools": [FUNCTION, FUNCTION]}, "tools.1.name"),
    ({"input": 7}, "input"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"background": True}, "background"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"messages": [{"role": "user", "content": "hi"}]}, "messages"),
    ({"max_tokens": 9}, "max_tokens"),
    ({"n": 2}, "n"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "9"}, "max_output_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"instructions": ["x"]}, "instructions"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
    ({"text": {"verbosity": 7}}, "text.verbosity"),
    ({"reasoning": {"effort": 7}}, "reasoning.effort"),
    ({"include": ["everything"]}, "include.0"),
    ({"include": "everything"}, "include"),
    ({"top_logprobs": "2"}, "top_logprobs"),
    ({"tools": [FUNCTION], "tool_choice": "some"}, "tool_choice"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name"),
    (
        {
            "tools": [FUNCTION],
            "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "g"}]},
        },
        "tool_choice.tools.0.name",
    ),
    ({"tools": [FUNCTION], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"samplewise": {"sample": 3}}, "samplewise.sample"),
    ({"stream": "yes"}, "stream"),
    (
        {"model": "vote", "input": [said({"type": "input_image", "image_url": "data:,"})]},
        "input",
    ),
]


@pytest.mark.parametrize(("fields", "place"), _RESPONSES, ids=lambda value: str(value)[:60])
async def test_a_wrong_response_request_is_refused_with_its_place(
    proxy: Proxy, upstream: UpstreamProcess, fields: dict[str, Any], place: str
) -> None:
    body = {"model": "one", "input": "hi", **fields}
    reply = await refused(proxy, upstream, RESPONSES, body)
    assert list(reply.json) == ["error"]
    assert reply.error["param"] == place
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["message"].startswith(place.partition(".")[0])


_BLOCKS: list[tuple[Any, str]] = [
    ({"type": "tool_use", "id": "t", "name": "f", "input": {}}, "messages.0.content.0.type"),
    ({"type": "thinking", "thinking": "x", "signature": ""}, "messages.0.content.0.type"),
    ({"type": "search_result", "source": "s", "title": "t"}, "messages.0.content.0.type"),
    ({"type": "container_upload", "file_id": "f"}, "messages.0.content.0.type"),
    ({"type": "text"}, "messages.0.content.0"),
    ({"type": "text", "text": 7}, "messages.0.content.0.text"),
    ({"text": "x"}, "messages.0.content.0"),
    (
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        "messages.0.content.0.source.type",
    ),
    (
        {"type": "image", "source": {"type": "base64", "data": "AA=="}},
        "messages.0.content.0.source",
    ),
    (
        {"type": "document", "source": {"type": "url", "url": "u"}},
        "messages.0.content.0.source.type",
    ),
    (
        {"type": "document", "source": IMAGE, "citations": {"enabled": True}},
        "messages.0.content.0.citations",
    ),
    (
        {"type": "tool_result", "tool_use_id": "t", "content": "x"},
        "messages.0.content.0.tool_use_id",
    ),
]
_USED = said({"type": "tool_use", "id": "t", "name": "f", "input": {}}, role="assistant")
_MESSAGES: list[tuple[dict[str, Any], str]] = [
    *(({"messages": [said(block)]}, place) for block, place in _BLOCKS),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": None}, "messages"),
    (
        {"messages": [said({"type": "text", "text": "x"}), {"role": "assistant", "content": "So"}]},
        "messages.1",
    ),
    (
        {"messages": [said({"type": "image", "source": IMAGE}, role="assistant")]},
        "messages.0.content.0.type",
    ),
    (
        {
            "messages": [
                said({"type": "tool_use", "id": "t", "name": "f", "input": "x"}, role="assistant")
            ]
        },
        "messages.0.content.0.input",
    ),
    (
        {
            "messages": [
                _USED,
                said({"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "t"}),
            ]
        },
        "messages.1.content.1",
    ),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"system": 7}, "system"),
    ({"system": [{"type": "image", "source": IMAGE}]}, "system.0.type"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
    ({"tools": [{"type": 7, "name": "f"}]}, "tools.0.type"),
    ({"tools": [{"name": "f"}]}, "tools.0"),
    ({"tools": [{"name": "f", "input_schema": []}]}, "tools.0.input_schema"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
    ({"thinking": {"type": "deep"}}, "thinking.type"),
    ({"output_config": {"format": {"type": "grammar", "schema": {}}}}, "output_config.format.type"),
    ({"output_config": {"effort": 7}}, "output_config.effort"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]}, "mcp_servers"),
    ({"container": "c"}, "container"),
    ({"stop": ["x"]}, "stop"),
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"temperature": "hot"}, "temperature"),
    ({"samplewise": {"sample": 3}}, "samplewise.sample"),
    ({"model": "vote", "messages": [said({"type": "image", "source": IMAGE})]}, "messages"),
]


@pytest.mark.parametrize(("fields", "place"), _MESSAGES, ids=lambda value: str(value)[:60])
async def test_a_wrong_message_request_is_refused_with_its_place(
    proxy: Proxy, upstream: UpstreamProcess, fields: dict[str, Any], place: str
) -> None:
    body = {"model": "one", "max_tokens": 9, "messages": [said({"type": "text", "text": "hi"})]}
    reply = await refused(proxy, upstream, MESSAGES, {**body, **fields})
    assert set(reply.json) == {"type", "error", "request_id"}
    assert reply.json["type"] == "error"
    assert reply.json["request_id"] == reply.headers["request-id"]
    assert reply.error["param"] == place
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["message"].startswith(place.partition(".")[0])


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"model": "one", "model": "one"}',
        b'{"model": "\\ud800"}',
        b"\xff",
    ],
)
async def test_what_is_no_object_is_refused_in_the_surfaces_own_shape(
    proxy: Proxy, upstream: UpstreamProcess, path: str, body: bytes
) -> None:
    reply = await refused(proxy, upstream, path, body)
    assert reply.error["type"] == "invalid_request_error"
    assert (reply.json.get("type") == "error") == (path == MESSAGES)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_other_methods_and_paths_are_refused_in_the_surfaces_own_shape(
    proxy: Proxy, method: str
) -> None:
    for path in (MESSAGES, f"{MESSAGES}/batches", f"{MESSAGES}/count_tokens"):
        reply = await proxy.ask(method, path)
        assert reply.status in (404, 405)
        assert reply.json["type"] == "error"
        assert reply.error["type"] in ("not_found_error", "invalid_request_error")
    for path in (RESPONSES, f"{RESPONSES}/resp_1", f"{RESPONSES}/resp_1/other"):
        reply = await proxy.ask(method, path)
        assert reply.status in (404, 405)
        assert list(reply.json) == ["error"]
