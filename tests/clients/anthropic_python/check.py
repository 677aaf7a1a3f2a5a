"""anthropic (Python): the Messages surface."""

from __future__ import annotations

import json
from typing import Any

import anthropic
from pydantic import BaseModel

TOOLS: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("weather", "clock")]


class Sum(BaseModel):
    steps: list[str]
    answer: int


def _client(ask: Any, **options: Any) -> anthropic.Anthropic:
    url = ask["url"].removesuffix("/v1")
    return anthropic.Anthropic(base_url=url, api_key="none", **{"max_retries": 2} | options)


def _body(ask: Any) -> Any:
    messages = [{"role": "user", "content": ask["text"]}]
    return {"model": ask["model"], "max_tokens": 100, "messages": messages}


def _seen(message: Any) -> Any:
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "tokens": [message.usage.input_tokens, message.usage.output_tokens],
    }


def _calls(message: Any) -> Any:
    calls = [block for block in message.content if block.type == "tool_use"]
    return {"calls": [[call.id, call.name, json.dumps(call.input)] for call in calls]}


def plain(ask: Any) -> Any:
    answer = _client(ask).messages.create(**_body(ask))
    said = {"report": answer.model_extra["samplewise"], "cost": answer.usage.model_extra["cost"]}
    return _seen(answer) | said


def stream(ask: Any) -> Any:
    with _client(ask).messages.stream(**_body(ask)) as events:
        texts = list(events.text_stream)
        final = events.get_final_message()
    return _seen(final) | {"text": "".join(texts), "pieces": len(texts)}


def tools(ask: Any) -> Any:
    return _calls(_client(ask).messages.create(tools=TOOLS, **_body(ask)))


def tools_stream(ask: Any) -> Any:
    with _client(ask).messages.stream(tools=TOOLS, **_body(ask)) as events:
        return _calls(events.get_final_message())


def structured(ask: Any) -> Any:
    answer = _client(ask).messages.parse(output_format=Sum, **_body(ask))
    return {"parsed": answer.parsed_output.model_dump()}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except anthropic.APIStatusError as error:
        return {"status": error.status_code, "code": error.body["error"]["code"]}
    return {"status": 200}


def patient(ask: Any) -> Any:
    client = _client(ask, timeout=ask["timeout_s"])
    return _seen(client.messages.create(**_body(ask)))
