"""Verifier `number`: the one number of an answer, compared exactly or within a tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from samplewise.verifiers.answers import final_answer, last_number
from samplewise.verifiers.base import (
    Assurance,
    Sample,
    Task,
    Verdict,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.numbers import canonical_number, parse_number, single_number
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["Number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Gives the number as a canonical answer: `1,000`, `1000.0` and `1e3` are one.

    The number is that of the marked final answer, which must hold just one; without such a mark,
    the last number of the text. With a reference (the task's, else `reference`) it passes within
    `tolerance_abs` or `tolerance_rel` times the reference, both >= 0; without one the status is
    `none`. `percent_as_fraction` says whether 50% is 0.5 (else 50).

    Raises:
        VerifierSetupError: `reference` is not a number, or a tolerance is negative.
    """

    name: str
    reference: str | None = None
    tolerance_abs: float = 0.0
    tolerance_rel: float = 0.0
    percent_as_fraction: bool = True

    def __post_init__(self) -> None:
        if self.reference is not None and self._wanted(self.reference) is None:
            raise VerifierSetupError(f"reference: {self.reference!r} is not one number")
        if not (self.tolerance_abs >= 0 and self.tolerance_rel >= 0):
            raise VerifierSetupError("a tolerance is negative")

    def judges(self, task: Task) -> bool:
        """Say whether there is a reference to compare with."""
        return self.reference is not None or task.reference is not None

    @property
    def immediate(self) -> bool:
        """It only looks at a text."""
        return True

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Extract and compare; raises `VerifierError` when the reference is not a number."""
        value = self._given(sample.path_text)
        answer = None if value is None else canonical_number(value)
        reference = self.reference if task.reference is None else task.reference
        if reference is None:
            return undecided(self.name, answer, "" if answer else "no_answer")
        wanted = self._wanted(reference)
        if wanted is None:
            raise VerifierError("the reference is not one number", reason="protocol")
        if value is None:
            return failed(self.name, None, "no_answer", "There is no single number as the answer.")
        if self._close(value, wanted):
            return passed(self.name, answer, Assurance.SYMBOLIC)
        return failed(self.name, answer, "wrong_answer", "The number is wrong.", Assurance.SYMBOLIC)

    async def equivalent(self, a: str, b: str) -> bool:
        """Say whether two canonical answers lie within the tolerance of each other."""
        left, right = parse_number(a), parse_number(b)
        if left is None or right is None:
            return False
        return self._close(left, right) or self._close(right, left)

    def _given(self, text: str) -> Fraction | None:
        marked = final_answer(text)
        if marked is not None:
            return single_number(marked, percent=self.percent_as_fraction)
        last = last_number(text)
        return None if last is None else parse_number(last, percent=self.percent_as_fraction)

    def _wanted(self, reference: str) -> Fraction | None:
        marked = final_answer(reference)
        return single_number(
            reference if marked is None else marked, percent=self.percent_as_fraction
        )

    def _close(self, value: Fraction, wanted: Fraction) -> bool:
        allowed = max(Fraction(self.tolerance_abs), Fraction(self.tolerance_rel) * abs(wanted))
        return abs(value - wanted) <= allowed
