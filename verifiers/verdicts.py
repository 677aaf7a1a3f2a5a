"""Short ways to the verdicts that most verifiers give."""

from __future__ import annotations

from samplewise.verifiers.base import Assurance, Status, Verdict

__all__ = ["failed", "passed", "undecided"]


def passed(name: str, answer: str | None, assurance: Assurance = Assurance.HEURISTIC) -> Verdict:
    """Return a pass with score 1."""
    return Verdict(name, Status.PASS, score=1.0, answer=answer, assurance=assurance)


def failed(
    name: str,
    answer: str | None,
    reason: str,
    feedback: str,
    assurance: Assurance = Assurance.HEURISTIC,
) -> Verdict:
    """Return a fail with score 0; `feedback` must hold no expected value."""
    return Verdict(
        name,
        Status.FAIL,
        score=0.0,
        answer=answer,
        reason=reason,
        feedback=feedback,
        assurance=assurance,
    )


def undecided(
    name: str, answer: str | None, reason: str = "", assurance: Assurance = Assurance.HEURISTIC
) -> Verdict:
    """Return an answer without a judgement; without an answer the reason says why."""
    return Verdict(name, Status.NONE, answer=answer, reason=reason, assurance=assurance)
