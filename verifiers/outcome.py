"""Read what an operator's grader returns (plug-in or webhook) into a verdict.

A result of the wrong form is an error of the grader, never a verdict about the sample.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from samplewise.verifiers.base import Assurance, Status, Verdict, VerifierError

__all__ = ["Outcome", "verdict_from"]

_Text = Annotated[str, msgspec.Meta(max_length=20_000)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Shares = Annotated[tuple[_Share, ...], msgspec.Meta(max_length=10_000)]


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result object: at least a status or a score.

    `feedback` may be shown to a model, so it must not hold an expected value. `step_scores` are in
    [0, 1], one for each step or test.
    """

    status: Literal["pass", "fail", "none", "error"] | None = None
    score: float | None = None
    answer: _Text | None = None
    reason: _Text = ""
    feedback: _Text = ""
    step_scores: _Shares = ()


def verdict_from(
    value: object, name: str, *, pass_threshold: float | None, assurance: Assurance
) -> Verdict:
    """Build the verdict from a bool, a number, or an object as `Outcome` describes it.

    Without a status, `pass_threshold` turns a score into pass or fail; without that too, 1 is a
    pass, 0 a fail, and anything else a score without a judgement. A score outside [0, 1] is kept
    as `raw_score` alone.

    Raises:
        VerifierError: `protocol` for a wrong form or a score that is not finite; `crash` when the
            grader itself says `error`.
    """
    outcome = _outcome(value)
    if outcome.status == "error":
        raise VerifierError(f"the grader could not tell: {outcome.reason[:200]}", reason="crash")
    score = outcome.score
    if score is not None and not math.isfinite(score):
        raise VerifierError("the score is not finite", reason="protocol")
    status = _status(outcome, pass_threshold)
    if score is None:
        score = {Status.PASS: 1.0, Status.FAIL: 0.0}.get(status)
    return Verdict(
        name,
        status,
        score=score if score is not None and 0 <= score <= 1 else None,
        raw_score=score,
        step_scores=outcome.step_scores,
        answer=outcome.answer or None,
        reason=outcome.reason,
        feedback=outcome.feedback,
        assurance=assurance,
    )


def _outcome(value: object) -> Outcome:
    if isinstance(value, bool):
        return Outcome(status="pass" if value else "fail")
    if isinstance(value, int | float):
        return Outcome(score=float(value))
    try:
        outcome = msgspec.convert(value, Outcome)
    except msgspec.ValidationError as error:
        raise VerifierError(f"the result has the wrong form: {error}", reason="protocol") from None
    if outcome.status is None and outcome.score is None:
        raise VerifierError("the result has no status and no score", reason="protocol")
    return outcome


def _status(outcome: Outcome, pass_threshold: float | None) -> Status:
    if outcome.status is not None:
        return Status(outcome.status)
    if pass_threshold is not None and outcome.score is not None:
        return Status.PASS if outcome.score >= pass_threshold else Status.FAIL
    if outcome.score == 1.0:
        return Status.PASS
    return Status.FAIL if outcome.score == 0.0 else Status.NONE
