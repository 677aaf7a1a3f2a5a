"""What `/v1/responses` says, held against the published Open Responses schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.upstream import Answer, Fault, UpstreamProcess
from tests.wire.bodies import RESPONSES
from tests.wire.proxy import Proxy, Reply
from tests.wire.sdk import CALLS, serving
from tests.wire.shapes import check_response, check_response_events, events

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


async def ask(proxy: Proxy, route: str = "one", **fields: Any) -> Reply:
    body = {"model": route, "input": "hi", "tools": TOOLS, **fields}
    return await proxy.post(RESPONSES, msgspec.json.encode(body))


@pytest.mark.parametrize("route", ["one", "vote"])
async def test_every_response_and_event_is_as_the_schema_says(
    upstream: UpstreamProcess, tmp_path: Path, route: str
) -> None:
    async with serving(upstream, tmp_path) as proxy:
        for kind, answer in ANSWERS.items():
            await upstream.script("m", answer)
            more: dict[str, Any] = {"temperature": 0.5, "metadata": {"a": "b"}, "instructions": "x"}
            if kind == "text":
                # With the others, upstreams differ in which tokens they speak of.
                more["top_logprobs"] = 2
            plain = (await ask(proxy, route, **more)).json
            check_response(plain)
            said = events(await ask(proxy, route, stream=True, **more))
            check_response_events(said)
            streamed = said[-1]["response"]
            assert _without_ids(plain["output"]) == _without_ids(streamed["output"])


async def test_a_failure_after_the_first_event_is_as_the_schema_says(
    upstream: UpstreamProcess, tmp_path: Path
) -> None:
    await upstream.script("m", "one two three", faults=[Fault(kind="reset", after=2)])
    async with serving(upstream, tmp_path) as proxy:
        said = events(await ask(proxy, stream=True))
        check_response_events(said)
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
        check_response(plain)
        assert {name: plain[name] for name in more if name not in ("reasoning", "tools")} == {
            name: value for name, value in more.items() if name != "reasoning"
        }
        assert plain["reasoning"] == {"effort": "low", "summary": None}


def _without_ids(items: Any) -> Any:
    return [{k: v for k, v in item.items() if k != "id"} for item in items]
