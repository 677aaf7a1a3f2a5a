"""The official `openai` client's `responses` against the proxy: what a user of the SDK sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam

from tests.upstream import Answer, Fault, ToolCall, UpstreamProcess
from tests.wire.sdk import CALLS, Sum, asking, said, serving

ASK = "how many are six and seven"
TEXT = "one two three four five six seven eight nine ten eleven"
TOOLS: list[FunctionToolParam] = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("weather", "clock")
]


async def test_a_plain_answer_has_its_text_its_report_and_its_cost(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.responses.create(model="vote", input=ASK)
        assert (answer.output_text, answer.status, answer.model) == (
            "it is 13",
            "completed",
            "vote",
        )
        assert said(answer)["samples"]["drawn"] == 6
        assert said(answer)["outcome"] == "agreed"
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (6, 18)
        assert answer.usage.model_extra == {"cost": said(answer)["cost_usd"]["total"]}
        assert answer._request_id == said(answer)["request_id"]


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_events_are_numbered_and_build_up_the_response(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(text=TEXT, reasoning_content="let me see"))
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.responses.create(model=route, input=ASK, stream=True)
        events: list[Any] = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = [event.type for event in events]
        once = list(dict.fromkeys(kinds))
        assert once == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_text.delta",
            "response.output_text.done",
            "response.completed",
        ]
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        assert "".join(deltas) == TEXT
        assert len(deltas) > 1
        whole = events[-1].response
        assert whole.output_text == TEXT
        assert [item.type for item in whole.output] == ["reasoning", "message"]
        assert whole.output[0].content[0].text == "let me see"
        done = [event.item for event in events if event.type == "response.output_item.done"]
        assert done == whole.output
        assert whole.id == events[0].response.id
        assert said(whole)["route"] == route


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_the_stream_helper_parses_what_it_was_asked_for(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", '{"steps": ["6 + 7"], "answer": 13}')
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        async with client.responses.stream(model=route, input=ASK, text_format=Sum) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_response()
        assert final.output_parsed == Sum(steps=["6 + 7"], answer=13)


async def test_parse_gets_its_schema_through_and_its_object_back(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", '{"steps": [], "answer": 13}')
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.responses.parse(model="vote", input=ASK, text_format=Sum)
        assert answer.output_parsed == Sum(steps=[], answer=13)
        sent = (await upstream.record()).json["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["strict"] is True
        assert sent["json_schema"]["schema"]["required"] == ["steps", "answer"]
        assert answer.text is not None
        assert answer.text.format is not None
        assert answer.text.format.type == "json_schema"


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_tools_are_called_and_their_outputs_answered(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    await upstream.script("m", Answer(tool_calls=CALLS))
    ask: dict[str, Any] = {"model": route, "tools": TOOLS, "store": False}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        first = await client.responses.create(input=ASK, **ask)
        async with client.responses.stream(input=ASK, **ask) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        assert kinds.count("response.function_call_arguments.done") == 2
        for answer in (first, streamed):
            calls: list[Any] = list(answer.output)
            assert [(c.type, c.call_id, c.name, c.arguments) for c in calls] == [
                ("function_call", call.id, call.name, call.arguments) for call in CALLS
            ]
        await upstream.script("m", "it rains in Oslo")
        outputs: list[Any] = [
            {"type": "function_call_output", "call_id": call.id, "output": "rain"} for call in CALLS
        ]
        history: Any = [{"role": "user", "content": ASK}, *first.output, *outputs]
        second = await client.responses.create(input=history, **ask)
        assert second.output_text == "it rains in Oslo"
        turns = (await upstream.records())[-1].json["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
        assert [call["id"] for call in turns[1]["tool_calls"]] == [call.id for call in CALLS]
        assert [turn["tool_call_id"] for turn in turns[2:]] == [call.id for call in CALLS]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_in_a_namespace_are_called_by_their_own_names(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    call = ToolCall(name="crm__find", arguments='{"who": "Ada"}', id="call_1")
    await upstream.script("m", Answer(tool_calls=(call,)))
    group = {"type": "namespace", "name": "crm", "description": "d", "tools": [
        {"type": "function", "name": "find", "parameters": {"type": "object"}},
    ]}  # fmt: skip
    tools: Any = [*TOOLS, group]
    ask: Any = {"model": "one", "tools": tools}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        found: Any = await client.responses.create(input=ASK, stream=stream, **ask)
        if stream:
            found = [event async for event in found][-1].response
        (item,) = found.output
        assert (item.namespace, item.name, item.arguments) == ("crm", "find", call.arguments)
        assert found.tools[-1].type == "namespace"
        output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "yes"}
        history: Any = [{"role": "user", "content": ASK}, item, output]
        choice: Any = {"type": "function", "namespace": "crm", "name": "find"}
        await client.responses.create(input=history, tool_choice=choice, **ask)
        sent = (await upstream.records())[-1].json
        names = [tool["function"]["name"] for tool in sent["tools"]]
        assert names == ["weather", "clock", "crm__find"]
        assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == "crm__find"
        assert sent["tool_choice"]["function"]["name"] == "crm__find"


async def test_log_probabilities_are_those_of_the_returned_text(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 13", logprobs=(-0.5, -0.25, -1.0)))
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for route in ("one", "vote"):
            async with client.responses.stream(
                model=route, input=ASK, include=["message.output_text.logprobs"], top_logprobs=2
            ) as stream:
                async for _ in stream:
                    pass
                final: Any = await stream.get_final_response()
            found = final.output[0].content[0].logprobs
            assert [(token.token, token.logprob) for token in found] == [
                ("it", -0.5), (" is", -0.25), (" 13", -1.0),
            ]  # fmt: skip
            assert [len(token.top_logprobs) for token in found] == [2, 2, 2]


async def test_an_answer_at_its_limit_is_incomplete(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", TEXT)
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for stream in (False, True):
            found: Any = await client.responses.create(
                model="one", input=ASK, max_output_tokens=3, stream=stream
            )
            if stream:
                *_, last = [event async for event in found]
                assert last.type == "response.incomplete"
                found = last.response
            assert found.status == "incomplete"
            assert found.incomplete_details.reason == "max_output_tokens"
            assert found.output[0].status == "incomplete"
            assert found.output_text == "one two three"
            assert found.max_output_tokens == 3


async def test_a_refusal_is_a_part_of_its_own(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", Answer(refusal="I would rather not"))
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        for route in ("one", "vote"):
            async with client.responses.stream(model=route, input=ASK) as stream:
                kinds = [event.type async for event in stream]
                final: Any = await stream.get_final_response()
            assert "response.refusal.done" in kinds
            assert final.output[0].content[0].refusal == "I would rather not"


async def test_comments_keep_an_impatient_client_waiting(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="worth it", delay_s=1.2))
    async with (
        serving(upstream, tmp_path, "first_comment_after_s: 0.1, comment_every_s: 0.1") as proxy,
        asking(proxy, timeout=0.6) as client,
        client.responses.stream(model="vote", input=ASK) as stream,
    ):
        final = await stream.get_final_response()
        assert final.output_text == "worth it"


async def test_an_error_after_the_first_byte_is_raised_from_the_stream(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one two three", faults=[Fault(kind="reset", after=2)])
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        stream = await client.responses.create(model="one", input=ASK, stream=True)
        with pytest.raises(openai.APIError, match="sample") as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "upstream_error"


async def test_clients_that_ask_for_storage_are_told_that_there_is_none(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "fine")
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        answer = await client.responses.create(model="one", input=ASK, store=True)
        assert answer.model_extra is not None
        assert answer.to_dict()["store"] is False
        with pytest.raises(openai.BadRequestError, match="keeps no responses") as caught:
            await client.responses.create(
                model="one", input="go on", previous_response_id=answer.id
            )
        assert caught.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            await client.responses.retrieve(answer.id)
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            await client.responses.delete(answer.id)


async def test_the_samplewise_object_goes_in_and_comes_out(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 4", "it is 5", "it is 4")
    wanted = {"samplewise": {"samples": 3, "return": ["votes"]}, "top_k": 40}
    async with serving(upstream, tmp_path) as proxy, asking(proxy) as client:
        raw = await client.responses.with_raw_response.create(
            model="vote", input=ASK, extra_body=wanted
        )
        report = said(raw.parse())
        assert report["samples"]["drawn"] == 3
        assert report["votes"][0] == {"answer": "it is 4", "votes": 2}
        assert raw.headers["x-samplewise-outcome"] == "agreed"
        assert float(raw.headers["x-samplewise-cost-usd"]) == report["cost_usd"]["total"]
        sent = (await upstream.record()).json
        assert sent["top_k"] == 40
        assert "samplewise" not in sent
