"""Verifier `string_check`: compares two filled templates, as OpenAI's grader of that name does.

Source: OpenAI grader reference, `string_check` (operations eq, ne, like, ilike).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from samplewise.verifiers.answers import normalise
from samplewise.verifiers.base import Sample, Task, Verdict
from samplewise.verifiers.templates import Template
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["Operation", "StringCheck"]

Operation = Literal["eq", "ne", "like", "ilike"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StringCheck:
    """Passes when `operation` holds between `input` and `reference`.

    eq and ne compare; like says that the input contains the reference, ilike the same in any case.

    Deviation from OpenAI: space around both texts does not count, and thinking blocks are removed.
    The canonical answer is the normalised input, unless it is longer than `max_answer_chars`.
    Without the reference that the template asks for, the status is `none`.
    """

    name: str
    operation: Operation
    reference: Template
    input: Template
    max_answer_chars: int = 200

    @property
    def immediate(self) -> bool:
        """It only looks at a text."""
        return True

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Compare; raises `VerifierError` when the request lacks an item a template names."""
        given = self.input.fill(task, sample).strip()
        answer = normalise(given) if len(given) <= self.max_answer_chars else None
        answer = answer or None
        if task.reference is None and self.reference.uses("reference"):
            return undecided(self.name, answer, "no_reference")
        wanted = self.reference.fill(task, sample).strip()
        if not wanted and self.operation in ("like", "ilike"):
            return undecided(self.name, answer, "no_reference")  # every text contains nothing
        if _holds(self.operation, given, wanted):
            return passed(self.name, answer)
        return failed(self.name, answer, "wrong_answer", "The text is not what was asked for.")


def _holds(operation: Operation, given: str, wanted: str) -> bool:
    match operation:
        case "eq":
            return given == wanted
        case "ne":
            return given != wanted
        case "like":
            return wanted in given
        case "ilike":
            return wanted.casefold() in given.casefold()
