"""What is no answer at all is not shown to a judge: nothing, too little, or a mere opening.

A single sign or an opening such as "Solution" makes many judges accept.
Source: Zhao et al. 2025, arXiv:2507.08794 (master keys), whose ten keys are all caught here.
"""

from __future__ import annotations

import unicodedata

from samplewise.verifiers.answers import strip_thinking
from samplewise.verifiers.base import Assurance, Sample, Status, Verdict

__all__ = ["screened"]

# Openings without an answer, in the languages of the source, letters only.
_OPENINGS = frozenset(
    {
        "solution",
        "solution to the problem",
        "thought process",
        "let s solve this problem step by step",
        "let us solve this problem step by step",
        "let s think step by step",
        "the answer is",
        "final answer",
        "answer",
        "解",
        "解答",
        "かいせつ",
        "解説",
        "respuesta",
        "respuesta final",
        "solución",
        "lösung",
        "antwort",
        "решение",
        "ответ",
        "réponse",
    }
)
_LONGEST_OPENING = 200


def screened(name: str, sample: Sample, min_chars: int) -> Verdict | None:
    """Return the verdict on what no judge needs to see, None for what one must.

    A text with nothing visible fails. One with fewer than `min_chars` letters and digits, or with
    an opening alone, gets no judgement: it is not accepted, but a short right answer may look so.
    Thinking blocks do not count.
    """
    text = unicodedata.normalize("NFKC", strip_thinking(sample.path_text))
    if not any(_visible(char) for char in text):
        return _verdict(name, Status.FAIL, "empty", "The answer is empty.")
    found = sum(char.isalnum() for char in text)
    if found < min_chars:
        return _verdict(name, Status.NONE, "too_short", "The answer is too short to be judged.")
    if len(text) <= _LONGEST_OPENING and _letters(text) in _OPENINGS:
        return _verdict(name, Status.NONE, "no_answer", "The answer ends before it begins.")
    return None


def _visible(char: str) -> bool:
    # Not separators and not control, format or unassigned characters.
    return unicodedata.category(char)[0] not in "ZC"


def _letters(text: str) -> str:
    """Return the words of a text, in lower case and without signs between them."""
    shown = (char for char in text if _visible(char) or char.isspace())
    return " ".join("".join(c if c.isalnum() else " " for c in shown).casefold().split())


def _verdict(name: str, status: Status, reason: str, feedback: str) -> Verdict:
    score = 0.0 if status is Status.FAIL else None
    return Verdict(
        name, status, score, reason=reason, feedback=feedback, assurance=Assurance.HEURISTIC
    )
