"""Turns that call tools, where a route votes on them or checks them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletionToolParam

from tests.upstream import Answer, ToolCall, UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import ASK, asking

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOLS: list[Any] = [TOOL]
ROUTES = """
  pass: {backends: [local], policy: 'majority_vote:4'}
  vote: {backends: [local], policy: 'majority_vote:4', on_tools: vote}
  verify: {backends: [local], policy: 'majority_vote:4', on_tools: verify}
  first: {backends: [local], policy: 'first_pass:4', on_tools: verify, verifiers: [fits]}
  strict: {backends: [local], policy: 'majority_vote:4', on_tools: verify, verifiers: [fits],
    on_unverified: error}
"""


def weather(arguments: str, text: str = "") -> Answer:
    return Answer(text=text, tool_calls=(ToolCall(name="weather", arguments=arguments),))


@asynccontextmanager
async def served(upstream: UpstreamProcess, folder: Path) -> AsyncIterator[Proxy]:
    verifiers = "verifiers: {fits: {type: tool_call}}\n"
    async with serve(f"backends:\n{backend(upstream)}{verifiers}routes:{ROUTES}", folder) as proxy:
        yield proxy


def called(reply: Any) -> str:
    [call] = reply.json["choices"][0]["message"]["tool_calls"]
    arguments: str = call["function"]["arguments"]
    return arguments


@pytest.mark.parametrize("route", ["vote", "verify"])
async def test_calls_that_do_the_same_vote_together(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    same = [
        '{"city": "Oslo", "days": 2}',
        '{"days":2,"city":"Oslo"}',
        '{"days": 2.0, "city": "Oslo"}',
    ]
    await upstream.script("m", weather('{"city": "Rome"}'), *map(weather, same))
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat(route, tools=TOOLS, samplewise={"return": ["votes"]})
        assert called(reply) == same[0]
        assert reply.said["samples"]["drawn"] == 4
        assert (reply.said["stop_reason"], reply.said["chosen"]["votes"]) == ("agreed", 3)
        assert reply.said["outcome"] == ("agreed" if route == "vote" else "verified")
        assert [vote["votes"] for vote in reply.said["votes"]] == [3, 1]


async def test_parallel_calls_are_one_answer_in_any_order(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    oslo, rome = (
        ToolCall(name="weather", arguments=f'{{"city": "{c}"}}') for c in ("Oslo", "Rome")
    )
    both = [Answer(tool_calls=(oslo, rome)), Answer(tool_calls=(rome, oslo))]
    await upstream.script("m", Answer(tool_calls=(oslo,)), *both, "no tool is needed")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote", tools=TOOLS)
        assert len(reply.json["choices"][0]["message"]["tool_calls"]) == 2
        assert reply.said["chosen"]["votes"] == 2


async def test_text_and_calls_vote_against_each_other(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", weather('{"city": "Oslo"}'), "it is 4", "it is 4", "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("vote", tools=TOOLS)
        assert (reply.text, reply.said["chosen"]["votes"]) == ("it is 4", 3)


async def test_a_call_that_fits_no_schema_has_no_vote(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    wrong = ['{"city": 7}', '{"town": "Oslo"}', "{"]
    await upstream.script("m", *map(weather, wrong), weather('{"city": "Oslo"}'))
    async with served(upstream, tmp_path) as proxy:
        for route in ("verify", "first"):
            reply = await proxy.chat(route, tools=TOOLS)
            assert called(reply) == '{"city": "Oslo"}'
            assert reply.said["outcome"] == "verified"
            assert reply.said["samples"]["passed"] == 1


async def test_a_tool_that_there_is_not_fails(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", Answer(tool_calls=(ToolCall(name="clock"),)))
    async with served(upstream, tmp_path) as proxy:
        kept = await proxy.chat("verify", tools=TOOLS)
        assert (kept.status, kept.said["outcome"]) == (200, "best_effort")
        refused = await proxy.chat("strict", tools=TOOLS)
        assert (refused.status, refused.error["code"]) == (422, "no_verified_answer")


async def test_several_answers_are_wanted_of_a_turn_that_passes_through(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", weather('{"city": "Oslo"}'), weather('{"city": "Rome"}'), "it is 4")
    async with served(upstream, tmp_path) as proxy:
        reply = await proxy.chat("pass", tools=TOOLS, n=2)
        assert len(reply.json["choices"]) == reply.said["samples"]["drawn"] == 2
        assert not reply.said["warnings"]
        one = await proxy.chat("pass", tools=TOOLS)
        assert one.said["samples"]["drawn"] == 4  # text came first, so the policy goes on


async def test_long_arguments_come_in_fragments_that_the_sdk_puts_together(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    long = f'{{"city": "{"x" * 200}"}}'
    calls = (ToolCall(name="weather", arguments=long), ToolCall(name="weather", arguments="{}"))
    await upstream.script("m", Answer(tool_calls=calls))
    async with served(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.chat.completions.create(
            model="vote", messages=ASK, tools=[TOOL], stream=True
        )
        deltas = [
            call
            async for chunk in stream
            for choice in chunk.choices
            for call in choice.delta.tool_calls or ()
        ]
        first = [call for call in deltas if call.index == 0]
        assert len(first) > 3
        assert [bool(call.id) for call in first] == [True] + [False] * (len(first) - 1)
        arguments = [(call.function and call.function.arguments) or "" for call in first]
        assert "".join(arguments) == long
        assert [call.index for call in deltas] == sorted(call.index for call in deltas)
        async with client.chat.completions.stream(
            model="vote", messages=ASK, tools=[TOOL]
        ) as whole:
            message = (await whole.get_final_completion()).choices[0].message
        assert [c.function.arguments for c in message.tool_calls or ()] == [long, "{}"]
