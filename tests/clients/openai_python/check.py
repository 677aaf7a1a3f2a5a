"""openai-python: chat, with the helpers that put streams together, and Responses."""

from __future__ import annotations

from typing import Any

import openai
from pydantic import BaseModel

TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
]


class Sum(BaseModel):
    steps: list[str]
    answer: int


def _client(ask: Any, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=ask["url"], api_key="none", **{"max_retries": 2} | options)


def _body(ask: Any) -> Any:
    return {"model": ask["model"], "messages": [{"role": "user", "content": ask["text"]}]}


def _extra(model: Any) -> Any:
    return (model.model_extra or {}).get("samplewise")


def _calls(message: Any) -> Any:
    return [[c.id, c.function.name, c.function.arguments] for c in message.tool_calls]


def plain(ask: Any) -> Any:
    answer = _client(ask).chat.completions.create(**_body(ask))
    usage = answer.usage
    return {
        "text": answer.choices[0].message.content,
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
        "cost": usage.cost,
        "report": _extra(answer),
    }


def stream(ask: Any) -> Any:
    options = {"include_usage": True}
    *chunks, last = _client(ask).chat.completions.create(
        stream=True, stream_options=options, **_body(ask)
    )
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    return {
        "text": "".join(text or "" for text in texts),
        "pieces": sum(map(bool, texts)),
        "tokens": [last.usage.prompt_tokens, last.usage.completion_tokens],
        "cost": last.usage.cost,
        "report": _extra(last),
    }


def tools(ask: Any) -> Any:
    answer = _client(ask).chat.completions.create(tools=TOOLS, **_body(ask))
    return {"calls": _calls(answer.choices[0].message)}


def tools_stream(ask: Any) -> Any:
    with _client(ask).chat.completions.stream(tools=TOOLS, **_body(ask)) as events:
        return {"calls": _calls(events.get_final_completion().choices[0].message)}


def structured(ask: Any) -> Any:
    answer = _client(ask).chat.completions.parse(response_format=Sum, **_body(ask))
    return {"parsed": answer.choices[0].message.parsed.model_dump()}


def several(ask: Any) -> Any:
    answer = _client(ask).chat.completions.create(n=2, **_body(ask))
    return {"texts": [choice.message.content for choice in answer.choices]}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    return {"status": 200}


def patient(ask: Any) -> Any:
    client = _client(ask, timeout=ask["timeout_s"])
    return {"text": client.chat.completions.create(**_body(ask)).choices[0].message.content}


def responses(ask: Any) -> Any:
    answer = _client(ask).responses.create(model=ask["model"], input=ask["text"])
    return {
        "text": answer.output_text,
        "tokens": [answer.usage.input_tokens, answer.usage.output_tokens],
        "report": _extra(answer),
    }


def responses_stream(ask: Any) -> Any:
    with _client(ask).responses.stream(model=ask["model"], input=ask["text"]) as events:
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    return {
        "text": final.output_text,
        "pieces": len(texts),
        "tokens": [final.usage.input_tokens, final.usage.output_tokens],
        "report": _extra(final),
    }
