"""The LiteLLM SDK, with its provider for OpenAI-compatible servers."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network at import

import litellm
import openai
from pydantic import BaseModel

TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
]


class Sum(BaseModel):
    steps: list[str]
    answer: int


def _complete(ask: Any, **options: Any) -> Any:
    given = {"max_retries": 2} | options
    return litellm.completion(
        model=f"openai/{ask['model']}",
        api_base=ask["url"],
        api_key="none",
        messages=[{"role": "user", "content": ask["text"]}],
        **given,
    )


def _calls(message: Any) -> Any:
    found = [[c.id, c.function.name, c.function.arguments] for c in message.tool_calls]
    return {"calls": found}


def plain(ask: Any) -> Any:
    answer = _complete(ask)
    usage = answer.usage
    return {
        "text": answer.choices[0].message.content,
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
    }


def stream(ask: Any) -> Any:
    chunks = list(_complete(ask, stream=True, stream_options={"include_usage": True}))
    usage = litellm.stream_chunk_builder(chunks).usage
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    return {
        "text": "".join(text or "" for text in texts),
        "pieces": sum(map(bool, texts)),
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
    }


def tools(ask: Any) -> Any:
    return _calls(_complete(ask, tools=TOOLS).choices[0].message)


def tools_stream(ask: Any) -> Any:
    chunks = list(_complete(ask, tools=TOOLS, stream=True))
    return _calls(litellm.stream_chunk_builder(chunks).choices[0].message)


def structured(ask: Any) -> Any:
    answer = _complete(ask, response_format=Sum)
    return {"parsed": json.loads(answer.choices[0].message.content)}


def several(ask: Any) -> Any:
    return {"texts": [choice.message.content for choice in _complete(ask, n=2).choices]}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except openai.APIError as error:  # the base of all of its errors
        return {"status": error.status_code}
    return {"status": 200}


def patient(ask: Any) -> Any:
    answer = _complete(ask, timeout=ask["timeout_s"])
    return {"text": answer.choices[0].message.content}
