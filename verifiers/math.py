"""Verifier `math`: compares answers as mathematics, with math-verify in worker processes.

Source: math-verify (Hugging Face). Deviations: one final answer is taken out here and read as one
expression, a hang is an error instead of "not equal", and false equations are no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from samplewise.verifiers.answers import (
    clean,
    final_answer,
    last_number,
    normalise,
    strip_thinking,
)
from samplewise.verifiers.base import Assurance, Sample, Task, Verdict, VerifierError
from samplewise.verifiers.numbers import canonical_number, parse_number
from samplewise.verifiers.pool import WorkerPool
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["MATH_TARGET", "Math", "canonical_math"]

MATH_TARGET = "samplewise.verifiers.math_worker:compare"

_SHORT_CHARS = 60
_MAX_TEXT_CHARS = 1_000_000
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_NOISE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])")
_SPACE = re.compile(r"\\[,;:!> ]|\\q?quad(?![A-Za-z])|~|\s+")
_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Math:
    """Compares the final answer with the task's reference, or with `reference`.

    `pool` serves `MATH_TARGET`; its time limit is that of one comparison. Without a reference the
    status is `none`. The canonical answer is text; `equivalent` tells which texts are one value.
    A final answer above `max_chars` characters is an error.
    """

    name: str
    pool: WorkerPool
    reference: str | None = None
    max_chars: int = 10_000

    async def open(self) -> None:
        """Start the workers: their import takes a second or more."""
        await self.pool.open()

    async def close(self) -> None:
        """Stop the workers."""
        await self.pool.close()

    def key(self, sample: Sample) -> str:
        """Return the final answer: samples that share it share the verdict."""
        return self._answer(sample.path_text)

    def judges(self, task: Task) -> bool:
        """Say whether there is a reference to compare with."""
        return self.reference is not None or task.reference is not None

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Extract and compare.

        Raises:
            VerifierError: the comparison took too long or crashed, the answer is too long, or the
                reference cannot be read as mathematics.
        """
        given = self._answer(sample.path_text)
        answer = canonical_math(given) or None
        reference = self.reference if task.reference is None else task.reference
        if reference is None:
            return undecided(self.name, answer, "" if answer else "no_answer", Assurance.SYMBOLIC)
        if answer is None:
            return self._failed(None, "no_answer", "No final answer was found.")
        wanted = final_answer(reference) or clean(reference)
        if _same_text(answer, canonical_math(wanted)):
            return passed(self.name, answer, Assurance.SYMBOLIC)
        reply = await self._compare(wanted, given, symmetric=False)
        if not reply["gold"]:
            raise VerifierError("the reference cannot be read as mathematics", reason="protocol")
        if reply["equal"]:
            return passed(self.name, answer, Assurance.SYMBOLIC)
        if not reply["answer"]:
            return self._failed(answer, "parse", "The final answer is not one expression.")
        return self._failed(answer, "wrong_answer", "The final answer is wrong.")

    async def equivalent(self, a: str, b: str) -> bool:
        """Say whether two answers are equal as mathematics; symmetric, not always transitive.

        Raises:
            VerifierError: the comparison took too long or crashed.
        """
        if _same_text(a, b):
            return True
        left, right = parse_number(a), parse_number(b)
        if left is not None and right is not None and left.denominator == right.denominator == 1:
            return left == right
        return bool((await self._compare(a, b, symmetric=True))["equal"])

    async def _compare(self, gold: str, answer: str, *, symmetric: bool) -> dict[str, bool]:
        if max(len(gold), len(answer)) > self.max_chars:
            raise VerifierError(f"more than {self.max_chars} characters", reason="protocol")
        return await self.pool.call({"gold": gold, "answer": answer, "symmetric": symmetric})

    def _failed(self, answer: str | None, reason: str, feedback: str) -> Verdict:
        return failed(self.name, answer, reason, feedback, Assurance.SYMBOLIC)

    def _answer(self, text: str) -> str:
        """Return the marked answer, else the last line's formula, a short text, the last number."""
        if len(text) > _MAX_TEXT_CHARS:
            raise VerifierError(f"more than {_MAX_TEXT_CHARS} characters", reason="protocol")
        marked = final_answer(text)
        if marked is not None:
            return marked
        text = strip_thinking(text).strip()
        if r"\boxed" in text:  # an empty or broken one: there is no answer
            return ""
        formulas = _FORMULA.findall(text[text.rfind("\n") + 1 :])
        if len(formulas) == 1:
            return clean("".join(formulas[0]))
        if len(text) <= _SHORT_CHARS and "\n" not in text:
            return clean(text)
        return last_number(text) or ""


def canonical_math(answer: str) -> str:
    """Return the text that stands for an answer: exact for plain numbers, else tidied LaTeX."""
    answer = clean(answer)
    number = parse_number(answer)
    if number is not None:
        return canonical_number(number)
    text = _NOISE.sub("", answer).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return _LOOSE_SPACE.sub("", _SPACE.sub(" ", text).strip())


def _same_text(a: str, b: str) -> bool:
    return bool(a) and normalise(a) == normalise(b)
