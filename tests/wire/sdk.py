"""A proxy with one route of each kind, and the official `openai` client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.upstream import ToolCall, UpstreamProcess
from tests.wire.proxy import Proxy, backend, serve

__all__ = ["ASK", "CALLS", "TOOLS", "Sum", "asking", "said", "serving"]

ROUTES = """
  one: {backends: [local]}
  org/one: {backends: [local], description: a name with a slash}
  vote: {backends: [local], policy: 'majority_vote:6'}
  strict: {backends: [local], policy: 'first_pass:4', verifiers: [is_yes], on_unverified: error}
  poor: {backends: [local], budget: {usd_per_request: 0.000001}}
"""
VERIFIERS = "  is_yes: {type: regex, pattern: '^yes$'}\n"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "how many are six and seven"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "clock")
]
CALLS = (
    ToolCall(name="weather", arguments='{"city": "Oslo", "unit": "C"}', id="call_1"),
    ToolCall(name="clock", arguments='{"city": "Rome"}', id="call_2"),
)


class Sum(BaseModel):
    steps: list[str]
    answer: int


@asynccontextmanager
async def serving(
    upstream: UpstreamProcess, folder: Path, server: str = ""
) -> AsyncIterator[Proxy]:
    sections = f"backends:\n{backend(upstream)}verifiers:\n{VERIFIERS}routes:{ROUTES}"
    async with serve(f"server: {{{server}}}\n{sections}", folder) as proxy:
        yield proxy


@asynccontextmanager
async def asking(proxy: Proxy, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    given: dict[str, Any] = {"max_retries": 0, "api_key": "sk-of-the-client"} | options
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", **given) as client:
        yield client


def said(model: BaseModel) -> Any:
    """Return the `samplewise` object of an answer or chunk."""
    assert model.model_extra is not None
    return model.model_extra["samplewise"]
