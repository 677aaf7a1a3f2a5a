"""Responses that are kept with the records of requests: gone on from, shown, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from tests.upstream import Answer, UpstreamProcess
from tests.wire.books import rows
from tests.wire.proxy import Proxy, backend, serve
from tests.wire.sdk import CALLS, asking

KEYS = {"ANNA": "anna-" + "0123456789" * 4, "BERT": "bert-" + "0123456789" * 4}
TOOLS: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}}]


@asynccontextmanager
async def keeping(
    upstream: UpstreamProcess, where: Path | str, *, text: bool = True
) -> AsyncIterator[Proxy]:
    keys = 'keys: [{name: anna, key: "${ANNA}"}, {name: bert, key: "${BERT}"}]\n'
    vote = "{backends: [local], policy: 'majority_vote:4'}"
    told = vote.replace("}", ", progress: reasoning}")
    routes = f"routes:\n  one: {{backends: [local]}}\n  vote: {vote}\n  told: {told}\n"
    records = f"records: {{text: {str(text).lower()}}}\n"
    config = f"{records}{keys}backends:\n{backend(upstream)}{routes}"
    place = where.parent if isinstance(where, Path) and where.suffix else where
    async with serve(config, place, KEYS) as proxy:
        yield proxy


async def test_a_conversation_goes_on_from_a_kept_response(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", Answer(text="it is 13", reasoning_content="let me see"))
    async with keeping(upstream, where) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        first = await client.responses.create(
            model="vote", input="six and seven?", instructions="be brief"
        )
        assert first.to_dict()["store"] is True
        second = await client.responses.create(
            model="one", input="and doubled?", previous_response_id=first.id, stream=True
        )
        *_, last = [event async for event in second]
        assert last.type == "response.completed"
        assert last.response.previous_response_id == first.id
        third = await client.responses.create(
            model="one", input="thanks", previous_response_id=last.response.id
        )
        said = {"role": "assistant", "content": "it is 13", "reasoning_content": "let me see"}
        # The instructions of a response are its own.
        assert (await upstream.records())[-1].json["messages"] == [
            {"role": "user", "content": "six and seven?"},
            said,
            {"role": "user", "content": "and doubled?"},
            said,
            {"role": "user", "content": "thanks"},
        ]
        assert third.previous_response_id == last.response.id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_response_is_shown_as_it_was(
    upstream: UpstreamProcess, tmp_path: Path, stream: bool
) -> None:
    await upstream.script("m", Answer(text="a moment", tool_calls=CALLS[:1]))
    async with keeping(upstream, tmp_path) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        found: Any = await client.responses.create(
            model="vote", input="hi", tools=TOOLS, stream=stream
        )
        if stream:
            found = [event async for event in found][-1].response
        shown = await client.responses.retrieve(found.id)
        assert shown.to_dict() == found.to_dict()
        output: Any = {"type": "function_call_output", "call_id": CALLS[0].id, "output": "rain"}
        await client.responses.create(
            model="one", input=[output], tools=TOOLS, previous_response_id=found.id
        )
        turns = (await upstream.records())[-1].json["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]


async def test_items_are_known_by_their_names(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", Answer(text="a moment", tool_calls=CALLS[:1]))
    async with keeping(upstream, tmp_path) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        found = await client.responses.create(model="one", input="hi", tools=TOOLS)
        items: Any = [
            {"role": "user", "content": "hi"},
            *({"type": "item_reference", "id": item.id} for item in found.output),
            {"type": "function_call_output", "call_id": CALLS[0].id, "output": "rain"},
        ]
        await client.responses.create(model="one", input=items, tools=TOOLS)
        turns = (await upstream.records())[-1].json["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
        assert turns[1]["content"] == "a moment"
        assert turns[1]["tool_calls"][0]["id"] == CALLS[0].id
        async with asking(proxy, api_key=KEYS["BERT"]) as other:
            with pytest.raises(openai.BadRequestError, match="no such item") as caught:
                await other.responses.create(model="one", input=items, tools=TOOLS)
            assert caught.value.param == "input.1"


async def test_lines_of_progress_leave_items_their_names(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", Answer(text="it is 4", delay_s=0.1))
    async with keeping(upstream, tmp_path) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        async with client.responses.stream(model="told", input="hi") as stream:
            async for _ in stream:
                pass
            found: Any = await stream.get_final_response()
        assert [item.type for item in found.output] == ["reasoning", "message"]
        assert "sample 4/4" in found.output[0].content[0].text
        shown = await client.responses.retrieve(found.id)
        assert [item.id for item in shown.output] == [found.output[1].id]


async def test_items_of_too_many_responses_are_not_looked_for(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    items = [{"type": "item_reference", "id": f"msg_{n:032x}_1"} for n in range(101)]
    body = msgspec.json.encode({"model": "one", "input": items})
    async with keeping(upstream, tmp_path) as proxy:
        headers = {"authorization": f"Bearer {KEYS['ANNA']}"}
        reply = await proxy.post("/v1/responses", body, headers)
        assert (reply.status, reply.error["param"]) == (400, "input")
        assert "more than 100" in reply.error["message"]


async def test_a_deleted_response_is_gone_with_its_record_and_its_bill_stays(
    upstream: UpstreamProcess, where: Path | str
) -> None:
    await upstream.script("m", "it is 13")
    async with keeping(upstream, where) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        found = await client.responses.create(model="one", input="hi")
        headers = {"authorization": f"Bearer {KEYS['ANNA']}"}
        reply = await proxy.ask("DELETE", f"/v1/responses/{found.id}", headers)
        assert reply.json == {"id": found.id, "object": "response", "deleted": True}
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            await client.responses.retrieve(found.id)
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            await client.responses.delete(found.id)
        page = f"/v1/samplewise/requests/req_{found.id.removeprefix('resp_')}"
        bill = (await proxy.get(page, headers)).json
        assert bill["record"] is None
        assert bill["cost_usd"] > 0
        assert len(rows(where)) == 1


async def test_a_response_is_its_clients_own(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "it is 13")
    async with keeping(upstream, tmp_path) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        found = await client.responses.create(model="one", input="hi")
        async with asking(proxy, api_key=KEYS["BERT"]) as other:
            for name in (found.id, "resp_none", "none", "resp_" + "0" * 32, "resp_\0"):
                with pytest.raises(openai.NotFoundError, match="there is no response"):
                    await other.responses.retrieve(name)
                with pytest.raises(openai.NotFoundError, match="there is no response"):
                    await other.responses.delete(name)
                with pytest.raises(openai.BadRequestError, match="there is no response") as caught:
                    await other.responses.create(
                        model="one", input="go on", previous_response_id=name
                    )
                assert caught.value.code == "previous_response_not_found"
        assert (await client.responses.retrieve(found.id)).output_text == "it is 13"
        assert len(await upstream.records()) == 1


async def test_what_is_not_to_be_stored_is_not(upstream: UpstreamProcess, tmp_path: Path) -> None:
    await upstream.script("m", "it is 13")
    async with keeping(upstream, tmp_path) as proxy, asking(proxy, api_key=KEYS["ANNA"]) as client:
        found = await client.responses.create(model="one", input="hi", store=False)
        assert found.to_dict()["store"] is False
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(found.id)


async def test_without_text_the_error_says_which_setting_keeps_responses(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")
    async with (
        keeping(upstream, tmp_path, text=False) as proxy,
        asking(proxy, api_key=KEYS["ANNA"]) as client,
    ):
        found = await client.responses.create(model="one", input="hi", store=True)
        assert found.to_dict()["store"] is False
        with pytest.raises(openai.BadRequestError, match="let its operator set"):
            await client.responses.create(model="one", input="x", previous_response_id=found.id)
        with pytest.raises(openai.NotFoundError, match="let its operator set"):
            await client.responses.retrieve(found.id)


async def test_repetitions_of_a_kept_response_have_its_name(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "it is 13")
    headers = {"authorization": f"Bearer {KEYS['ANNA']}", "idempotency-key": "once"}
    async with keeping(upstream, tmp_path) as proxy:
        names = set()
        for stream in (False, False):
            body = msgspec.json.encode({"model": "vote", "input": "hi", "stream": stream})
            reply = await proxy.post("/v1/responses", body, headers)
            names.add(reply.json["id"])
        assert len(names) == 1
        shown = await proxy.get(f"/v1/responses/{names.pop()}", headers)
        assert shown.json["output"][0]["content"][0]["text"] == "it is 13"
