"""Verifier `tool_call`: the calls name tools of the request and fit their parameter schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from samplewise.verifiers.base import Sample, Task, ToolCall, Verdict, VerifierError
from samplewise.verifiers.schema_check import Document, SchemaChecker
from samplewise.verifiers.strict_json import canonical
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["ToolCalls"]

_FREE_TEXT = object()  # a tool of type `custom` takes any text


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """Checks each call's name and arguments; needs no settings.

    A sample without calls is a fail with `require`, else it has status `none`. The canonical answer
    is the JSON of all calls (name and arguments, sorted), so equal calls vote together.
    `tool_calls` says that turns which end in a tool call are for this verifier.
    """

    name: str
    checker: SchemaChecker
    require: bool = False
    tool_calls: bool = True

    async def open(self) -> None:
        """Open the checker."""
        await self.checker.open()

    async def close(self) -> None:
        """Close the checker."""
        await self.checker.close()

    def key(self, sample: Sample) -> str:
        """Return the calls as text: the sample's own text does not matter."""
        return canonical([[call.name, call.arguments] for call in sample.tool_calls])

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Check all calls.

        Raises:
            VerifierError: the request's tools cannot be read, a schema of theirs is wrong, or
                checking took too much time or memory.
        """
        if not sample.tool_calls:
            if self.require:
                return failed(self.name, None, "no_answer", "No tool was called.")
            return undecided(self.name, None, "no_answer")
        tools = _tools(task)
        for call in sample.tool_calls:
            if call.name not in tools:
                return failed(self.name, None, "unknown_tool", f"There is no tool {call.name!r}.")
        return await self._check_arguments(tools, sample.tool_calls)

    async def _check_arguments(
        self, tools: Mapping[str, Any], calls: tuple[ToolCall, ...]
    ) -> Verdict:
        typed = [call for call in calls if tools[call.name] is not _FREE_TEXT]
        results = await self.checker.check(
            [Document(call.arguments, tools[call.name]) for call in typed]
        )
        answer = [[call.name, canonical(call.arguments)] for call in calls if call not in typed]
        for call, result in zip(typed, results, strict=True):
            if result.outcome == "schema":
                raise VerifierError(
                    f"the parameters of tool {call.name!r} are no JSON Schema: {result.message}",
                    reason="protocol",
                )
            if result.outcome != "ok":
                where = f" at {result.where}" if result.where else ""
                feedback = f"The arguments of {call.name!r} are wrong{where}: {result.message}."
                return failed(self.name, None, result.outcome, feedback)
            answer.append([call.name, result.canonical])
        return passed(self.name, canonical(sorted(answer)))


def _tools(task: Task) -> dict[str, Any]:
    """Return the schema of each tool's arguments, in chat or Responses form."""
    if task.tools is None:
        return {}
    try:
        return dict(_tool(tool) for tool in msgspec.json.decode(task.tools))
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, AttributeError):
        raise VerifierError("the request's tools cannot be read", reason="protocol") from None


def _tool(tool: Mapping[str, Any]) -> tuple[str, Any]:
    kind = tool["type"]
    inner = tool.get(kind, tool)
    if kind != "function":
        return str(inner.get("name", kind)), _FREE_TEXT
    parameters = inner.get("parameters")
    return str(inner["name"]), {"type": "object"} if parameters is None else parameters
