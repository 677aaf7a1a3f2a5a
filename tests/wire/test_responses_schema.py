"""What `/v1/responses` says, held against the published Open Responses schema.

`openresponses_types` are types made from that schema. Two things of it differ from what OpenAI
serves and clients read, and are left out here: it calls `response.reasoning_text.*` events
`response.reasoning.*`, and it has no place for the schema of a `json_schema` format in a response.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import openresponses_types.types as published
import pytest
from openai.types.responses import Response as SdkResponse
from pydantic import BaseModel

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.bodies import RESPONSES
from tests.wire.proxy import Proxy, Reply
from tests.wire.sdk import CALLS, serving

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": name, "parameters": {}} for name in ("weather", "clock")
]
ANSWERS = {
    "text": Answer(text="one two three four five six seven eight nine ten", logprobs=-0.5),
    "reasoning": Answer(text="it is 13", reasoning_content="let me see"),
    "refusal": Answer(refusal="I would rather not"),
    "calls": Answer(text="a moment", tool_calls=CALLS),
    "cut": Answer(text="one two three four", finish_reason="length"),
    "filtered": Answer(text="one", finish_reason="content_filter"),
    "nothing": Answer(text=""),
}
_WORDS = {"response.reasoning_text.delta", "response.reasoning_text.done"}


def _models() -> dict[str, type[BaseModel]]:
    """Return the published model of every event, by the type that it has."""
    found = {}
    for name in dir(published):
        if name.endswith("StreamingEvent"):
            model = getattr(published, name)
            (word,) = [kind.value for kind in model.model_fields["type"].annotation]
            found[word] = model
    return found


async def ask(proxy: Proxy, route: str = "one", **fields: Any) -> Reply:
    body = {"model": route, "input": "hi", "tools": TOOLS, **fields}
    return await proxy.post(RESPONSES, msgspec.json.encode(body))


def events(reply: Reply) -> list[Any]:
    """Return the events of a stream, each named as its data says."""
    found = []
    for block in reply.body.decode().removesuffix("\n\n").split("\n\n"):
        match = re.fullmatch(r"event: (.*)\ndata: (.*)", block)
        assert match, block
        found.append(msgspec.json.decode(match[2]))
        assert found[-1]["type"] == match[1]
    return found


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_every_response_and_event_is_as_the_schema_says(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    models = _models()
    async with serving(upstream, tmp_path) as proxy:
        for kind, answer in ANSWERS.items():
            await upstream.script("m", answer)
            more: dict[str, Any] = {"temperature": 0.5, "metadata": {"a": "b"}, "instructions": "x"}
            if kind == "text":
                # With the others, upstreams differ in which tokens they speak of.
                more["top_logprobs"] = 2
            plain = (await ask(proxy, route, **more)).json
            published.ResponseResource.model_validate(plain)
            SdkResponse.model_validate(plain, strict=True)
            said = events(await ask(proxy, route, stream=True, **more))
            assert [event["sequence_number"] for event in said] == list(range(len(said)))
            for event in said:
                if event["type"] in _WORDS:
                    event["type"] = event["type"].replace("reasoning_text", "reasoning")
                models[event["type"]].model_validate(event)
            _holds_together(said)
            streamed = said[-1]["response"]
            assert _without_ids(plain["output"]) == _without_ids(streamed["output"])


async def test_a_failure_after_the_first_event_is_as_the_schema_says(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one two three", faults=[Fault(kind="reset", after=2)])
    models = _models()
    async with serving(upstream, tmp_path) as proxy:
        said = events(await ask(proxy, stream=True))
        for event in said:
            models[event["type"]].model_validate(event)
        error, failed = said[-2:]
        assert (error["type"], failed["type"]) == ("error", "response.failed")
        assert error["code"] == error["error"]["code"] == "upstream_error"
        assert failed["response"]["status"] == "failed"
        assert failed["response"]["error"]["message"] == error["message"]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "clock"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]},
    ],
)
async def test_what_was_asked_is_repeated_as_the_schema_says(
    upstream: UpstreamProcess, tmp_path: Path, choice: Any
) -> None:
    await upstream.script("m", "fine")
    more = {
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_output_tokens": 99,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "prompt_cache_key": "k",
    }
    async with serving(upstream, tmp_path) as proxy:
        plain = (await ask(proxy, **more)).json
        published.ResponseResource.model_validate(plain)
        SdkResponse.model_validate(plain, strict=True)
        assert {name: plain[name] for name in more if name not in ("reasoning", "tools")} == {
            name: value for name, value in more.items() if name != "reasoning"
        }
        assert plain["reasoning"] == {"effort": "low", "summary": None}


def _without_ids(items: Any) -> Any:
    return [{k: v for k, v in item.items() if k != "id"} for item in items]


def _holds_together(said: list[Any]) -> None:
    """Check that deltas add up to what is done, part by part, and everything opened is closed."""
    opened: dict[tuple[int, int], str] = {}
    items: dict[int, Any] = {}
    for event in said:
        kind, index = event["type"], event.get("output_index")
        place = (index, event.get("content_index", -1))
        if kind == "response.output_item.added":
            assert index == len(items)
            items[index] = None
        elif kind == "response.content_part.added":
            opened[place] = ""
        elif kind.endswith(".delta"):
            opened[place] = opened.get(place, "") + event["delta"]
        elif kind.endswith(("_text.done", "reasoning.done", "refusal.done", "arguments.done")):
            texts = [event[k] for k in ("text", "refusal", "arguments") if k in event]
            assert opened.pop(place, "") == texts[0]
        elif kind == "response.output_item.done":
            items[index] = event["item"]
    assert not opened
    assert list(items.values()) == said[-1]["response"]["output"]
