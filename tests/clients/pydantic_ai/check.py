"""pydantic-ai's agent, with its OpenAI chat model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset


class Sum(BaseModel):
    steps: list[str]
    answer: int


TOOLS = ExternalToolset(
    [
        ToolDefinition(name=name, parameters_json_schema={"type": "object"})
        for name in ("weather", "clock")
    ]
)


def _agent(ask: Any, timeout_s: float = 600, **options: Any) -> Agent[Any, Any]:
    client = openai.AsyncOpenAI(
        base_url=ask["url"], api_key="none", max_retries=2, timeout=timeout_s
    )
    model = OpenAIChatModel(ask["model"], provider=OpenAIProvider(openai_client=client))
    return Agent(model, **options)


def _tokens(usage: Any) -> Any:
    return [usage.input_tokens, usage.output_tokens]


def _calls(output: Any) -> Any:
    calls = [[c.tool_call_id, c.tool_name, json.dumps(c.args_as_dict())] for c in output.calls]
    return {"calls": calls}


def plain(ask: Any) -> Any:
    run = _agent(ask).run_sync(ask["text"])
    return {"text": run.output, "tokens": _tokens(run.usage)}


def stream(ask: Any) -> Any:
    async def read() -> Any:
        async with _agent(ask).run_stream(ask["text"]) as run:
            texts = [text async for text in run.stream_text(delta=True, debounce_by=None)]
            return {"text": "".join(texts), "pieces": len(texts), "tokens": _tokens(run.usage)}

    return asyncio.run(read())


def _tool_agent(ask: Any) -> Agent[Any, Any]:
    return _agent(ask, toolsets=[TOOLS], output_type=[str, DeferredToolRequests])


def tools(ask: Any) -> Any:
    return _calls(_tool_agent(ask).run_sync(ask["text"]).output)


def tools_stream(ask: Any) -> Any:
    async def read() -> Any:
        async with _tool_agent(ask).run_stream(ask["text"]) as run:
            return _calls(await run.get_output())

    return asyncio.run(read())


def structured(ask: Any) -> Any:
    return {
        "parsed": _agent(ask, output_type=NativeOutput(Sum))
        .run_sync(ask["text"])
        .output.model_dump()
    }


def refused(ask: Any) -> Any:
    try:
        plain(ask)
    except ModelHTTPError as error:
        return {"status": error.status_code, "code": error.body["code"]}
    return {"status": 200}


def patient(ask: Any) -> Any:
    return {"text": _agent(ask, ask["timeout_s"]).run_sync(ask["text"]).output}
