"""What requests to `/v1/responses` and `/v1/messages` become on their way to the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.upstream import UpstreamProcess
from tests.wire.bodies import MESSAGES, RESPONSES
from tests.wire.proxy import Proxy, backend, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = "data:image/png;base64,AA=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10**30}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    upstream_process: UpstreamProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Proxy]:
    config = f"backends:\n{backend(upstream_process)}routes:\n  one: {{backends: [local]}}\n"
    async with serve(config, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(shared: Proxy, upstream: UpstreamProcess) -> Proxy:
    await upstream.script("m", "fine")
    return shared


async def sent(proxy: Proxy, upstream: UpstreamProcess, path: str, **fields: Any) -> Any:
    """Return the chat request that reached the upstream, without what never changes."""
    reply = await proxy.post(path, msgspec.json.encode({"model": "one", **fields}))
    assert reply.status == 200, reply.body
    body = (await upstream.records())[-1].json
    return {name: value for name, value in body.items() if name != "model"}


async def test_input_items_become_turns(proxy: Proxy, upstream: UpstreamProcess) -> None:
    items: Any = [
        {"type": "message", "role": "developer", "content": "be exact"},
        {"role": "user", "content": [{"type": "input_text", "text": "what is it?"}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {"type": "input_file", "file_data": "data:,x", "filename": "a.txt"},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "a ", "annotations": []},
                {"type": "output_text", "text": "moment", "annotations": []},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_image", "image_url": PNG}],
        },
        {"type": "message", "role": "system", "content": "hurry"},
    ]
    got = await sent(proxy, upstream, RESPONSES, input=items, instructions="be brief")
    calls = [
        {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}
        for id_, arguments in (("c1", '{"a":1}'), ("c2", "{}"))
    ]
    assert got["messages"] == [
        {"role": "system", "content": "be brief\n\nbe exact"},
        {"role": "user", "content": "what is it?"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:,x", "filename": "a.txt"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": "a moment",
            "reasoning_content": "hm",
            "tool_calls": calls,
        },
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "image_url", "image_url": {"url": PNG}}],
        },
        {"role": "system", "content": "hurry"},
    ]


async def test_what_is_said_before_all_else_is_one_message(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    first, second, last = (
        {"role": "developer", "content": "be exact"},
        {"role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
        {"role": "user", "content": "hi"},
    )
    got = await sent(proxy, upstream, RESPONSES, input=[first, second, last, first])
    head = {"role": "developer", "content": "be exact\n\nbe brief"}
    assert got["messages"] == [head, last, first]
    got = await sent(proxy, upstream, RESPONSES, input=[first, last])
    assert got["messages"] == [first, last]


async def test_fields_of_a_response_become_those_of_a_chat(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    function = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
    format_ = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}
    got = await sent(
        proxy,
        upstream,
        RESPONSES,
        input="hi",
        max_output_tokens=77,
        temperature=0.25,
        top_p=None,
        top_k=5,
        metadata={"a": "b"},
        store=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": format_, "verbosity": "low"},
        tools=[{"type": "function", **function}, {"type": "function", "name": "g"}],
        tool_choice={
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "f"}],
        },
        parallel_tool_calls=False,
    )
    assert got == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 77,
        "temperature": 0.25,
        "top_k": 5,
        "prompt_cache_key": "k",
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
        },
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


async def test_without_tools_nothing_is_said_of_them(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    got = await sent(
        proxy,
        upstream,
        RESPONSES,
        input="hi",
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
    )
    assert set(got) == {"messages", "max_tokens"}


async def test_content_blocks_become_turns(proxy: Proxy, upstream: UpstreamProcess) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "AA=="}
    plain = {"type": "text", "media_type": "text/plain", "data": "of old"}
    cached = {"cache_control": {"type": "ephemeral"}}
    turns: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look", **cached},
                {"type": "image", "source": source},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {"type": "document", "source": pdf, "title": "a.pdf"},
                {"type": "document", "source": plain, "title": "Tales"},
                {"type": "document", "source": {"type": "content", "content": "new"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "redacted_thinking", "data": "x"},
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1.50}},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": True},
                {"type": "text", "text": "go on"},
            ],
        },
        {"role": "system", "content": [{"type": "text", "text": "hurry"}]},
    ]
    system: Any = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=0a1b2;"},
        {"type": "text", "text": "be brief", **cached},
        {"type": "text", "text": "be exact"},
    ]
    got = await sent(proxy, upstream, MESSAGES, messages=turns, system=system, max_tokens=9)
    assert got["messages"] == [
        {"role": "system", "content": "be brief\n\nbe exact"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": PNG}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,AA==",
                    },
                },
                {"type": "text", "text": "Tales\n\nof old"},
                {"type": "text", "text": "new"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a":1.5}'},
                },
                {"id": "t2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "user", "content": "go on"},
        {"role": "system", "content": "hurry"},
    ]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"type": "tool", "name": "f"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
    ],
)
async def test_fields_of_a_message_become_those_of_a_chat(
    proxy: Proxy, upstream: UpstreamProcess, choice: Any, said: dict[str, Any]
) -> None:
    got = await sent(
        proxy,
        upstream,
        MESSAGES,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=77,
        temperature=0.25,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "somebody"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        context_management={"edits": []},
        thinking={"type": "adaptive"},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        tools=[
            {"name": "f", "description": "d", "input_schema": SCHEMA, "cache_control": None},
            {"type": "custom", "name": "g", "input_schema": {"type": "object"}, "strict": True},
        ],
        tool_choice=choice,
    )
    assert got == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 77,
        "temperature": 0.25,
        "top_k": 5,
        "stop": ["END"],
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": SCHEMA, "description": "d"},
            },
            {
                "type": "function",
                "function": {"name": "g", "parameters": {"type": "object"}, "strict": True},
            },
        ],
        **said,
    }


async def test_what_has_no_effect_is_said_in_the_warnings(
    proxy: Proxy, upstream: UpstreamProcess
) -> None:
    body: dict[str, Any] = {"model": "one", "input": "hi", "truncation": "auto"}
    reply = await proxy.post(RESPONSES, msgspec.json.encode(body))
    assert any(warning.startswith("truncation:") for warning in reply.said["warnings"])
    assert reply.json["truncation"] == "disabled"
    turns = [{"role": "user", "content": "hi"}]
    body = {"model": "one", "messages": turns, "max_tokens": 9}
    body["context_management"] = {"edits": [{"type": "clear"}]}
    reply = await proxy.post(MESSAGES, msgspec.json.encode(body))
    assert any(warning.startswith("context_management:") for warning in reply.said["warnings"])
