"""Verifier `text_similarity`: how alike a text and a reference are, as in OpenAI's grader.

Source of the measures: `similarity.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from samplewise.verifiers.base import Assurance, Sample, Status, Task, Verdict, VerifierError
from samplewise.verifiers.similarity import MEASURES
from samplewise.verifiers.templates import Template
from samplewise.verifiers.verdicts import failed, undecided

__all__ = ["TextSimilarity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSimilarity:
    """Scores `input` against `reference` by `metric`, one of `MEASURES`.

    With `pass_threshold` a score from there on passes and one below fails; without it there is no
    judgement. Without the reference that the template asks for, there is none either. An input of
    more than `max_chars` characters fails, such a reference is an error.
    """

    name: str
    input: Template
    reference: Template
    metric: str = "rouge_l"
    pass_threshold: float | None = None
    max_chars: int = 20_000

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Compare; raises `VerifierError` for a missing item or a reference that is too long."""
        if task.reference is None and self.reference.uses("reference"):
            return undecided(self.name, None, "no_reference")
        given = self.input.fill(task, sample).strip()
        wanted = self.reference.fill(task, sample).strip()
        if not wanted:
            return undecided(self.name, None, "no_reference")
        if len(wanted) > self.max_chars:
            raise VerifierError(f"reference: more than {self.max_chars} characters")
        if len(given) > self.max_chars:
            text = f"The text has more than {self.max_chars} characters."
            return failed(self.name, None, "too_large", text)
        score = await asyncio.to_thread(MEASURES[self.metric], given, wanted)
        status, text = Status.NONE, ""
        if self.pass_threshold is not None:
            status = Status.PASS if score >= self.pass_threshold else Status.FAIL
        if status is Status.FAIL:
            text = f"The text is too far from what was asked for ({self.metric} {score:.2f})."
        return Verdict(
            self.name,
            status,
            score=score,
            reason="wrong_answer" if status is Status.FAIL else "",
            feedback=text,
            assurance=Assurance.HEURISTIC,
        )
