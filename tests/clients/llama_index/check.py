"""LlamaIndex's OpenAILike."""

from __future__ import annotations

import json
from typing import Any

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Sum(BaseModel):
    """The sum and how it was found."""

    steps: list[str]
    answer: int


def _weather(city: str, unit: str) -> str:
    return ""


def _clock(city: str) -> str:
    return ""


TOOLS = [
    FunctionTool.from_defaults(_weather, name="weather"),
    FunctionTool.from_defaults(_clock, name="clock"),
]


def _llm(ask: Any, **options: Any) -> OpenAILike:
    given = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 2} | options
    return OpenAILike(model=ask["model"], api_base=ask["url"], api_key="none", **given)


def _calls(llm: OpenAILike, reply: Any) -> Any:
    found = llm.get_tool_calls_from_response(reply)
    return {"calls": [[c.tool_id, c.tool_name, json.dumps(c.tool_kwargs)] for c in found]}


def plain(ask: Any) -> Any:
    answer = _llm(ask).chat([ChatMessage(ask["text"])])
    usage = answer.raw.usage
    return {
        "text": answer.message.content,
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
        "cost": usage.cost,
        "report": answer.raw.model_extra["samplewise"],
    }


def stream(ask: Any) -> Any:
    parts = list(_llm(ask).stream_chat([ChatMessage(ask["text"])]))
    pieces = sum(bool(part.delta) for part in parts)
    return {"text": parts[-1].message.content, "pieces": pieces}


def tools(ask: Any) -> Any:
    llm = _llm(ask)
    reply = llm.chat_with_tools(TOOLS, ask["text"], allow_parallel_tool_calls=True)
    return _calls(llm, reply)


def tools_stream(ask: Any) -> Any:
    llm = _llm(ask)
    parts = llm.stream_chat_with_tools(TOOLS, ask["text"], allow_parallel_tool_calls=True)
    return _calls(llm, list(parts)[-1])


def structured(ask: Any) -> Any:
    llm = _llm(ask, should_use_structured_outputs=True)
    answer = llm.as_structured_llm(Sum).chat([ChatMessage(ask["text"])])
    return {"parsed": answer.raw.model_dump()}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    return {"status": 200}


def patient(ask: Any) -> Any:
    answer = _llm(ask, timeout=ask["timeout_s"]).chat([ChatMessage(ask["text"])])
    return {"text": answer.message.content}
