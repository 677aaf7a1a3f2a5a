"""Verifier `citations`: whether what an answer quotes stands in what it was given.

It compares wording, not meaning: a right quote can still be used for a wrong claim.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import Assurance, Sample, Status, Task, Verdict
from samplewise.verifiers.code.prompt_tests import user_text
from samplewise.verifiers.templates import Template
from samplewise.verifiers.verdicts import failed, undecided

__all__ = ["Citations", "loose", "quotes"]

_MARKS = re.compile(
    r'"([^"\n]+)"|\u201c([^\u201c\u201d]+)\u201d|\u201e([^\u201c\u201d\u201e]+)[\u201c\u201d]'
    r"|\u00ab([^\u00ab\u00bb]+)\u00bb|((?:^[ \t]{0,3}>.*(?:\n|\Z))+)",
    re.MULTILINE,
)
_QUOTED_LINE = re.compile(r"^[ \t]{0,3}>[ \t]?", re.MULTILINE)
_LEFT_OUT = re.compile(r"\[?(?:\.\.\.|\u2026)\]?")
_WORD = re.compile(r"\w+")


def quotes(text: str, min_words: int) -> list[str]:
    """Return what stands between quotation marks or in quoted lines, with so many words or more."""
    found = []
    for mark in _MARKS.finditer(text):
        quote = next(group for group in mark.groups() if group is not None)
        quote = _QUOTED_LINE.sub("", quote) if mark[5] is not None else quote
        if len(_WORD.findall(quote)) >= min_words:
            found.append(" ".join(quote.split()))
    return found


def loose(text: str) -> str:
    """Return the words of a text in small letters with one space between: what is compared."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _stands(quote: str, context: str) -> bool:
    """Say whether the parts of a quote stand in the context, in their order, as whole words."""
    at = 0
    for part in _LEFT_OUT.split(quote):
        words = loose(part)
        place = context.find(f" {words} ", at) if words else at
        if place < 0:
            return False
        at = place + len(words) + 1 if words else at
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Citations:
    """Scores the share of quotes that stand in the context, word for word.

    `context` is a template; without it, all texts of the request but those of the assistant. Case,
    punctuation and line breaks do not count, `...` leaves words out. Quotes of fewer than
    `min_words` words are not looked at. Fewer than `min_quotes` quotes are a fail; with 0, an
    answer without any gets no judgement. A share of `pass_threshold` or more passes.
    """

    name: str
    context: Template | None = None
    min_words: int = 3
    min_quotes: int = 1
    pass_threshold: float = 1.0
    max_chars: int = 1_000_000

    async def verify(self, task: Task, sample: Sample) -> Verdict:
        """Compare; raises `VerifierError` when the request lacks an item that a template names."""
        if len(sample.path_text) > self.max_chars:
            text = f"The text has more than {self.max_chars} characters."
            return failed(self.name, None, "too_large", text)
        given = None if self.context is None else self.context.fill(task, sample)
        return await asyncio.to_thread(self._compared, task, sample, given)  # both can be long

    def _compared(self, task: Task, sample: Sample, given: str | None) -> Verdict:
        found = quotes(strip_thinking(sample.path_text), self.min_words)
        if not found and not self.min_quotes:
            return undecided(self.name, None, "no_quotes")
        if len(found) < self.min_quotes:
            text = f"The answer has {len(found)} quotes, and needs {self.min_quotes}."
            return failed(self.name, None, "no_quotes", text)
        context = loose("\n".join(_texts(task)) if given is None else given)
        context = f" {context} "
        wrong = [quote for quote in found if not _stands(quote, context)]
        share = 1 - len(wrong) / len(found)
        right = share >= self.pass_threshold
        return Verdict(
            self.name,
            Status.PASS if right else Status.FAIL,
            score=share,
            reason="" if right else "wrong_quote",
            feedback=f"Not in the given text: {wrong[0][:200]!r}" if wrong else "",
            assurance=Assurance.HEURISTIC,
            details={"quotes": len(found), "found": len(found) - len(wrong)},
        )


def _texts(task: Task) -> Iterator[str]:
    """Yield what the request gave: not what an assistant said in it."""
    for message in task.decoded_messages():
        if message.get("role") != "assistant":
            yield user_text([{**message, "role": "user"}])
