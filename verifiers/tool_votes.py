"""Reads what a tool-call turn votes for: the names and arguments of its calls, in one form."""

from __future__ import annotations

from dataclasses import dataclass

from samplewise.verifiers.base import Sample, Task, ToolCall, Verdict
from samplewise.verifiers.strict_json import canonical, loads
from samplewise.verifiers.verdicts import undecided

__all__ = ["ToolVotes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolVotes:
    """Gives the canonical answer of a turn's calls and judges nothing.

    Calls that do the same are one answer, however their arguments are spaced or ordered, and in
    whichever order parallel ones stand. Arguments that are no JSON vote as the text they are.
    """

    name: str
    tool_calls: bool = True

    @property
    def immediate(self) -> bool:
        """It only looks at a text."""
        return True

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Return the calls as an answer; none for a turn without calls."""
        if not sample.tool_calls:
            return undecided(self.name, None, "no_answer")
        return undecided(self.name, canonical(sorted(map(_call, sample.tool_calls))))


def _call(call: ToolCall) -> list[str]:
    try:
        return [call.name, canonical(loads(call.arguments))]
    except ValueError:
        return [call.name, call.arguments]
