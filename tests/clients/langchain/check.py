"""LangChain's ChatOpenAI, on chat completions and on Responses."""

from __future__ import annotations

import json
from typing import Any

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
]


class Sum(BaseModel):
    """The sum and how it was found."""

    steps: list[str]
    answer: int


def _model(ask: Any, **options: Any) -> ChatOpenAI:
    given = {"max_retries": 2, "stream_usage": True} | options
    return ChatOpenAI(base_url=ask["url"], api_key="none", model=ask["model"], **given)


def _tokens(message: Any) -> Any:
    usage = message.usage_metadata
    return [usage["input_tokens"], usage["output_tokens"]]


def _calls(message: Any) -> Any:
    return {"calls": [[c["id"], c["name"], json.dumps(c["args"])] for c in message.tool_calls]}


def _whole(chunks: Any) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def plain(ask: Any) -> Any:
    answer = _model(ask).invoke(ask["text"])
    cost = answer.response_metadata["token_usage"]["cost"]
    return {"text": answer.text, "tokens": _tokens(answer), "cost": cost}


def stream(ask: Any) -> Any:
    chunks = list(_model(ask).stream(ask["text"]))
    whole = _whole(chunks)
    pieces = sum(bool(chunk.text) for chunk in chunks)
    return {"text": whole.text, "pieces": pieces, "tokens": _tokens(whole)}


def tools(ask: Any) -> Any:
    return _calls(_model(ask).bind_tools(TOOLS).invoke(ask["text"]))


def tools_stream(ask: Any) -> Any:
    return _calls(_whole(list(_model(ask).bind_tools(TOOLS).stream(ask["text"]))))


def structured(ask: Any) -> Any:
    return {"parsed": _model(ask).with_structured_output(Sum).invoke(ask["text"]).model_dump()}


def several(ask: Any) -> Any:
    (answers,) = _model(ask, n=2).generate([[HumanMessage(ask["text"])]]).generations
    return {"texts": [answer.text for answer in answers]}


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "code": error.code}
    return {"status": 200}


def patient(ask: Any) -> Any:
    return {"text": _model(ask, timeout=ask["timeout_s"]).invoke(ask["text"]).text}


def responses(ask: Any) -> Any:
    answer = _model(ask, use_responses_api=True).invoke(ask["text"])
    return {"text": answer.text, "tokens": _tokens(answer)}


def responses_stream(ask: Any) -> Any:
    chunks = list(_model(ask, use_responses_api=True).stream(ask["text"]))
    whole = _whole(chunks)
    pieces = sum(bool(chunk.text) for chunk in chunks)
    return {"text": whole.text, "pieces": pieces, "tokens": _tokens(whole)}
