"""Verifier `regex`: a pattern must occur in the text, or its group is the answer.

RE2 syntax (no look-around, no back-references), so matching is linear in the text.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

import re2

from samplewise.verifiers.answers import normalise, strip_thinking
from samplewise.verifiers.base import Sample, Task, Verdict, VerifierError, VerifierSetupError
from samplewise.verifiers.verdicts import failed, passed, undecided

__all__ = ["Regex"]

_INLINE_CHARS = 4_000  # longer texts are matched in a thread: RE2 lets go of the interpreter


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """Matches `pattern` against the text without thinking blocks.

    Without `group`: pass when it matches, else fail. With `group` (number or name): the group is
    the canonical answer and the status `none`; with `reference` too it must equal the task's
    reference as normalised text. No match is a fail in all three. Texts above `max_chars`
    characters are an error.

    Raises:
        VerifierSetupError: the pattern is not RE2, or has no such group.
    """

    name: str
    pattern: str
    mode: Literal["search", "fullmatch"] = "search"
    group: int | str | None = None
    reference: bool = False
    max_chars: int = 1_000_000
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options = re2.Options()
        options.log_errors = False
        try:
            compiled = re2.compile(self.pattern, options)
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            raise VerifierSetupError(f"pattern {self.pattern!r} is not RE2: {why}") from None
        if isinstance(self.group, int) and not 0 <= self.group <= compiled.groups:
            raise VerifierSetupError(f"pattern {self.pattern!r} has no group {self.group}")
        if isinstance(self.group, str) and self.group not in compiled.groupindex:
            raise VerifierSetupError(f"pattern {self.pattern!r} has no group {self.group!r}")
        if self.reference and self.group is None:
            raise VerifierSetupError("reference: true needs a group to compare")
        object.__setattr__(self, "_compiled", compiled)

    def judges(self, task: Task) -> bool:
        """Say whether a match can pass: not as an answer that is compared with nothing."""
        return self.group is None or (self.reference and task.reference is not None)

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Match; raises `VerifierError` when the text is too long."""
        if len(sample.path_text) > self.max_chars:
            raise VerifierError(f"more than {self.max_chars} characters", reason="protocol")
        text = strip_thinking(sample.path_text).strip()
        match_ = self._compiled.fullmatch if self.mode == "fullmatch" else self._compiled.search
        found = (
            match_(text) if len(text) <= _INLINE_CHARS else await asyncio.to_thread(match_, text)
        )
        if found is None:
            return failed(self.name, None, "no_match", "The text does not have the right form.")
        if self.group is None:
            return passed(self.name, None)
        return self._judge(task, found.group(self.group))

    def _judge(self, task: Task, group: str | None) -> Verdict:
        answer = normalise(group or "") or None
        if not self.reference or task.reference is None:
            return undecided(self.name, answer, "" if answer else "no_answer")
        if answer is not None and answer == normalise(task.reference):
            return passed(self.name, answer)
        return failed(self.name, answer, "wrong_answer", "The answer is wrong.")
