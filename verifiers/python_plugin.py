"""Verifier `python`: the operator's own functions.

Source: OpenAI's `python` grader (`grade(sample, item)`), and the reward functions of the library
`verifiers` (`f(completion, answer, **kwargs) -> float`) with `style="completion"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import msgspec

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import (
    Assurance,
    Comparison,
    Sample,
    Task,
    Verdict,
    VerifierError,
)
from samplewise.verifiers.keys import full_key
from samplewise.verifiers.outcome import verdict_from
from samplewise.verifiers.plugin_runner import Runner
from samplewise.verifiers.verdicts import undecided

__all__ = ["PythonComparator", "PythonPlugin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonPlugin:
    """Calls `function` ("module:function") through `runner`.

    `grade(sample, item)` returns a bool, a number or an object (see `Outcome`). `sample` holds
    output_text (without thinking blocks), raw_text, output_tools, index, ended and choices; `item`
    holds the request's item, and over it messages and reference. `equivalent_function(a, b)` says
    whether two answers are one; without it only equal texts are. `tool_calls` says that it judges
    turns which end in a tool call, too.
    """

    name: str
    runner: Runner
    function: str | None = None
    equivalent_function: str | None = None
    style: Literal["grader", "completion"] = "grader"
    pass_threshold: float | None = None
    assurance: Assurance = Assurance.HEURISTIC
    tool_calls: bool = False

    async def open(self) -> None:
        """Load the functions."""
        await self.runner.open()

    async def close(self) -> None:
        """Stop the workers."""
        await self.runner.close()

    def key(self, sample: Sample) -> str:
        """Return text and tool calls: the function sees both."""
        return full_key(sample)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Call the function.

        Raises:
            VerifierError: it raised, hung, died, or returned something of the wrong form.
        """
        if self.function is None:
            return undecided(self.name, None, "no_function")
        if self.style == "grader":
            args = [_sample(sample), _item(task)]
            value = await self.runner.call(self.function, args, {})
        else:
            value = await self.runner.call(self.function, [], _completion(task, sample))
        return verdict_from(
            value, self.name, pass_threshold=self.pass_threshold, assurance=self.assurance
        )

    async def equivalent(self, a: str, b: str) -> bool:
        """Say whether two answers are one vote; raises `VerifierError` as `verify` does."""
        if a == b or self.equivalent_function is None:
            return a == b
        value = await self.runner.call(self.equivalent_function, [a, b], {})
        if not isinstance(value, bool):
            raise VerifierError("equivalent() must return a bool", reason="protocol")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonComparator(PythonPlugin):
    """A plug-in that also judges pairs: `compare(sample_a, sample_b, item)`: "a", "b" or "tie"."""

    compare_function: str

    @classmethod
    def extending(cls, plugin: PythonPlugin, compare_function: str) -> PythonComparator:
        """Return the plug-in with a comparison."""
        values = {field.name: getattr(plugin, field.name) for field in fields(plugin)}
        return cls(**values, compare_function=compare_function)

    async def compare(self, task: Task, a: Sample, b: Sample) -> Comparison:
        """Ask once, with `a` first; raises `VerifierError` as `verify` does."""
        args = [_sample(a), _sample(b), _item(task)]
        value = await self.runner.call(self.compare_function, args, {})
        match value:
            case "a":
                return Comparison(a.id, b.id, winner=a.id)
            case "b":
                return Comparison(a.id, b.id, winner=b.id)
            case "tie":
                return Comparison(a.id, b.id)
            case _:
                raise VerifierError("compare() must return 'a', 'b' or 'tie'", reason="protocol")


def _sample(sample: Sample) -> Mapping[str, Any]:
    return {
        "output_text": strip_thinking(sample.path_text),
        "raw_text": sample.path_text,
        "output_tools": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in sample.tool_calls
        ],
        "index": sample.index,
        "ended": sample.ended.value,
        "choices": [msgspec.Raw(sample.choice)] if sample.choice else [],
    }


def _item(task: Task) -> Mapping[str, Any]:
    item = {**task.item, "messages": msgspec.Raw(task.messages)}
    return item if task.reference is None else {**item, "reference": task.reference}


def _completion(task: Task, sample: Sample) -> Mapping[str, Any]:
    given = {
        "prompt": msgspec.Raw(task.messages),
        "completion": [{"role": "assistant", "content": strip_thinking(sample.path_text)}],
        "answer": task.reference or "",
        "info": task.item,
        "task": task.route,
    }
    return {**given, "state": given}
