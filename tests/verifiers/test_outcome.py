from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplewise.verifiers.base import Assurance, Status, Verdict, VerifierError
from samplewise.verifiers.outcome import verdict_from


def _read(value: object, threshold: float | None = None) -> Verdict:
    return verdict_from(value, "v", pass_threshold=threshold, assurance=Assurance.HEURISTIC)


@pytest.mark.parametrize(
    ("value", "status", "score"),
    [
        (True, Status.PASS, 1.0),
        (False, Status.FAIL, 0.0),
        (1, Status.PASS, 1.0),
        (0.0, Status.FAIL, 0.0),
        (0.5, Status.NONE, 0.5),
        ({"score": 1}, Status.PASS, 1.0),
        ({"score": 0.7}, Status.NONE, 0.7),
        ({"status": "pass"}, Status.PASS, 1.0),
        ({"status": "fail", "score": 0.3}, Status.FAIL, 0.3),
        ({"status": "none", "answer": "x"}, Status.NONE, None),
    ],
)
def test_bools_numbers_and_objects_are_understood(
    value: object, status: Status, score: float | None
) -> None:
    verdict = _read(value)
    assert (verdict.status, verdict.score) == (status, score)


def test_a_threshold_turns_scores_into_verdicts() -> None:
    assert _read(0.5, 0.5).status is Status.PASS
    assert _read(0.49, 0.5).status is Status.FAIL
    assert _read({"status": "fail", "score": 0.9}, 0.5).status is Status.FAIL


def test_a_score_off_the_scale_is_kept_raw() -> None:
    verdict = _read(5.0)
    assert (verdict.status, verdict.score, verdict.raw_score) == (Status.NONE, None, 5.0)
    assert _read(5.0, 3.0).status is Status.PASS


@pytest.mark.parametrize(
    "value",
    [None, "pass", [], {}, {"status": "ok"}, {"score": "1"}, {"passed": True},
     {"score": float("nan")}, {"answer": "x"}, {"status": "pass", "answer": 5},
     {"status": "pass", "feedback": "x" * 20_001}, float("inf"), {"status": None},
     {"status": "pass", "step_scores": [2]}, {"status": "pass", "step_scores": 1}],
)  # fmt: skip
def test_a_wrong_form_is_an_error_of_the_grader(value: object) -> None:
    with pytest.raises(VerifierError) as caught:
        _read(value)
    assert caught.value.reason == "protocol"


def test_a_grader_may_score_steps_or_tests() -> None:
    assert _read({"status": "none", "step_scores": [1, 0, 0.5]}).step_scores == (1.0, 0.0, 0.5)


def test_a_grader_may_say_that_it_cannot_tell() -> None:
    with pytest.raises(VerifierError, match="database is down") as caught:
        _read({"status": "error", "reason": "database is down"})
    assert caught.value.reason == "crash"


_KEYS = st.sampled_from(["status", "score", "x"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner),
)


@given(_VALUES)
def test_any_value_gives_a_verdict_or_a_verifier_error(value: Any) -> None:
    try:
        verdict = _read(value)
    except VerifierError:
        return
    assert verdict.score is None or 0 <= verdict.score <= 1
