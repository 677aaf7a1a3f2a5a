"""What every answer of `/v1/responses` and `/v1/messages` must be, whatever is in it.

`openresponses_types` are types made from the published Open Responses schema. Two things of it
differ from what OpenAI serves and clients read, and are left out here: it calls
`response.reasoning_text.*` events `response.reasoning.*`, and it has no place for the schema of a
`json_schema` format in a response.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import openresponses_types.types as published
from anthropic.types import Message
from openai.types.responses import Response
from pydantic import BaseModel

from tests.wire.proxy import Reply

__all__ = [
    "check_message",
    "check_message_events",
    "check_response",
    "check_response_events",
    "events",
]

_WORDS = {"response.reasoning_text.delta", "response.reasoning_text.done"}


def strict(text: str) -> Any:
    """Decode JSON that has no constants of its own."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def events(reply: Reply) -> list[Any]:
    """Return the events of a stream, each named as its data says."""
    found = []
    for block in reply.body.decode().removesuffix("\n\n").split("\n\n"):
        match = re.fullmatch(r"event: (.*)\ndata: (.*)", block)
        assert match, block
        found.append(strict(match[2]))
        assert found[-1]["type"] == match[1]
    return found


def check_response(body: Any) -> None:
    """Check a whole response against the published schema and the types of the SDK."""
    published.ResponseResource.model_validate(body)
    Response.model_validate(body, strict=True)


@cache
def _models() -> dict[str, type[BaseModel]]:
    """Return the published model of every event, by the type that it has."""
    found = {}
    for name in dir(published):
        if name.endswith("StreamingEvent"):
            model = getattr(published, name)
            (word,) = [kind.value for kind in model.model_fields["type"].annotation]
            found[word] = model
    return found


def check_response_events(said: list[Any]) -> None:
    """Check that events are numbered, as the schema says, and add up to what they end in."""
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    kinds = [event["type"] for event in said]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    ends = {f"response.{word}" for word in ("completed", "incomplete", "failed")}
    assert [kind for kind in kinds if kind in ends] == kinds[-1:]
    for event, kind in zip(said, kinds, strict=True):
        named = kind.replace("reasoning_text", "reasoning") if kind in _WORDS else kind
        _models()[named].model_validate({**event, "type": named})
    if kinds[-1] != "response.failed":
        _check_sums(said)


def _check_sums(said: list[Any]) -> None:
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
        elif kind.endswith(("_text.done", "refusal.done", "arguments.done")):
            texts = [event[k] for k in ("text", "refusal", "arguments") if k in event]
            assert opened.pop(place, "") == texts[0]
        elif kind == "response.output_item.done":
            items[index] = event["item"]
    assert not opened
    output = said[-1]["response"]["output"]
    assert [items[index] for index in range(len(items))] == output


def check_message(body: Any) -> None:
    """Check a whole message against the types of the SDK."""
    Message.model_validate(body, strict=True)


def check_message_events(said: list[Any]) -> None:
    """Check that blocks come one after another, and each as the one it was opened as."""
    kinds = [event["type"] for event in said]
    if kinds[-1] == "error":
        said = said[:-1]
    else:
        assert kinds[-2:] == ["message_delta", "message_stop"]
        said = said[:-2]
    assert kinds[0] in ("message_start", "error")
    check_message({**said[0]["message"], "content": []}) if said else None
    open_, count = "", 0
    belongs = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}
    for event in said[1:]:
        assert event["index"] == count
        if event["type"] == "content_block_start":
            assert not open_
            open_ = event["content_block"]["type"]
        elif event["type"] == "content_block_stop":
            assert open_
            open_, count = "", count + 1
        else:
            assert event["delta"]["type"] == belongs[open_]
    assert not open_ or kinds[-1] == "error"
