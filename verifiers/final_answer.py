"""Verifier `final_answer`: takes the final answer out of a text, for voting. Needs no reference."""

from __future__ import annotations

from dataclasses import dataclass

from samplewise.verifiers.answers import final_answer, normalise, strip_thinking
from samplewise.verifiers.base import Sample, Task, Verdict
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["FinalAnswer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalAnswer:
    """Gives the normalised final answer as the canonical answer.

    A text that marks no final answer is its own answer when it is at most `max_chars` characters
    long, and does not vote when it is longer. Status is `none`, except with `check_reference` for
    a task that has one: then the two must be equal as normalised text.
    """

    name: str
    check_reference: bool = False
    max_chars: int = 200
    ignore_case: bool = True

    def judges(self, task: Task) -> bool:
        """Say whether there is a reference to compare with."""
        return self.check_reference and task.reference is not None

    @property
    def immediate(self) -> bool:
        """It only looks at a text."""
        return True

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Extract, and compare where a reference is to be checked; never raises."""
        answer = self._answer(sample.path_text)
        if not self.check_reference or task.reference is None:
            return undecided(self.name, answer, "" if answer else "no_answer")
        if answer is None:
            return failed(self.name, None, "no_answer", "No final answer was found.")
        wanted = final_answer(task.reference) or task.reference
        if answer == normalise(wanted, fold_case=self.ignore_case):
            return passed(self.name, answer)
        return failed(self.name, answer, "wrong_answer", "The final answer is wrong.")

    def _answer(self, text: str) -> str | None:
        marked = final_answer(text)
        if marked is None:
            marked = strip_thinking(text).strip()
        # The bound holds for marked answers too: a box around a whole essay is no answer.
        if len(marked) > self.max_chars:
            return None
        return normalise(marked, fold_case=self.ignore_case) or None
