"""The official `anthropic` client against the proxy: what a user of the SDK sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import CALLS, Sum, said, serving

ASK: list[MessageParam] = [{"role": "user", "content": "how many are six and seven"}]
TEXT = "one two three four five six seven eight nine ten eleven"
TOOLS: list[ToolParam] = [
    {"name": name, "input_schema": {"type": "object"}} for name in ("weather", "clock")
]
THINKING: Any = {"type": "adaptive"}


@asynccontextmanager
async def asking(proxy: Proxy, **options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    given: dict[str, Any] = {"max_retries": 0, "api_key": "sk-ant-of-the-client"} | options
    async with anthropic.AsyncAnthropic(base_url=proxy.url, **given) as client:
        yield client


async def test_a_plain_answer_has_its_text_its_report_and_its_cost(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer: Any = await client.messages.create(model="vote", max_tokens=99, messages=ASK)
        assert (answer.type, answer.role, answer.model) == ("message", "assistant", "vote")
        assert [(block.type, block.text) for block in answer.content] == [("text", "it is 13")]
        assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
        assert said(answer)["samples"]["drawn"] == 6
        assert said(answer)["outcome"] == "agreed"
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (6, 18)
        assert answer.usage.model_extra == {"cost": said(answer)["cost_usd"]["total"]}
        assert answer._request_id == said(answer)["request_id"]


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_events_build_up_the_message(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text=TEXT, reasoning_content="let me see"))
    ask: dict[str, Any] = {"model": route, "max_tokens": 99, "messages": ASK}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.messages.create(thinking=THINKING, stream=True, **ask)
        events: list[Any] = [event async for event in stream]
        assert list(dict.fromkeys(event.type for event in events)) == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        starts = [event for event in events if event.type == "content_block_start"]
        assert [(e.index, e.content_block.type) for e in starts] == [(0, "thinking"), (1, "text")]
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        assert "".join(d.text for d in deltas if d.type == "text_delta") == TEXT
        assert events[-2].usage.output_tokens > 0
        assert said(events[-2])["route"] == route
        async with client.messages.stream(thinking=THINKING, **ask) as helper:
            texts = [text async for text in helper.text_stream]
            final: Any = await helper.get_final_message()
        assert "".join(texts) == TEXT
        assert [block.type for block in final.content] == ["thinking", "text"]
        assert final.content[0].thinking == "let me see"
        assert final.stop_reason == "end_turn"
        assert final.usage.input_tokens == 6


async def test_thinking_is_shown_only_to_those_who_ask_for_it(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 13", reasoning_content="let me see"))
    shown: dict[str, Any] = {
        "none": anthropic.omit,
        "disabled": {"type": "disabled"},
        "omitted": {"type": "adaptive", "display": "omitted"},
        "enabled": {"type": "enabled", "budget_tokens": 1024},
    }
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for name, thinking in shown.items():
            answer = await client.messages.create(
                model="one", max_tokens=2000, messages=ASK, thinking=thinking
            )
            kinds = [block.type for block in answer.content]
            assert kinds == (["thinking", "text"] if name == "enabled" else ["text"])
            warned = any("budget_tokens" in warning for warning in said(answer)["warnings"])
            assert warned == (name == "enabled")


async def test_what_was_thought_goes_back_with_the_turn(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 13", reasoning_content="let me see"))
    ask: dict[str, Any] = {"model": "one", "max_tokens": 99, "thinking": THINKING}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        first = await client.messages.create(messages=ASK, **ask)
        history: Any = [*ASK, {"role": "assistant", "content": first.content}, *ASK]
        await client.messages.create(messages=history, **ask)
        turns = (await upstream.records())[-1].json["messages"]
        assert turns[1] == {
            "role": "assistant",
            "content": "it is 13",
            "reasoning_content": "let me see",
        }


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_tools_are_called_and_their_results_answered(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text="a moment", tool_calls=CALLS))
    ask: dict[str, Any] = {"model": route, "max_tokens": 99, "tools": TOOLS}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        first = await client.messages.create(messages=ASK, **ask)
        async with client.messages.stream(messages=ASK, **ask) as stream:
            streamed = await stream.get_final_message()
        for answer in (first, streamed):
            blocks: list[Any] = list(answer.content)
            assert blocks[0].text == "a moment"
            assert [(b.type, b.id, b.name, b.input) for b in blocks[1:]] == [
                ("tool_use", "call_1", "weather", {"city": "Oslo", "unit": "C"}),
                ("tool_use", "call_2", "clock", {"city": "Rome"}),
            ]
            assert answer.stop_reason == "tool_use"
        await upstream.script("m", "it rains in Oslo")
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in CALLS
        ]
        asked = [*results, {"type": "text", "text": "and now?"}]
        history: Any = [*ASK, first.to_param(), {"role": "user", "content": asked}]
        second: Any = await client.messages.create(messages=history, **ask)
        assert second.content[0].text == "it rains in Oslo"
        turns = (await upstream.records())[-1].json["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool", "user"]
        assert [call["id"] for call in turns[1]["tool_calls"]] == [call.id for call in CALLS]
        assert turns[-1]["content"] == "and now?"


async def test_parse_gets_its_schema_through_and_its_object_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", '{"steps": [], "answer": 13}')
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.messages.parse(
            model="vote", max_tokens=99, messages=ASK, output_format=Sum
        )
        assert answer.parsed_output == Sum(steps=[], answer=13)
        sent = (await upstream.record()).json["response_format"]["json_schema"]
        assert sent["schema"]["required"] == ["steps", "answer"]


@pytest.mark.parametrize("stream", [False, True])
async def test_messages_say_why_they_ended(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    ends: list[tuple[Answer, dict[str, Any], tuple[str, str | None]]] = [
        (Answer(text=TEXT), {"max_tokens": 3}, ("max_tokens", None)),
        (Answer(text=TEXT), {"stop_sequences": [" four"]}, ("stop_sequence", " four")),
        (Answer(text="no", finish_reason="content_filter"), {}, ("refusal", None)),
        (Answer(refusal="I would rather not"), {}, ("refusal", None)),
    ]
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for answer, more, reason in ends:
            await upstream.script("m", answer)
            ask: dict[str, Any] = {"model": "one", "max_tokens": 99, "messages": ASK, **more}
            if stream:
                async with client.messages.stream(**ask) as events:
                    found = await events.get_final_message()
            else:
                found = await client.messages.create(**ask)
            assert (found.stop_reason, found.stop_sequence) == reason
            blocks: list[Any] = list(found.content)
            expected = "one two three" if answer.text == TEXT else answer.text or answer.refusal
            assert blocks[0].text == expected


async def test_comments_keep_an_impatient_client_waiting(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="worth it", delay_s=1.2))
    async with (
        serving(upstream, tmp_path, "first_comment_after_s: 0.1, comment_every_s: 0.1") as proxy,
        asking(proxy, timeout=0.6) as client,
        client.messages.stream(model="vote", max_tokens=99, messages=ASK) as stream,
    ):
        assert await stream.get_final_text() == "worth it"


Refusal = tuple[dict[str, Any], type[anthropic.APIStatusError], int, str]
_REFUSALS: list[Refusal] = [
    ({"model": "none"}, anthropic.NotFoundError, 404, "not_found_error"),
    ({"model": "poor"}, anthropic.APIStatusError, 402, "billing_error"),
    ({"model": "strict"}, anthropic.UnprocessableEntityError, 422, "invalid_request_error"),
    ({"max_tokens": 0}, anthropic.BadRequestError, 400, "invalid_request_error"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_are_the_sdks_own_errors(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", "no")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for more, kind, status, type_ in _REFUSALS:
            ask: dict[str, Any] = {"model": "one", "max_tokens": 9, "messages": ASK, **more}
            with pytest.raises(kind) as caught:
                await client.messages.create(stream=stream, **ask)
            assert caught.value.status_code == status
            body: Any = caught.value.body
            assert (body["type"], body["error"]["type"]) == ("error", type_)
            assert body["request_id"] == caught.value.request_id


async def test_an_error_after_the_first_byte_is_raised_from_the_stream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one two three", faults=[Fault(kind="reset", after=2)])
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.messages.create(model="one", max_tokens=9, messages=ASK, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="upstream_error") as caught:
            async for _ in stream:
                pass
        body: Any = caught.value.body
        assert body["error"]["type"] == "api_error"


async def test_keys_come_in_either_header_and_no_further(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    keys = 'keys: [{name: anna, key: "${ANNA}"}]\n'
    config = f"{keys}backends:\n{backend(upstream)}routes:\n  one: {{backends: [local]}}\n"
    secret = "anna-" + "0123456789" * 4
    ask: dict[str, Any] = {"model": "one", "max_tokens": 9, "messages": ASK}
    async with serve(config, tmp_path, {"ANNA": secret}) as proxy:
        for options in ({"api_key": secret}, {"auth_token": secret}):
            async with asking(proxy, **{"api_key": None, **options}) as client:
                await client.messages.create(**ask)
            record = (await upstream.records())[-1]
            assert secret not in f"{record.headers}{record.body!r}"
        async with asking(proxy, api_key="wrong") as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(**ask)
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.count_tokens(model="one", messages=ASK)


async def test_dry_runs_say_what_it_could_cost(upstream: UpstreamProcess, tmp_path: Path) -> None:
    async with serving(upstream, tmp_path) as proxy:
        body = (
            b'{"model": "vote", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],'
        )
        reply = await proxy.post("/v1/messages", body + b'"samplewise": {"dry_run": true}}')
        assert reply.json["object"] == "samplewise.estimate"
        assert await upstream.records() == []
