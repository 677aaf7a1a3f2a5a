from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from samplewise.verifiers.base import (
    Assurance,
    Status,
    TestsError,
    ToolCall,
    Verdict,
    Verifier,
    VerifierError,
    VerifierSetupError,
)
from samplewise.verifiers.multi import Multi
from tests.verifiers.making import FixedVerifier, cannot_tell, sample, says, task

_P, _F, _N = says(Status.PASS), says(Status.FAIL), says(Status.NONE)


def _multi(rule: str, *graders: Verifier, threshold: float | None = None) -> Multi:
    named: Mapping[str, Verifier] = dict(zip("abcdef", graders, strict=False))
    return Multi(name="m", graders=named, calculate_output=rule, pass_threshold=threshold)


async def _status(multi: Multi) -> Status | str:
    try:
        return (await multi.verify(task(), sample("x"))).status
    except VerifierError as error:
        return error.reason


@pytest.mark.parametrize(
    ("rule", "graders", "status"),
    [
        ("all", [_P, _P], Status.PASS),
        ("all", [_P, _F], Status.FAIL),
        ("all", [_P, _N], Status.NONE),
        ("all", [_F, cannot_tell()], Status.FAIL),
        ("all", [_P, cannot_tell("timeout")], "timeout"),
        ("any", [_F, _P], Status.PASS),
        ("any", [_F, _F], Status.FAIL),
        ("any", [_F, _N], Status.NONE),
        ("any", [_P, cannot_tell()], Status.PASS),
        ("any", [_F, cannot_tell("crash")], "crash"),
    ],
)
async def test_all_and_any_follow_three_valued_logic(
    rule: str, graders: list[Verifier], status: Status | str
) -> None:
    assert await _status(_multi(rule, *graders)) == status


async def test_a_formula_weighs_scores_and_verdicts() -> None:
    scored = says(Status.NONE, score=0.5)
    verdict = await _multi("0.5 * a + 0.5 * b", _P, scored).verify(task(), sample("x"))
    assert (verdict.status, verdict.score) == (Status.NONE, 0.75)


async def test_the_threshold_decides_what_passes_without_rounding_tricks() -> None:
    parts = [says(Status.NONE, score=score) for score in (0.1, 0.2, 0.7)]
    assert await _status(_multi("a + b + c", *parts, threshold=1.0)) is Status.PASS
    assert await _status(_multi("a + b", *parts, threshold=0.31)) is Status.FAIL


async def test_a_sum_above_one_is_kept_raw() -> None:
    verdict = await _multi("a + b", _P, _P).verify(task(), sample("x"))
    assert (verdict.score, verdict.raw_score) == (1.0, 2.0)


async def test_an_error_counts_only_where_the_formula_looks() -> None:
    assert await _status(_multi("a", _P, cannot_tell(), threshold=1.0)) is Status.PASS
    assert await _status(_multi("a + b", _P, cannot_tell("timeout"))) == "timeout"


async def test_a_grader_without_a_score_leaves_no_score() -> None:
    verdict = await _multi("a + b", _P, _N, threshold=1.0).verify(task(), sample("x"))
    assert (verdict.status, verdict.score) == (Status.NONE, None)


async def test_division_by_zero_is_an_error() -> None:
    assert await _status(_multi("1 / a", _F)) == "protocol"


async def test_answer_feedback_and_assurance_come_from_the_graders() -> None:
    first = says(Status.FAIL, feedback="Wrong form.", reason="parse")
    second = says(Status.PASS, answer="42", assurance=Assurance.MODEL, cost_nano=3)
    verdict = await _multi("a + b", first, second, threshold=2.0).verify(task(), sample("x"))
    assert (verdict.answer, verdict.feedback, verdict.reason) == ("42", "Wrong form.", "parse")
    assert (verdict.assurance, verdict.cost_nano) == (Assurance.MODEL, 3)


async def test_a_pass_carries_no_complaints() -> None:
    failing = says(Status.FAIL, feedback="Wrong form.", reason="parse")
    verdict = await _multi("any", failing, _P).verify(task(), sample("x"))
    assert (verdict.feedback, verdict.reason) == ("", "")


@pytest.mark.parametrize("rule", ["a + z", "", "all(a)", "a.b"])
def test_a_formula_that_cannot_work_is_a_setup_error(rule: str) -> None:
    with pytest.raises(VerifierSetupError):
        _multi(rule, _P)


def test_no_graders_are_a_setup_error() -> None:
    with pytest.raises(VerifierSetupError):
        _multi("all")


async def test_graders_are_opened_and_closed() -> None:
    grader = says(Status.PASS)
    multi = _multi("all", grader)
    await multi.open()
    await multi.close()
    assert grader.calls == ["open", "close"]


async def test_cancelling_reaches_all_graders() -> None:
    class Stuck:
        ended = False

        async def verify(self, *_: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended = True

    stuck = Stuck()
    running = asyncio.create_task(_multi("all", stuck).verify(task(), sample("x")))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert stuck.ended


def test_the_key_knows_tool_calls() -> None:
    multi = _multi("all", _P, _F)
    assert multi.key(sample("x")) == multi.key(sample("x"))
    assert multi.key(sample("x", ToolCall("f", "{}"))) != multi.key(sample("x"))


class _TakesTests(FixedVerifier):
    def check_tests(self, tests: bytes) -> bool:
        if tests == b"wrong":
            raise TestsError("cases", "wrong")
        return tests == b"mine"


def test_tests_of_a_request_are_for_the_graders_that_take_them() -> None:
    plain, takes = says(Status.PASS), _TakesTests(Verdict("t", Status.PASS))
    both = Multi(name="m", graders={"a": plain, "b": takes}, calculate_output="all")
    assert both.check_tests(b"mine")
    assert not both.check_tests(b"other")
    assert not Multi(name="m", graders={"a": plain}, calculate_output="all").check_tests(b"mine")
    with pytest.raises(TestsError):
        both.check_tests(b"wrong")
